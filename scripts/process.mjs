// Where the package is, and running a program with its output shown as it comes.
import { spawnSync } from 'node:child_process';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Runs a program in the package's folder; a failure ends this process with the same code, unless `mayFail`.
 * @returns {number} the exit code
 */
export function run(program, args, { mayFail = false, env = {}, cwd = root } = {}) {
  const result = spawnSync(program, args, { cwd, stdio: 'inherit', env: { ...process.env, ...env } });
  if (result.error) throw result.error;
  const code = result.status ?? 128;
  if (code !== 0 && !mayFail) process.exit(code);
  return code;
}

/** Runs a program and returns what it wrote to stdout, or undefined where it doesn't exist or failed. */
export function output(program, args, { cwd = root, env = {} } = {}) {
  const result = spawnSync(program, args, { cwd, encoding: 'utf8', env: { ...process.env, ...env } });
  return result.error || result.status !== 0 ? undefined : result.stdout;
}
