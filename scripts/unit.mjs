// npm run test:unit -- test/ops/linear.test.ts …: compiles, then runs the given spec files (all that need no GPU, if none is given).
// For daily work: a type error is shown and the tests run nevertheless. Options of mocha (-g 'name', --bail) are passed on.
import { join, relative, resolve } from 'node:path';
import { root, run } from './process.mjs';
import { compile } from './typescript.mjs';

const mocha = join(root, 'node_modules', 'mocha', 'bin', 'mocha.js');
const args = process.argv.slice(2).map((arg) => {
  if (!arg.endsWith('.ts')) return arg;
  return join('dist', relative(root, resolve(arg))).replace(/\.ts$/, '.js');
});

const typed = compile('tsconfig.json', { mayFail: true });
if (args.some((arg) => arg.endsWith('.js')))
  args.unshift('--no-config', '--timeout', '60000', '--node-option', 'enable-source-maps');
const tested = run(process.execPath, [mocha, ...args], { mayFail: true });
process.exit(typed || tested);
