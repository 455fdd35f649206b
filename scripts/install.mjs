// Installs the dependencies of a fresh clone, once; what npm run build, quickstart and test begin with.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, run } from './process.mjs';

/** Runs `npm ci` (without install scripts) unless node_modules holds every dependency in the version that the lock names. */
export function requireDependencies() {
  if (!existsSync(join(root, 'package-lock.json')) || upToDate()) return;
  const npm = process.env.npm_execpath;
  const env = { ONNXRUNTIME_NODE_INSTALL: 'skip' };
  if (npm?.endsWith('.js')) run(process.execPath, [npm, 'ci', '--ignore-scripts'], { env });
  else run(process.platform === 'win32' ? 'npm.cmd' : 'npm', ['ci', '--ignore-scripts'], { env });
}

function upToDate() {
  const read = (...path) => JSON.parse(readFileSync(join(root, ...path), 'utf8')).packages;
  if (!existsSync(join(root, 'node_modules', '.package-lock.json'))) return false;
  const installed = read('node_modules', '.package-lock.json');
  const locked = Object.entries(read('package-lock.json'));
  return locked.every(([path, entry]) => path === '' || entry.optional || installed[path]?.version === entry.version);
}
