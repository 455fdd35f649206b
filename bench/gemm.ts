// npm run bench:gemm -- [options of bench/gemm.cpp]: linear beside cuBLAS and cuBLASLt. Tables and raw numbers go to gemm-DTYPE.md and
// .json in $OUT or bench/results. Exit code 1: outputs differed, or the program failed.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cpus } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { gemmProgram } from './gemm-program';
import { type GemmDevice, type GemmEnd, type GemmLine, type GemmRow, type GemmTiles, gemmTable, tilesTable } from './gemm-report';
import { conditions, report } from './report';

/** WARPSIGHT_CUBLAS (folders), the toolkit's folder, those of the packages that PyTorch brings. */
function cublasFolders(): string[] {
  const given = process.env.WARPSIGHT_CUBLAS?.split(delimiter) ?? [];
  const toolkit = [process.env.CUDA_HOME ?? process.env.CUDA_PATH ?? '/usr/local/cuda'].map((home) => join(home, 'lib64'));
  const code = 'import sys; print("\\n".join(sys.path))';
  const python = spawnSync(process.env.WARPSIGHT_PYTHON ?? 'python3', ['-c', code], { encoding: 'utf8' });
  const packages = (python.stdout ?? '').split('\n').filter(Boolean);
  const nested = packages.flatMap((path) => ['cu13', 'cublas'].map((name) => join(path, 'nvidia', name, 'lib')));
  return [...given, ...toolkit, ...nested].filter(existsSync);
}

async function main(args: readonly string[]): Promise<void> {
  const here = conditions(['npm run bench:gemm --', ...args].join(' '), `${cpus().length} cores`);
  const folders = cublasFolders().flatMap((folder) => ['--cublas', folder]);
  const child = spawn(gemmProgram, [...args, ...folders], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<number>((done, failed) => {
    child.on('error', failed);
    child.on('close', (code) => done(code ?? 128));
  });
  let device: GemmDevice | undefined;
  let end: GemmEnd | undefined;
  const rows: GemmRow[] = [];
  const tiles: GemmTiles[] = [];
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text) as GemmLine;
    if (line.kind === 'device') device = line;
    if (line.kind === 'end') end = line;
    if (line.kind === 'tiles') tiles.push(line);
    if (line.kind === 'row') {
      rows.push(line);
      console.log(`${line.model} ${line.part} ${line.size}: ${line.kernel}, difference ${line.difference}`);
    }
  }
  const code = await ended;
  process.exitCode = code;
  if (!device || rows.length + tiles.length === 0) return;
  const rivals = device.cublas > 0 ? `cuBLAS ${device.cublas}` : 'cuBLAS was not found: WARPSIGHT_CUBLAS names its folder';
  if (args.includes('--check')) {
    const done = tiles.length > 0 ? `${tiles.length} shapes ran with every tile` : `${rows.length} shapes agree with ${rivals}`;
    console.log(code === 0 ? `${done}; no time was taken` : 'the check failed');
    return;
  }
  const gpu = `${device.name}, ${device.multiprocessors} multiprocessors, L2 cache of ${(device.l2Bytes / 2 ** 20).toFixed(0)} MiB`;
  if (tiles.length > 0) {
    const about = { gpu, ...here, dtype: device.dtype };
    return report(`gemm-tiles-${device.dtype}`, 'Tiles of the GEMMs', about, tilesTable(tiles), { device, tiles });
  }
  const about = {
    gpu,
    ...here,
    dtype: device.dtype,
    rivals,
    outputs: `compared first: at most ${device.differenceLimit.toPrecision(3)} of their norm apart (largest ${Math.max(...rows.map(({ difference }) => difference))})`,
    notMeasured: end ? `${end.notMeasured} rows, for lack of time; ${end.failed} failed` : 'the run ended early',
  };
  report(`gemm-${device.dtype}`, 'GEMM beside cuBLAS and cuBLASLt', about, gemmTable(device, rows), { device, rows });
}

main(process.argv.slice(2));
