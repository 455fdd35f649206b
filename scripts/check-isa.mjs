// node scripts/check-isa.mjs: after npm run build. An object compiled for AVX2, AVX-512 or NEON must define nothing that the linker may
// merge with the same inline function of another object: the copy that is kept could need instructions that this processor lacks.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { capture, fail, root } from './process.mjs';

const folder = join(root, 'build', 'CMakeFiles', 'engine.dir', 'native', 'src', 'cpu');
const objects = existsSync(folder)
  ? readdirSync(folder).filter((name) =>
      /_(avx2|avx_vnni|avx512|avx512_vnni|avx512_bf16|amx|neon|neon_dotprod)\.cpp\.o$/.test(name),
    )
  : [];
if (objects.length === 0) fail(`no objects in ${folder}: npm run build with CMake first`);
let shared = 0;
for (const object of objects) {
  const { ok, stdout, stderr } = capture('nm', ['--defined-only', '-C', join(folder, object)]);
  if (!ok) fail(`nm failed: ${stderr}`);
  for (const line of stdout.split('\n').filter((row) => /^[0-9a-f]+ [WVu] /.test(row))) {
    shared++;
    console.error(`${object}: ${line.slice(19)} is shared with other objects`);
  }
}
console.log(`${objects.length} objects, ${shared} shared functions`);
process.exitCode = shared > 0 ? 1 : 0;
