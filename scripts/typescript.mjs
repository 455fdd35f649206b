// Compiles lib, test and bench to dist/, and takes away what a deleted source left there (mocha would still run it).
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fail, root, run } from './process.mjs';

const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');

/** @param {'tsconfig.json' | 'tsconfig.lib.json'} project everything, or the library alone */
export function compile(project, { mayFail = false } = {}) {
  for (const folder of ['lib', 'test', 'bench']) prune(folder);
  return run(process.execPath, [tsc, '-p', project], { mayFail });
}

/** Compiles, or on a machine without the compiler (a bare GPU machine that was given dist/) takes dist/ as it is. */
export function compileIfPossible(project) {
  if (existsSync(tsc)) compile(project);
  else if (!existsSync(join(root, 'dist', 'test'))) fail('neither the TypeScript compiler nor dist/ is here: npm ci');
}

function prune(folder) {
  const output = join(root, 'dist', folder);
  if (!existsSync(output)) return;
  for (const entry of readdirSync(output, { recursive: true, withFileTypes: true })) {
    const [, stem, kind] = /^(.*?)\.(d\.ts|d\.mts|js\.map|mjs\.map|js|mjs)$/.exec(entry.name) ?? [];
    if (!entry.isFile() || stem === undefined) continue;
    const source = join(
      root,
      entry.parentPath.slice(join(root, 'dist').length),
      `${stem}${/m[jt]s/.test(kind) ? '.mts' : '.ts'}`,
    );
    if (!existsSync(source)) rmSync(join(entry.parentPath, entry.name));
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  compile(process.argv.includes('--lib') ? 'tsconfig.lib.json' : 'tsconfig.json');
}
