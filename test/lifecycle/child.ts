import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';

export interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs test/lifecycle/children/`name` in a process of its own, with global.gc; kills it, and says so, after ten minutes. */
export function runChild(name: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const script = join(__dirname, 'children', `${name}.js`);
  const child = spawn(process.execPath, ['--expose-gc', script, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => {
    stdout += data;
  });
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${name} ${args.join(' ')} did not end within ten minutes; it printed: ${stdout}${stderr}`));
    }, 600_000);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

/** The JSON that a child printed last, after a clean end. */
export async function childResult<T>(name: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Promise<T> {
  const { code, signal, stdout, stderr } = await runChild(name, args, env);
  expect({ code, signal, stderr }, `${name} ${args.join(' ')}`).to.deep.equal({ code: 0, signal: null, stderr: '' });
  return JSON.parse(stdout.trim().split('\n').at(-1)!);
}

/** A folder that the suite fills before its tests and that goes away after them. */
export function temporaryFolder(fill: (folder: string) => void): { readonly path: string } {
  const folder = { path: '' };
  before(() => {
    folder.path = mkdtempSync(join(tmpdir(), 'warpsight-lifecycle-'));
    fill(folder.path);
  });
  after(() => rmSync(folder.path, { recursive: true, force: true }));
  return folder;
}
