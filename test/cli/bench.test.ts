import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { RunProfile } from '../../lib/profile';
import { fixtures, needsFixtures } from '../support/fixtures';
import { warpsight } from './program';

const kLlava = join(fixtures, 'llava-tiny', 'checkpoint');
const kLlama = join(fixtures, 'llama-tiny-linear', 'checkpoint');
const cpu = ['--device', 'cpu'];

interface Report {
  readonly results: readonly {
    readonly name: string;
    readonly count: number;
    readonly runs: number;
    readonly medianMs: number;
  }[];
  readonly peaks?: { readonly bandwidth: number };
  readonly runs?: readonly RunProfile[];
}

describe('warpsight bench', function () {
  this.timeout(60_000);
  let folder: string;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('prints a line for each thing that the model does', async () => {
    const { code, out, err } = await warpsight(['bench', ...cpu, '--batch', '2']);
    expect({ code, err }).to.deep.equal({ code: 0, err: '' });
    const number = '\\d+\\.\\d+';
    const times = `median ${number} ms, ${number} to ${number} in \\d+ runs; ${number}`;
    expect(out).to.match(
      new RegExp(
        `^clip-pictograms on cpu \\(.+ threads?\\) in float32\nencodeImage, batch 2 +${times} images per second\nencodeText, batch 2 +${times} texts per second\n$`,
      ),
    );
  });

  it('shows every step with --profile, and writes a trace of the same', async () => {
    const trace = join(folder, 'steps.json');
    const { code, out } = await warpsight(['bench', ...cpu, '--profile', '--trace', trace]);
    expect(code).to.equal(0);
    expect(out).to.match(/^peaks of the roofline: .* GB\/s, .* measured with \d+ threads: /m);
    expect(out).to.match(
      /^encodeImage: \d+ steps, \d+\.\d{3} ms\noperation +kernel +shapes +ms +of run +bytes +operations +bound by +roofline\n/m,
    );
    expect(out).to.match(
      /^patchEmbed +\w+ +\(\[1, 3, 64, 64\], .*\) +\d+\.\d{4} +\d+\.\d % +\d+ kB +4\.72 MFLOP +(compute|memory) +\d+\.\d %$/m,
    );
    const { traceEvents }: { traceEvents: { name: string; cat: string }[] } = JSON.parse(readFileSync(trace, 'utf8'));
    expect(traceEvents.filter(({ cat }) => cat === 'run').map(({ name }) => name)).to.deep.equal(['encodeImage', 'encodeText']);
    const lines = out.split('\n').filter((row) => /\) +\d+\.\d{4} /.test(row));
    expect(traceEvents.filter(({ cat }) => cat === 'step').map(({ name }) => name)).to.deep.equal(
      lines.map((row) => row.split(' ')[0]),
    );
  });

  for (const [name, model, embeds] of [
    ['a LLaVA', kLlava, ['patchEmbed', 'splice']],
    ['a Llama', kLlama, ['embed']],
  ] as const) {
    it(`times the answer of ${name}, and its steps`, async function () {
      needsFixtures(this);
      const { code, out } = await warpsight(['bench', model, ...cpu, '--json', '--profile']);
      expect(code).to.equal(0);
      const { results, runs, peaks }: Report = JSON.parse(out);
      expect(results.map(({ name, count }) => [name, count])).to.deep.equal([['generate', 32]]);
      expect(results[0]!.medianMs).to.be.above(0);
      expect(results[0]!.runs).to.be.at.least(5);
      expect(peaks!.bandwidth).to.be.above(0);
      const operations = runs!.flatMap(({ steps }) => steps.map(({ op }) => op));
      expect(operations).to.include.members([...embeds, 'pagedAttention', 'sample']);
      expect(
        operations.filter((op) => op === 'sample'),
        'the prompt, and one step',
      ).to.have.length(2);
    });
  }

  const wrong: readonly (readonly [what: string, args: readonly string[], code: number, message: RegExp])[] = [
    ['a batch that is none', [...cpu, '--batch', '0'], 2, /--batch must be a whole number from 1 to 4096: it is "0"/],
    ['a batch of answers', [kLlama, ...cpu, '--batch', '2'], 2, /--batch is for models that encode/],
    ['a model twice', ['a', '--model', 'b'], 2, /give the model once: as FOLDER or with --model/],
    ['no such folder', [join(fixtures, 'nowhere')], 1, /no such folder/],
    ['a trace that can not be written', [...cpu, '--trace', '/nowhere/x.json'], 2, /the trace cannot be written: ENOENT/],
  ];
  for (const [what, args, code, message] of wrong) {
    it(`says so: ${what}`, async function () {
      if (args[0] === kLlama) needsFixtures(this);
      const ran = await warpsight(['bench', ...args]);
      expect(ran.err).to.match(message);
      expect({ code: ran.code, out: ran.out }).to.deep.equal({ code, out: '' });
    });
  }
});
