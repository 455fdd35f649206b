// npm run gpu:check: on a machine with a GPU, its driver, the CUDA toolkit, a compiler, CMake and Node: installs what package-lock.json
// names, builds for that GPU and runs the CUDA tests, compute-sanitizer and the benchmarks, in less than ten minutes. Each stage has a
// limit; one that fails or runs out of time doesn't keep the others from running, and what can best be spared comes last. Left in
// bench/results/<gpu>-<date>/, or in $OUT: summary.md with the benchmarks' tables, their raw numbers as .json, build.log,
// test-cuda.log, sanitizer.log and bench.log.
import { spawn } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { requireDependencies } from './install.mjs';
import { capture, fail, root } from './process.mjs';
import { findCmake, findCuda, gpus, packages, requirePrerequisites, which } from './toolchain.mjs';

const totalMs = 570_000;
const started = Date.now();

const [gpu] = gpus();
if (gpu === undefined)
  fail('gpu:check needs an NVIDIA GPU and its driver: nvidia-smi shows none here. Without one: npm run test:cuda');
const cuda = findCuda();
if (cuda === undefined) fail(`gpu:check needs nvcc, in CUDA_HOME, on PATH or in /usr/local/cuda.\n${packages('nvcc')}`);
requirePrerequisites();
if (findCmake() === undefined) fail(`gpu:check needs CMake for the tests without Node.\n${packages('cmake')}`);
requireDependencies();

const date = new Date().toISOString().slice(0, 16).replace(/[-:]/g, '').replace('T', '-');
const name = gpu.name.toLowerCase().replace(/[^a-z0-9]+/g, '-');
const out = resolve(root, process.env.OUT ?? join('bench', 'results', `${name}-${date}`));
mkdirSync(out, { recursive: true });

const environment = { ...process.env, WARPSIGHT_CUDA: '1', OUT: out };
const rows = [];

/** Runs one command with a limit of seconds; its output goes to a log and, the last lines, to the screen. */
async function stage(title, log, command, limitS, env = {}) {
  const limitMs = Math.min(limitS * 1000, totalMs - (Date.now() - started));
  if (limitMs < 3000) return rows.push({ title, verdict: 'no time left', seconds: 0, log });
  process.stdout.write(`${title} … `);
  const begun = Date.now();
  const file = createWriteStream(join(out, log), { flags: 'a' });
  file.write(`\n$ ${command.join(' ')}\n`);
  let text = '';
  const child = spawn(command[0], command.slice(1), { cwd: root, env: { ...environment, ...env }, detached: true });
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      file.write(data);
      text += data;
    });
  }
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    process.kill(-child.pid, 'SIGKILL'); // its whole group: compute-sanitizer and nvcc have children
  }, limitMs);
  const code = await new Promise((done) => {
    child.on('error', (error) => {
      text += error.message;
      done(127);
    });
    child.on('close', (status) => done(status ?? 128));
  });
  clearTimeout(timer);
  file.end();
  const seconds = (Date.now() - begun) / 1000;
  const counts =
    [...text.matchAll(/^\d+ passed, \d+ failed.*$/gm)].at(-1)?.[0] ??
    mochaCounts(text) ??
    /ERROR SUMMARY: .*|RACECHECK SUMMARY: .*/.exec(text)?.[0];
  const verdict = late ? `out of time after ${Math.round(limitMs / 1000)} s` : code === 0 ? 'ok' : `exit code ${code}`;
  rows.push({ title, verdict, seconds, counts: counts ?? '', log });
  console.log(`${verdict} (${seconds.toFixed(1)} s) ${counts ?? ''}`);
  if (verdict !== 'ok') console.log(text.trimEnd().split('\n').slice(-25).join('\n').replace(/^/gm, '    '));
  return undefined;
}

function mochaCounts(text) {
  const passing = /^\s*(\d+) passing/m.exec(text)?.[1];
  return passing === undefined ? undefined : `${passing} passed, ${/^\s*(\d+) failing/m.exec(text)?.[1] ?? 0} failed`;
}

const node = process.execPath;
console.log(`${gpu.name} (${gpu.capability}), CUDA ${cuda.version}, results in ${out}`);
await stage('build', 'build.log', [node, 'scripts/build.mjs', '--addon'], 240);
const addon = join(root, 'build', 'Release', 'warpsight.node');
if (existsSync(addon)) {
  await stage('test:cuda', 'test-cuda.log', [node, 'scripts/test-cuda.mjs'], 180);
  await sanitize('memcheck');
  const benches = [
    [['gemm', '--seconds', '60'], 90],
    [['clip', '--seconds', '60', '--batches', '1,64', '--rounds', '3'], 100],
    [['llava', '7b', '3'], 120],
    [['gemm', '--tiles', '--rounds', '3', '--seconds', '30'], 60],
  ];
  for (const [[name, ...options], limitS] of benches) {
    const command = [node, `dist/bench/${name}.js`, ...options];
    await stage(`bench:${name}`, 'bench.log', command, limitS, { WARPSIGHT_ADDON: addon });
  }
  await profileKernels();
  for (const tool of ['racecheck', 'synccheck', 'initcheck']) await sanitize(tool);
}
writeSummary();
// not every machine lets its users read the counters that ncu needs
process.exitCode = rows.every(({ title, verdict }) => verdict === 'ok' || title.startsWith('ncu ')) ? 0 : 1;

/** Every tile of the products and every operation, in the native programs and on small shapes; a finding is exit code 9. That memory runs out is one of its tests. */
async function sanitize(tool) {
  const sanitizer = which('compute-sanitizer') ?? join(cuda.toolkit, 'bin', 'compute-sanitizer');
  if (!existsSync(sanitizer)) {
    rows.push({ title: `compute-sanitizer ${tool}`, verdict: 'not installed with this toolkit', seconds: 0, log: '' });
    return;
  }
  const options = ['--tool', tool, '--error-exitcode', '9', ...(tool === 'memcheck' ? ['--report-api-errors', 'no'] : [])];
  for (const program of [['build/test/gemm_test'], ['build/test/ops_golden', 'cuda:0']]) {
    await stage(`compute-sanitizer ${tool} ${program[0]}`, 'sanitizer.log', [sanitizer, ...options, ...program], 90);
  }
}

/** What Nsight Compute, where it is installed, says of the products and of attention: how near they come to the chip's limits. */
async function profileKernels() {
  const ncu = which('ncu') ?? join(cuda.toolkit, 'bin', 'ncu');
  if (!existsSync(ncu)) return;
  const sections = ['--section', 'SpeedOfLight', '--section', 'Occupancy', '--launch-count', '4'];
  for (const [kernels, program] of [
    ['gemm', ['build/bench/bench_gemm', '--filter', 'ViT-L/14@336 fc1 batch 1', '--rounds', '1']],
    ['attention', ['build/test/ops_golden', 'cuda:0', 'attention']],
  ]) {
    await stage(`ncu ${kernels}`, 'bench.log', [ncu, ...sections, '--kernel-name', `regex:${kernels}`, ...program], 40);
  }
}

/** The benchmarks' tables, which move into the summary. */
function takeTables() {
  const names = readdirSync(out).filter((name) => name.endsWith('.md') && name !== 'summary.md');
  return names.sort().map((name) => {
    const text = readFileSync(join(out, name), 'utf8');
    rmSync(join(out, name));
    return `\n#${text}`;
  });
}

function writeSummary() {
  const driver = capture('nvidia-smi', ['--query-gpu=driver_version', '--format=csv,noheader']).stdout.trim().split('\n')[0];
  const commit = capture('git', ['describe', '--always', '--dirty']).stdout.trim() || 'unknown';
  const table = rows.map(
    ({ title, verdict, seconds, counts, log }) => `| ${title} | ${verdict} | ${seconds.toFixed(1)} | ${counts ?? ''} | ${log} |`,
  );
  const text = `# gpu:check on ${gpu.name}

compute capability ${gpu.capability}, driver ${driver}, CUDA ${cuda.version}, Node ${process.version}, commit ${commit}, ${date} UTC;
${((Date.now() - started) / 1000).toFixed(0)} s in total; command: npm run gpu:check

| stage | verdict | seconds | counts | log |
| --- | --- | --- | --- | --- |
${table.join('\n')}
${takeTables().join('')}`;
  writeFileSync(join(out, 'summary.md'), text);
  console.log(`\n${text}`);
}
