// npm test: installs if needed, checks the types, builds the addon, and runs every test that needs no GPU. Arguments go to mocha.
import { buildWithCmake, buildWithGyp } from './addon.mjs';
import { requireDependencies } from './install.mjs';
import { mocha, report } from './mocha.mjs';
import { cudaWanted, findCmake, requirePrerequisites } from './toolchain.mjs';
import { compile } from './typescript.mjs';

requirePrerequisites();
requireDependencies();
compile('tsconfig.json');
if (!process.env.WARPSIGHT_ADDON) {
  const cuda = cudaWanted();
  if (findCmake()) buildWithCmake({ folder: 'build', cuda });
  else buildWithGyp({ cuda });
}
report([await mocha(process.argv.slice(2))]);
