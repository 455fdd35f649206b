// bench:gemm computes and compares with its rivals what it should; their place is taken by bench/fake_cublas.cu.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect } from 'chai';
import { packageRoot } from '../../lib/native';

const built = resolve(
  process.env.WARPSIGHT_ADDON ?? join(packageRoot, 'build', 'Release', 'warpsight.node'),
  '..',
  '..',
  'bench',
);

describe('bench:gemm --check', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
    for (const name of ['cublas', 'cublasLt']) symlinkSync(join(built, 'libfake_cublas.so'), join(folder, `lib${name}.so.13`));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  function run(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const { status, stdout, stderr } = spawnSync(join(built, 'bench_gemm'), ['--check', '--rounds', '2', ...args], {
      encoding: 'utf8',
      env: { ...process.env, ...env },
    });
    const lines = stdout.trim().split('\n').filter(Boolean);
    return { status, stderr, lines: lines.map((line) => JSON.parse(line)) };
  }

  for (const dtype of ['f16', 'bf16']) {
    it(`finds that every engine computes the same in ${dtype}`, () => {
      const { status, stderr, lines } = run(['--dtype', dtype, '--cublas', folder]);
      expect(stderr).equal('');
      expect(status).equal(0);
      const [device, ...rows] = lines.slice(0, -1);
      expect(device.cublas, 'the stand-in says version 1').equal(1);
      expect(rows.map(({ M }: { M: number }) => M).sort()).deep.equal([1, 33, 64]);
      for (const { kernel, difference, candidates, us } of rows) {
        expect(kernel).match(dtype === 'f16' ? /<half>$/ : /<bf16>$/);
        expect(difference).within(0, device.differenceLimit);
        expect(candidates, 'of three algorithms one is refused').equal(2);
        expect(Object.keys(us)).deep.equal(['warpsight', 'cublas', 'cublasLt']);
        for (const samples of Object.values(us)) expect(samples).length(2);
      }
      expect(lines.at(-1)).include({ kind: 'end', notMeasured: 0 });
    });
  }

  for (const library of ['cublas', 'cublasLt']) {
    it(`fails where the outputs of ${library} are one percent apart`, () => {
      const { status, stderr } = run(['--cublas', folder], { FAKE_CUBLAS_WRONG: library });
      expect(status).equal(1);
      expect(stderr).match(/^bench_gemm: check \w+.*: the outputs differ by 0\.0\d+ of their size; the limit is 0\.000977/);
    });
  }

  it('runs through npm run bench:gemm', () => {
    const { status, stdout } = spawnSync(process.execPath, [join(packageRoot, 'dist', 'bench', 'gemm.js'), '--check'], {
      encoding: 'utf8',
      env: { ...process.env, WARPSIGHT_CUBLAS: folder },
    });
    expect(stdout).match(/\n3 shapes agree with cuBLAS 1; no time was taken\n$/);
    expect(status).equal(0);
  });

  it('runs every tile of the device, whole and split', () => {
    const { status, stderr, lines } = run(['--tiles']);
    expect([status, stderr]).deep.equal([0, '']);
    const tiles = lines.slice(1, -1);
    expect(tiles).length(3);
    for (const { chosen, us } of tiles) {
      expect(Object.keys(us), 'a name for each').length.above(4);
      expect(chosen).match(/^gem[mv]\w*<half>$/);
      for (const samples of Object.values(us)) expect(samples).length(2);
    }
  });

  it('goes without rivals where there are none, and takes the rows that are asked for', () => {
    const { status, lines } = run(['--filter', 'one row']);
    expect(status).equal(0);
    expect(lines[0].cublas).equal(0);
    expect(lines.slice(1, -1).map(({ part }) => part)).deep.equal(['odd', 'one row']); // the last of the table says the peak
    expect(Object.keys(lines[1].us)).deep.equal(['warpsight']);
  });
});
