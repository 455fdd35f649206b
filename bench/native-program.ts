import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { benchFolder } from './report';

/** A C++ program of bench/, compiled for this very processor; `dispose` deletes it. */
export function compileNative(name: string): { readonly path: string; dispose(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  const path = join(folder, name);
  execFileSync(process.env.CXX ?? 'c++', ['-O3', '-march=native', '-pthread', join(benchFolder, `${name}.cpp`), '-o', path]);
  return { path, dispose: () => rmSync(folder, { recursive: true, force: true }) };
}
