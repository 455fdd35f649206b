// Runs mocha or another test program, shows its output as it comes, and counts.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root } from './process.mjs';

const mochaScript = join(root, 'node_modules', 'mocha', 'bin', 'mocha.js');

/** @typedef {{ passed: number, failed: number, pending: number }} Counts */

/**
 * @param {string[]} args spec files and options of mocha
 * @param {{ env?: Record<string, string>, node?: string[] }} [options] node: the program that runs it, with arguments
 * @returns {Promise<Counts>}
 */
export async function mocha(args, { env = {}, node = [process.execPath] } = {}) {
  const { code, text } = await show([...node, mochaScript, ...args], env);
  const count = (word) => Number(new RegExp(`^\\s*(\\d+) ${word}`, 'm').exec(text)?.[1] ?? 0);
  return judge({ passed: count('passing'), failed: count('failing'), pending: count('pending') }, code, 'mocha');
}

/**
 * A program whose last line is "N passed, N failed".
 * @returns {Promise<Counts>}
 */
export async function testProgram(command, { env = {} } = {}) {
  const { code, text } = await show(command, env);
  const [, passed = '0', failed = '0'] = [...text.matchAll(/^(\d+) passed, (\d+) failed/gm)].at(-1) ?? [];
  return judge({ passed: Number(passed), failed: Number(failed), pending: 0 }, code, command.join(' '));
}

function judge(counts, code, name) {
  if (code === 0 && counts.passed > 0 && counts.failed === 0) return counts;
  if (counts.failed === 0) {
    console.error(`${name}: exit code ${code} after ${counts.passed} tests passed and none failed: counted as a failure`);
    counts.failed = 1;
  }
  return counts;
}

/** Prints "N passed, N failed" for all runs together, and sets the exit code. */
export function report(runs) {
  const sum = (key) => runs.reduce((total, counts) => total + counts[key], 0);
  const pending = sum('pending');
  console.log(`\n${sum('passed')} passed, ${sum('failed')} failed${pending > 0 ? `, ${pending} skipped` : ''}`);
  process.exitCode = sum('failed') > 0 ? 1 : 0;
}

function show([program, ...args], env) {
  const child = spawn(program, args, { cwd: root, env: { ...process.env, ...env }, stdio: ['inherit', 'pipe', 'pipe'] });
  let text = '';
  child.stdout.on('data', (data) => {
    process.stdout.write(data);
    text += data;
  });
  child.stderr.on('data', (data) => process.stderr.write(data));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (signal) console.error(`ended by ${signal}`);
      resolve({ code: code ?? 128, text });
    });
  });
}
