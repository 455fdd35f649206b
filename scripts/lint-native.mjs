// Part of npm run lint: checks of C++, CUDA, CMake and gyp files that need no other program: width, tabs, trailing blanks, marks left behind.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { capture, root } from './process.mjs';

const tracked = capture('git', ['ls-files', '--cached', '--others', '--exclude-standard']).stdout.trim().split('\n');
const rules = [
  [/^.{151,}$/u, 'is wider than 150 columns'],
  [/\t/, 'has a tab'],
  [/\s$/, 'ends with a blank'],
  [/\b(TODO|FIXME|XXX)\b/, 'has a mark that belongs in an issue'],
  [/^\s*#\s*if 0\b/, 'switches code off'],
];
let problems = 0;
for (const file of tracked.filter((name) => /\.(h|cpp|cu|cuh|gyp)$|CMakeLists\.txt$/.test(name))) {
  for (const [index, line] of readFileSync(join(root, file), 'utf8').split('\n').entries()) {
    for (const [pattern, problem] of rules) {
      if (!pattern.test(line)) continue;
      problems++;
      console.error(`${file}:${index + 1} ${problem}`);
    }
  }
}
process.exitCode = problems > 0 ? 1 : 0;
