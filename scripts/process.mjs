// Where the package is, and running programs.
import { execFile, spawnSync } from 'node:child_process';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Runs a program in the package's folder and shows what it prints; a failure ends this process with the same code, unless `mayFail`.
 * @returns {number} the exit code
 */
export function run(program, args, { mayFail = false, env = {}, cwd = root, quiet = false } = {}) {
  const stdio = ['inherit', quiet ? 'ignore' : 'inherit', 'inherit'];
  const result = spawnSync(program, args, { cwd, stdio, env: { ...process.env, ...env } });
  if (result.error) throw result.error;
  const code = result.status ?? 128;
  if (code !== 0 && !mayFail) process.exit(code);
  return code;
}

/**
 * Runs a program and keeps what it prints.
 * @returns {{ ok: boolean, stdout: string, stderr: string }} ok is false where it doesn't exist, too
 */
export function capture(program, args, { cwd = root, env = {}, input } = {}) {
  const result = spawnSync(program, args, { cwd, input, encoding: 'utf8', env: { ...process.env, ...env } });
  return { ok: !result.error && result.status === 0, stdout: result.stdout ?? '', stderr: result.stderr ?? '' };
}

/**
 * The same while other programs run.
 * @returns {Promise<{ ok: boolean, stdout: string, stderr: string }>}
 */
export function captureAsync(program, args, { cwd = root, env = {} } = {}) {
  const options = { cwd, env: { ...process.env, ...env }, encoding: 'utf8', maxBuffer: 1 << 26 };
  return new Promise((done) => {
    execFile(program, args, options, (error, stdout, stderr) => done({ ok: error === null, stdout, stderr }));
  });
}

/** Ends this process with a message for people. */
export function fail(message) {
  console.error(`warpsight: ${message}`);
  process.exit(1);
}
