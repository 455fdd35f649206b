// The benchmarks of whole models run to their end and write what they say they write; of times nothing is expected.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { packageRoot } from '../../lib/native';

describe('the benchmarks of models on CUDA', () => {
  let out: string;
  before(() => {
    out = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  });
  after(() => rmSync(out, { recursive: true, force: true }));

  function run(script: string, args: readonly string[], name: string) {
    const { status, stderr } = spawnSync(process.execPath, [join(packageRoot, 'dist', 'bench', `${script}.js`), ...args], {
      encoding: 'utf8',
      env: { ...process.env, OUT: out, WARPSIGHT_PYTHON: join(out, 'python') }, // there is none
    });
    expect(stderr).equal('');
    expect(status).equal(0);
    const table = readFileSync(join(out, `${name}.md`), 'utf8');
    return { table, raw: JSON.parse(readFileSync(join(out, `${name}.json`), 'utf8')) };
  }

  it('bench:clip measures encodes and classifications on the device and awaited', () => {
    const { table, raw } = run('clip', ['--models', 'micro', '--batches', '1,2', '--rounds', '1', '--classes', '8'], 'clip-cuda');
    expect(raw.device).match(/compute capability/);
    expect(raw.results.map(({ work, batch }: { work: string; batch: number }) => `${work} ${batch}`)).deep.equal([
      'image 1',
      'image 2',
      'classify 1',
      'classify 2',
      'text 1',
      'text 8',
      'text from strings 8',
    ]);
    for (const { work, engines } of raw.results) {
      expect(Object.keys(engines)).deep.equal(['warpsight']);
      const { device, awaited } = engines.warpsight;
      expect(device).length(work === 'text from strings' ? 0 : 1);
      expect(awaited.length).above(0);
      for (const ms of [...device, ...awaited]) expect(ms).above(0);
    }
    expect(table).contain('| micro, classify | 2 |').and.contain('PyTorch: not found');
  });

  it('bench:llava reads a prompt and decodes', () => {
    const { table, raw } = run('llava', ['micro', '1', '--dtype', 'bf16'], 'llava-cuda-micro');
    expect(raw.rows).length(1);
    const [{ engine, prefill, decode, pictureMs }] = raw.rows;
    expect(engine).equal('warpsight');
    for (const figure of [prefill, decode, pictureMs]) expect(figure).above(0);
    expect(table).contain('| BF16 | warpsight |').and.contain('bandwidth: a copy');
  });
});
