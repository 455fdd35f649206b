import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { packageRoot } from '../../lib/native';

export const program = join(packageRoot, 'dist', 'lib', 'cli', 'main.js');

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs the real program, without a terminal. `read`: after so many bytes of output its reader goes away. */
export function warpsight(args: readonly string[], { stdin = '', read = Number.POSITIVE_INFINITY } = {}): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], { stdio: 'pipe' });
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      out += chunk;
      if (out.length >= read) child.stdout.destroy();
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      err += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, out, err }));
    child.stdin.end(stdin);
  });
}
