// Part of npm run lint: width, tabs, trailing blanks and marks left behind in C++, CUDA, CMake and gyp files; it needs no program.
// With --write, part of npm run format: clang-format (14 or later, from PATH; .clang-format) on C++ and CUDA.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { capture, fail, root, run } from './process.mjs';
import { packages, which } from './toolchain.mjs';

const listed = capture('git', ['ls-files', '--cached', '--others', '--exclude-standard']).stdout.trim().split('\n');
const present = listed.filter((name) => existsSync(join(root, name)));

if (process.argv.includes('--write')) {
  if (which('clang-format') === undefined) fail(`clang-format formats C++ and CUDA.\n${packages('clang-format')}`);
  const files = present.filter((name) => /\.(h|cpp|cu|cuh)$/.test(name));
  if (files.length > 0) run('clang-format', ['-i', ...files]);
}

const rules = [
  [/^.{131,}$/u, 'is wider than 130 columns'],
  [/\t/, 'has a tab'],
  [/\s$/, 'ends with a blank'],
  [/\b(TODO|FIXME|XXX)\b/, 'has a mark that belongs in an issue'],
  [/^\s*#\s*if 0\b/, 'switches code off'],
];
let problems = 0;
for (const file of present.filter((name) => /\.(h|cpp|cu|cuh|gyp)$|CMakeLists\.txt$/.test(name))) {
  for (const [index, line] of readFileSync(join(root, file), 'utf8').split('\n').entries()) {
    for (const [pattern, problem] of rules) {
      if (!pattern.test(line)) continue;
      problems++;
      console.error(`${file}:${index + 1} ${problem}`);
    }
  }
}
process.exitCode = problems > 0 ? 1 : 0;
