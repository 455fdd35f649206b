// npm run check:package: packs, installs the tarball without install scripts into an empty folder whose path has a space and an ü, and
// uses it there as a stranger would: require, import, types, the README's first program, the command line, a build from source, and
// the message where there is no addon.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { capture, fail, root, run } from './process.mjs';

const npm = process.env.npm_execpath ? [process.execPath, process.env.npm_execpath] : ['npm'];
const folder = mkdtempSync(join(tmpdir(), 'warpsight ü '));
const installed = join(folder, 'node_modules', 'warpsight');
let passed = 0;
let failed = 0;

/** @param {() => string | undefined} run returns what went wrong, or nothing */
function check(name, run) {
  const started = Date.now();
  const problem = run();
  if (problem === undefined) passed++;
  else failed++;
  console.log(`${problem === undefined ? 'ok  ' : 'FAIL'} ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  if (problem !== undefined) console.log(problem.replace(/^/gm, '     '));
}

function program(command, { env = {}, cwd = folder } = {}) {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|WARPSIGHT_)/.test(name)));
  const { status, stdout, stderr, error } = spawnSync(command[0], command.slice(1), {
    cwd,
    env: { ...clean, ...env },
    encoding: 'utf8',
  });
  return {
    ok: !error && status === 0,
    stdout: stdout ?? '',
    stderr: stderr ?? String(error),
    all: `${stdout}${stderr}${error ?? ''}`,
  };
}

const works = (command, options) => {
  const { ok, all } = program(command, options);
  return ok ? undefined : all;
};

run(process.execPath, [join(root, 'scripts', 'prebuild.mjs')]);
const packed = capture(npm[0], [...npm.slice(1), 'pack', '--json', '--ignore-scripts', '--pack-destination', folder]);
if (!packed.ok) fail(`npm pack failed:\n${packed.stdout}${packed.stderr}`);
const [tarball] = JSON.parse(packed.stdout);
const paths = tarball.files.map(({ path }) => path);
console.log(`${tarball.filename}: ${(tarball.size / 2 ** 20).toFixed(1)} MiB packed, ${tarball.entryCount} files\nin ${folder}`);

check('the tarball holds what it should and nothing else', () => {
  const missing = ['LICENSE', 'NOTICE', 'README.md', 'CMakeLists.txt', 'binding.gyp', 'native/sources.json', 'dist/lib/index.js'];
  const absent = missing.filter((path) => !paths.includes(path));
  const odd = paths.filter((path) => /^(test|bench|docs|\.)|^dist\/(test|bench)|^native\/test|\.tsbuildinfo/.test(path));
  if (!paths.some((path) => path.startsWith('prebuilds/'))) absent.push('prebuilds/');
  return absent.length + odd.length > 0 ? `missing: ${absent.join(', ')}\nshould not be there: ${odd.join(', ')}` : undefined;
});

writeFileSync(join(folder, 'package.json'), '{ "name": "stranger", "private": true }\n');
check('npm install --ignore-scripts', () =>
  works([...npm, 'install', '--ignore-scripts', '--no-audit', '--no-fund', `./${tarball.filename}`]),
);

check('require()', () => {
  const names =
    "const w = require('warpsight'); console.log([w.CLIP, w.ZeroShotClassifier, w.WarpsightError].map((x) => x.name).join())";
  return expectOutput(program([process.execPath, '-e', names]), 'CLIP,ZeroShotClassifier,WarpsightError');
});
check('import, and it is the same library', () => {
  const names = `import { CLIP, ZeroShotClassifier } from 'warpsight'; import { createRequire } from 'node:module';
    console.log(CLIP.name, ZeroShotClassifier.name, createRequire(import.meta.url)('warpsight').CLIP === CLIP)`;
  return expectOutput(program([process.execPath, '--input-type=module', '-e', names]), 'CLIP ZeroShotClassifier true');
});
check('types, for require and for import', () => {
  for (const name of ['consumer.cts', 'consumer.mts']) copyFileSync(join(root, 'test', 'package', name), join(folder, name));
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const types = ['--typeRoots', join(root, 'node_modules', '@types'), '--types', 'node'];
  const options = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', ...types];
  return works([process.execPath, tsc, ...options, 'consumer.cts', 'consumer.mts']);
});

check("the README's first program", () => {
  const code = /^```js\n(.*?)^```$/ms.exec(readFileSync(join(root, 'README.md'), 'utf8'))?.[1];
  if (code === undefined) return 'README.md has no block that begins with ```js';
  const empty = join(folder, 'first program');
  mkdirSync(empty);
  const file = join(empty, /^import /m.test(code) ? 'program.mjs' : 'program.js');
  writeFileSync(file, code);
  const { ok, stdout, all } = program([process.execPath, file], { cwd: empty });
  if (ok && stdout.trim() !== '') console.log(stdout.trimEnd().replace(/^/gm, '     '));
  return ok && stdout.trim() !== '' ? undefined : `it printed:\n${all}`;
});

check('the command line: --version and an unknown option', () => {
  const cli = [process.execPath, join(installed, tarballBin())];
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const wrong = program([...cli, 'info', '--jsn']);
  if (wrong.ok || !/--json/.test(wrong.stderr)) return `info --jsn printed:\n${wrong.all}`;
  return expectOutput(program([...cli, '--version']), version);
});

check('without an addon the error says how to get one', () => {
  renameSync(join(installed, 'prebuilds'), join(installed, 'prebuilds-away'));
  const { ok, stderr } = program([process.execPath, '-e', "require('warpsight').CLIP.fromPretrained()"]);
  return !ok && /ERR_ADDON/.test(stderr) && /npm run build/.test(stderr) ? undefined : `it printed:\n${stderr}`;
});
check('npm explore warpsight -- npm run build', () => {
  const built = works([...npm, 'explore', 'warpsight', '--', 'npm', 'run', 'build'], { env: { WARPSIGHT_CUDA: '0' } });
  if (built !== undefined) return built;
  return expectOutput(program([process.execPath, '-e', "console.log(require('warpsight').device('cpu').name)"]), 'cpu');
});

console.log(`\n${passed} passed, ${failed} failed`);
if (failed === 0) rmSync(folder, { recursive: true });
process.exitCode = failed === 0 ? 0 : 1;

function expectOutput({ ok, stdout, all }, wanted) {
  return ok && stdout.trim() === wanted ? undefined : `expected ${wanted}, got:\n${all}`;
}

function tarballBin() {
  return JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')).bin.warpsight;
}
