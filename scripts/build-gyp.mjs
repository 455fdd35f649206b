// npm run build:gyp: the addon through binding.gyp, in build-gyp/build/Release/warpsight.node. CUDA as in build.mjs.
import { buildWithGyp } from './addon.mjs';
import { cudaWanted, requirePrerequisites } from './toolchain.mjs';

requirePrerequisites();
console.log(buildWithGyp({ folder: 'build-gyp', cuda: cudaWanted() }));
