// node scripts/sources.mjs NAME …: prints lists of native/sources.json for binding.gyp, which can't read it alone.
// addon, core, cpu (the files without an instruction set in their name), an instruction set (avx2, avx512_vnni, …), cuda, and headers
// (all of them).
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './process.mjs';

const sources = JSON.parse(readFileSync(join(root, 'native', 'sources.json'), 'utf8'));
const isas = ['avx2', 'avx_vnni', 'avx512', 'avx512_vnni', 'avx512_bf16', 'amx', 'neon', 'neon_dotprod'];
/** The set in a file's name; undefined for one that runs on any processor of the architecture. */
const isaOf = (file) => isas.find((isa) => file.endsWith(`_${isa}.cpp`));

function list(name) {
  if (isas.includes(name)) return sources.cpu.filter((file) => isaOf(file) === name);
  switch (name) {
    case 'cpu':
      return sources.cpu.filter((file) => isaOf(file) === undefined);
    case 'headers': {
      const files = readdirSync(join(root, 'native'), { recursive: true }).map((file) => `native/${file.replaceAll('\\', '/')}`);
      return files.filter((file) => /\.(h|cuh)$/.test(file));
    }
    default:
      return sources[name];
  }
}

console.log(process.argv.slice(2).flatMap(list).join('\n'));
