// npm run build:gpusim: the CUDA build that runs without a GPU, in build-gpusim/. Its last line is the addon's path (WARPSIGHT_ADDON=…).
// It holds PTX only, for compute_80 and compute_90a; `npm run build` with WARPSIGHT_CUDA=1 is what proves that ptxas takes the kernels.
import { fileURLToPath } from 'node:url';
import { buildWithCmake } from './addon.mjs';
import { buildGpusim } from './gpusim.mjs';
import { requirePrerequisites } from './toolchain.mjs';

/** @returns {string} the addon's path; the native tests are in build-gpusim/test */
export function buildForGpusim() {
  requirePrerequisites();
  const { folder, nvcc, toolkit } = buildGpusim();
  const gencode = ['arch=compute_80,code=compute_80', 'arch=compute_90a,code=compute_90a'];
  return buildWithCmake({ folder: 'build-gpusim', cuda: { nvcc, toolkit, gencode, rpath: folder }, tests: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(buildForGpusim());
