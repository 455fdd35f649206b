// bench:cpu: its arithmetic, and short runs with a tiny model; of times nothing is expected.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { barPlot } from '../../bench/bar-plot';
import { cpuName, cpuSlug, parseCpuList } from '../../bench/cores';
import { agrees, type CpuRow, compare, cpuBars, cpuTables, shareOfPeak } from '../../bench/cpu-report';
import { kThings, randomPrompts, templatePrompts, textMultiplyAdds } from '../../bench/cpu-work';
import { kSizes, makeCheckpoint } from '../../bench/make-checkpoint';
import { pythonWithTorch } from '../../bench/peer';
import { CLIP, counters } from '../../lib';
import { packageRoot } from '../../lib/native';

const micro = kSizes.micro!;

const row: CpuRow = {
  name: 'image, batch 2',
  kind: 'image',
  threads: 1,
  cores: '3',
  flops: 4e9,
  items: 2,
  peak: [100, 50, 100],
  engines: {
    warpsight: {
      samples: [
        [50, 50],
        [100, 100],
        [40, 40],
      ],
    },
    onnxruntime: {
      samples: [
        [100, 200],
        [100, 200],
        [100, 200],
      ],
      cosine: 1,
      difference: 2e-6,
    },
  },
  missing: { PyTorch: 'not found' },
};

describe('the tables of bench:cpu', () => {
  it('compare within a round: shares of the FMA loop and ratios are medians of those', () => {
    // 80 of 100, 40 of 50, 100 of 100 GFLOP/s; 2, 1 and 2.5 times
    expect(shareOfPeak(row, row.engines.warpsight!)).deep.equal({ median: 0.8, low: 0.8, high: 1 });
    const [, , line] = cpuTables([row]).split('\n');
    expect(line).equal(
      '| image, batch 2 | 1 | 25.00 (25.00 to 50.00) | 80.0 | 100.0 | 80.0 % | 50.00 (50.00 to 50.00) | 2.00 | - | - | 1.00, 2.00, - | 1.0000000, 2e-6 | - |',
    );
  });

  it('have one for each kind of row; a peer that is not there is a dash', () => {
    const narrow = { ...row.engines.onnxruntime!, samples: [20, 40, 20].map((ms) => [ms, ms] as const) };
    const int8: CpuRow = {
      ...row,
      kind: 'int8',
      items: 1,
      engines: { warpsight: row.engines.warpsight!, 'warpsight int8': narrow },
    };
    const load: CpuRow = {
      ...row,
      kind: 'load',
      items: 1,
      engines: { warpsight: { samples: [[30, 30]] }, read: { samples: [[20, 10]] } },
      memory: [
        { peak: 150, weights: 100 },
        { peak: 110, weights: 100 },
        { peak: 120, weights: 100 },
      ],
    };
    const text: CpuRow = { ...row, kind: 'text', multiplyAdds: { executed: 2e6, realLengths: 4e6, padded: 30e6 } };
    const bfloat16: CpuRow = {
      ...int8,
      kind: 'bfloat16',
      engines: { ...row.engines, 'warpsight bfloat16': narrow },
    };
    const beside: CpuRow = {
      ...row,
      kind: 'beside',
      items: 1,
      longestStep: 12.34,
      engines: { ...row.engines, 'warpsight alone': { samples: [30, 40, 35].map((ms) => [ms, ms] as const) } },
    };
    const tables = cpuTables([int8, bfloat16, beside, load, text]);
    // 20, 60 and 5 ms later
    expect(tables).contain(
      '| image, batch 2 | 1 | 50.00 (50.00 to 100.0) | 100.0 | 35.00 (35.00 to 40.00) | 20.0 | 12.3 | 100.0 (100.0 to 100.0) | 100.0 | 2.00 |',
    );
    expect(tables).contain(
      '| image, batch 2 | 1 | 20.00 (20.00 to 40.00) | 50.00 (50.00 to 100.0) | 2.50 | - | - | 1.0000 | - | 1.00, 1.00, - |',
    );
    expect(tables).contain('| bfloat16 | threads | ms | our float32 ms | ÷ bfloat16 | onnxruntime float32 ms | ÷ ours |');
    expect(tables).contain(
      '| image, batch 2 | 1 | 20.00 (20.00 to 40.00) | 50.00 (50.00 to 100.0) | 2.50 | 100.0 (100.0 to 100.0) | 5.00 |',
    );
    expect(tables).contain(
      '| image, batch 2 | 1 | 30.00 (30.00 to 30.00) | 20.00 (20.00 to 20.00) | 1.50 | 1.200 | 1.00, 0.50 |',
    );
    expect(tables).contain('| image, batch 2 | 2 | 4 | 0.500 | 30 | 15.0 |');
  });

  it('draw what they say', () => {
    const plot = barPlot({ title: 'a title', x: 'share', groups: cpuBars([row]) });
    expect(plot).contain('>image, batch 2, 1 thread<').and.contain('>warpsight 80 %<').and.contain('>onnxruntime 40 %<');
    // 500 wide for 100 %
    expect(plot).contain('width="400.0"').and.contain('width="200.0"');
  });
});

describe('what bench:cpu compares', () => {
  const ours = [1, 2, 3, 4];
  it('is each row by itself and each number: a swapped row, a wrong number, NaN or a number too few disagree', () => {
    expect(agrees('onnxruntime', compare(ours, [1, 2, 3, 4 + 1e-5], 2))).equal(true);
    for (const theirs of [[3, 4, 1, 2], [1, 2, 3, 4.01], [1, 2, 3, Number.NaN], [1, 2, 3], []])
      for (const name of ['onnxruntime', 'PyTorch'] as const)
        expect(agrees(name, compare(ours, theirs, 2)), `${theirs}`).equal(false);
  });

  it('in int8 and bfloat16 is the direction of rows', () => {
    expect(agrees('warpsight int8', compare(ours, [1.05, 2, 3, 4.1], 2))).equal(true);
    expect(agrees('warpsight int8', compare(ours, [1, 2, -3, 4], 2))).equal(false);
    expect(agrees('onnxruntime int8', compare(ours, [1, 2, -3, 4], 2))).equal(true);
    expect(agrees('onnxruntime int8', compare(ours, [1, 2], 2))).equal(false);
    expect(agrees('warpsight bfloat16', compare(ours, [1.01, 2, 3, 4.02], 2))).equal(true);
    expect(agrees('warpsight bfloat16', compare(ours, [1.2, 2, 3, 4], 2))).equal(false);
  });
});

describe('the machine as bench:cpu sees it', () => {
  it('has processors in the kernel’s lists', () => {
    expect(parseCpuList('0-2,5,8-9\n')).deep.equal([0, 1, 2, 5, 8, 9]);
    expect(parseCpuList('')).deep.equal([]);
  });

  it('has a name that a file can have', () => {
    expect(cpuSlug('AMD EPYC')).equal('amd-epyc');
    expect(cpuSlug('Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz')).equal('intel-xeon-platinum-8481c');
    expect(cpuSlug('AMD Ryzen 9 7950X 16-Core Processor')).equal('amd-ryzen-9-7950x-16-core');
    expect(cpuSlug('AMD EPYC (family 25, model 17)')).equal('amd-epyc-family-25-model-17');
    expect(cpuSlug('Intel(R) Xeon(R) CPU @ 2.70GHz (family 6, model 207)')).equal('intel-xeon-family-6-model-207');
  });

  it('has the family and the model that the kernel tells', () => {
    const info = 'processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n';
    expect(cpuName('AMD EPYC', info)).equal('AMD EPYC (family 25, model 17)');
    expect(cpuName('Neoverse-N1', 'processor\t: 0\nCPU part\t: 0xd0c\n')).equal('Neoverse-N1');
  });
});

describe('the prompts of bench:cpu', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
    makeCheckpoint(folder, micro);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const random = randomPrompts(80, micro.text.vocabulary);
  const template = templatePrompts(80, micro.text.vocabulary);

  it('are 80, of 7 to 14 tokens or of one template', () => {
    expect(kThings).length(80);
    expect(new Set(kThings)).property('size', 80);
    expect([...new Set(random.map(({ length }) => length))].sort((a, b) => a - b)).deep.equal([7, 8, 9, 10, 11, 12, 13, 14]);
    for (const prompt of template) expect(prompt.slice(0, 5)).deep.equal([510, 0, 1, 2, 3]);
    for (const prompt of [...random, ...template]) {
      expect(prompt.at(-1)).equal(511);
      expect(prompt.slice(1, -1).every((id) => id < 510)).equal(true);
    }
  });

  it('cost by themselves what is counted for their lengths', async () => {
    const clip = await CLIP.fromPretrained(folder, { device: 'cpu' });
    const executed = async (prompts: number[][]) => {
      const before = counters().multiplyAdds;
      const rows = await clip.encodeText({ inputIds: prompts });
      await rows.read();
      rows.dispose();
      return counters().multiplyAdds - before;
    };
    let alone = 0;
    for (const prompt of random) alone += await executed([prompt]);
    const lengths = random.map(({ length }) => length);
    const { realLengths, padded } = textMultiplyAdds(micro, lengths);
    expect(realLengths).equal(alone);
    expect(padded).above(realLengths);
    expect(await executed(random), 'the start mark is shared').within(0.88 * realLengths, 0.98 * realLengths);
    const { text, projection } = micro;
    // 12 T D² and 2 T² D a layer, D·d at the end
    expect(padded).equal(80 * (2 * (12 * 16 * text.width ** 2 + 2 * 16 ** 2 * text.width) + text.width * projection));
    clip.dispose();
  });
});

describe('bench:cpu', () => {
  const withoutPython = { WARPSIGHT_PYTHON: '/nowhere/python' };
  let out: string;
  beforeEach(() => {
    out = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  });
  afterEach(() => rmSync(out, { recursive: true, force: true }));

  function run(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const script = join(packageRoot, 'dist', 'bench', 'cpu.js');
    return spawnSync(process.execPath, [script, '--model', 'micro', '--threads', '1', ...args], {
      encoding: 'utf8',
      env: { ...process.env, OUT: out, ...env },
    });
  }

  function written(): {
    table: string;
    plot: string;
    raw: { rows: CpuRow[]; missing: string; problems: string; notMeasured: string };
  } {
    const [name] = readdirSync(out)
      .filter((file) => file.endsWith('.json'))
      .map((file) => file.slice(0, -5));
    const read = (extension: string) => readFileSync(join(out, `${name}.${extension}`), 'utf8');
    return { table: read('md'), plot: read('svg'), raw: JSON.parse(read('json')) };
  }

  it('measures every row with the engines that are there, and writes table, plot and raw numbers', function () {
    this.timeout(300_000);
    const { status, stderr } = run(['--samples', '2', '--batches', '2'], withoutPython);
    expect(stderr).equal('');
    expect(status).equal(0);
    const { table, plot, raw } = written();
    expect(raw.problems).equal('none');
    expect(raw.missing).contain('PyTorch was not found');
    const both = ['warpsight', 'onnxruntime'];
    const bfloat16 = ['bfloat16', 'image, batch 2', ['warpsight', 'warpsight bfloat16', 'onnxruntime']] as const;
    const refused = /^bfloat16: image, batch 2, 1 thread: products in bfloat16 need AVX-512/.test(raw.notMeasured);
    if (!refused) expect(raw.notMeasured).equal('nothing');
    expect(raw.rows.map(({ kind, name, engines }) => [kind, name, Object.keys(engines)])).deep.equal([
      ['image', 'image, batch 2', both],
      ['products', 'product 5 x 32 x 32', both],
      ['products', 'product 5 x 32 x 96', both],
      ['products', 'product 5 x 32 x 128', both],
      ['text', 'text, 80 random prompts', both],
      ['text', 'text, 80 prompts of one template', both],
      ['int8', 'image, batch 2', ['warpsight', 'warpsight int8', 'onnxruntime int8']],
      ...(refused ? [] : [bfloat16]),
      ['beside', 'an image beside 64', ['warpsight', 'warpsight alone', 'onnxruntime']],
      ['load', 'micro', ['warpsight', 'read']],
    ]);
    for (const { kind, engines, peak, items, flops, memory, longestStep } of raw.rows) {
      expect(peak).length(2);
      for (const [name, { samples, cosine, difference }] of Object.entries(engines)) {
        expect(samples).length(2);
        for (const [ms, cpuMs] of samples) expect(Math.min(ms, cpuMs), name).above(0);
        if (name === 'onnxruntime') expect([cosine! > 1 - 1e-6, difference! < 1e-4]).deep.equal([true, true]);
        if (name === 'onnxruntime int8') expect(cosine).within(0.99, 1);
      }
      if (kind === 'products') expect(items).at.least(24);
      expect(flops === undefined).equal(kind === 'load' || kind === 'beside');
      if (kind === 'beside') expect(longestStep).above(0);
      if (memory) for (const { peak: most, weights } of memory) expect(most).above(weights);
    }
    // patches, 2 layers of which the last has one row behind its keys and values, projection; twice
    const [D, T, patch] = [32, 5, 3 * 16 ** 2];
    const layer = 12 * T * D ** 2 + 2 * T ** 2 * D;
    const last = 2 * T * D ** 2 + 10 * D ** 2 + 2 * T * D;
    expect(raw.rows[0]!.flops).equal(2 * 2 * (4 * patch * D + layer + last + D * 16));
    expect(table).contain('| text, 80 random prompts | 1 |').and.contain('| micro | 1 |');
    expect(plot).contain('onnxruntime');
  });

  it('measures PyTorch where it is installed', function () {
    this.timeout(300_000);
    if (!pythonWithTorch('cpu')) {
      console.log('skipped: no Python with PyTorch; WARPSIGHT_PYTHON names one');
      this.skip();
    }
    const { status, stderr } = run(['--samples', '2', '--batches', '3', '--rows', 'image,text']);
    expect(stderr).equal('');
    expect(status).equal(0);
    for (const { engines } of written().raw.rows) {
      const { samples, cosine, difference, form } = engines.PyTorch!;
      expect(samples).length(2);
      expect([cosine! > 1 - 1e-6, difference! < 1e-4]).deep.equal([true, true]);
      expect(form).match(/^\d+ at once$/);
    }
  });

  it('begins no row when its time is over', () => {
    const { status } = run(['--samples', '1', '--rows', 'image', '--batches', '1', '--seconds', '0'], withoutPython);
    expect(status).equal(0);
    expect(written().raw).deep.include({ rows: [], notMeasured: 'image: image, batch 1, 1 thread' });
  });

  for (const [args, message] of [
    [['--rows', 'image,speech'], '--rows takes image, products, text, int8, bfloat16, beside, load: one is speech'],
    [['--samples', '0'], '--samples takes whole numbers above 0: it is 0'],
    [['--threads', '100000'], '--threads: this process may use'],
    [['--model', 'huge'], '--model takes micro, '],
  ] as const) {
    it(`says what ${args.join(' ')} should be`, () => {
      const { status, stderr } = run(args);
      expect(status).equal(1);
      expect(stderr).contain(message);
      expect(readdirSync(out)).deep.equal([]);
    });
  }
});
