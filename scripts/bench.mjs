// npm run bench:NAME -- [options]: builds what the benchmark needs and runs it (docs/benchmarks.md).
// npm run bench: all of them that suit this machine, within some minutes: with a GPU those of CUDA, else short ones on the CPU.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { buildWithCmake, buildWithGyp } from './addon.mjs';
import { requireDependencies } from './install.mjs';
import { fail, root, run } from './process.mjs';
import { cudaWanted, findCmake, gpus, packages, requirePrerequisites } from './toolchain.mjs';
import { compileIfPossible } from './typescript.mjs';

/** For which a GPU and bench_gemm are needed. */
const onCudaOnly = ['gemm', 'operations'];
/** @type {Record<'gpu' | 'cpu', [name: string, ...options: string[]][]>} most important first; the seconds are limits within a benchmark */
const all = {
  gpu: [['gemm', '--seconds', '150'], ['clip', '--seconds', '200'], ['llava'], ['operations']],
  cpu: [
    ['cpu', '--rows', 'image,text', '--threads', '1', '--samples', '10', '--seconds', '60'],
    ['llava', 'loading', '3', '--device', 'cpu'],
  ],
};

const [name, ...options] = process.argv.slice(2);
const hasGpu = gpus().length > 0;
if (onCudaOnly.includes(name) && !hasGpu) {
  fail(
    `bench:${name} needs an NVIDIA GPU and its driver: nvidia-smi shows none here. npm run test:cuda -- test/cuda/bench-gemm.test.ts runs bench:gemm on a simulated one`,
  );
}
requirePrerequisites();
requireDependencies();
compileIfPossible('tsconfig.json');
build();

if (name !== undefined) {
  process.exitCode = start([name, ...options]);
} else {
  if (!hasGpu)
    console.log('There is no NVIDIA GPU here: bench:gemm and bench:operations are left out, the others run on the CPU.\n');
  const codes = all[hasGpu ? 'gpu' : 'cpu'].map(start);
  process.exitCode = Math.max(...codes);
}

function build() {
  if (process.env.WARPSIGHT_ADDON) return;
  const cuda = cudaWanted();
  if (hasGpu && cuda === undefined) console.log(`nvcc is not here, so that only the CPU is measured.\n${packages('nvcc')}`);
  if (findCmake()) buildWithCmake({ folder: 'build', cuda, targets: cuda ? ['bench_gemm'] : [] });
  else buildWithGyp({ cuda });
}

/** @returns {number} the exit code */
function start([benchmark, ...args]) {
  const script = join(root, 'dist', 'bench', `${benchmark}.js`);
  if (!existsSync(script)) fail(`there is no benchmark "${benchmark}"`);
  console.log(`\n── bench:${benchmark} ${args.join(' ')}`);
  return run(process.execPath, [script, ...args], { mayFail: true });
}
