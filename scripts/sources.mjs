// node scripts/sources.mjs NAME …: prints lists of native/sources.json for binding.gyp, which can't read it alone.
// addon, core, cpu (the files without an instruction set in their name), avx2, avx512, neon, cuda, and headers (all of them).
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './process.mjs';

const sources = JSON.parse(readFileSync(join(root, 'native', 'sources.json'), 'utf8'));
const isa = /_(avx2|avx512|neon)\.cpp$/;

function list(name) {
  switch (name) {
    case 'cpu':
      return sources.cpu.filter((file) => !isa.test(file));
    case 'avx2':
    case 'avx512':
    case 'neon':
      return sources.cpu.filter((file) => isa.exec(file)?.[1] === name);
    case 'headers': {
      const files = readdirSync(join(root, 'native'), { recursive: true }).map((file) => `native/${file.replaceAll('\\', '/')}`);
      return files.filter((file) => /\.(h|cuh)$/.test(file));
    }
    default:
      return sources[name];
  }
}

console.log(process.argv.slice(2).flatMap(list).join('\n'));
