// node scripts/test-node.mjs 22 [ADDON]: the compiled tests on another version of Node.js, with one addon for all of them (Node-API).
import { mocha, report } from './mocha.mjs';
import { fail } from './process.mjs';

const [version, addon] = process.argv.slice(2);
if (!/^\d+$/.test(version ?? '')) fail('usage: node scripts/test-node.mjs MAJOR_VERSION [ADDON]');
const npx = process.platform === 'win32' ? 'npx.cmd' : 'npx';
// The benchmarks are no part of the package: they are tested once, on the version they are run with.
report([
  await mocha(['--ignore', 'dist/test/bench/**'], {
    node: [npx, '--yes', '-p', `node@${version}`, 'node'],
    env: addon ? { WARPSIGHT_ADDON: addon } : {},
  }),
]);
