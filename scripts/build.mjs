// npm run build: TypeScript and the addon, in build/Release/warpsight.node.
//   WARPSIGHT_CUDA=1|0          insist on CUDA or leave it out; otherwise it is built where nvcc is found and a GPU is seen
//   WARPSIGHT_CUDA_ARCHS        native (default: the GPUs seen), all (8.0, 8.6, 8.9, 9.0a), or a list such as 80;90a; with ptx, also for later GPUs
//   WARPSIGHT_CMAKE=0           node-gyp although there is CMake
//   WARPSIGHT_JOBS              processes at a time (default: the cores)
// --addon leaves TypeScript out; so does an installed package (npm explore warpsight -- npm run build), which holds none.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { buildWithCmake, buildWithGyp } from './addon.mjs';
import { requireDependencies } from './install.mjs';
import { root } from './process.mjs';
import { cudaWanted, findCmake, requirePrerequisites } from './toolchain.mjs';

requirePrerequisites();
requireDependencies();
if (!process.argv.includes('--addon') && existsSync(join(root, 'tsconfig.json'))) {
  const { compile } = await import('./typescript.mjs');
  compile('tsconfig.lib.json');
}
const cuda = cudaWanted();
console.log(
  cuda ? `CUDA ${cuda.version} for ${cuda.gencode.join(' ')}` : 'CPU only (no GPU seen or no nvcc; WARPSIGHT_CUDA=1 insists)',
);
console.log(findCmake() ? buildWithCmake({ folder: 'build', cuda }) : buildWithGyp({ cuda }));
