// npm run report:cuda: what can be known of the CUDA kernels without a GPU, in docs/cuda-report.md. From ptxas for each kernel and
// architecture: registers, spills, stack, shared memory. From gpusim's counters over native/test/forward_pass.cpp: bank conflicts, sectors,
// work on tensor cores. It fails where a limit below is broken, and where the report in the repository says something else
// (with another nvcc only the limits count, as registers are its choice). --write brings the report up to date.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildForGpusim } from './build-gpusim.mjs';
import { capture, captureAsync, fail, root } from './process.mjs';
import { findCuda, packages } from './toolchain.mjs';

const report = join(root, 'docs', 'cuda-report.md');
const cache = join(root, 'build-report');

/** Compute capability that gpusim simulates → the machine code that such a device runs. */
const devices = { '8.0': 'sm_80', '9.0': 'sm_90a' };

/**
 * Of the main loops of kernels that live on tensor cores: extra wavefronts per access to shared memory, sectors in proportion to the
 * fewest possible, and the share of floating-point work that tensor cores do (the softmax of attention is not theirs).
 */
const limits = [
  { kernels: /^gemm_sm\d+/, conflicts: 0, sectors: 1, tensor: 0.99 },
  { kernels: /^attention_mma/, conflicts: 0, sectors: 1, tensor: 0.95 },
];

/** Bytes of stack that a kernel may have, and why. */
const stacks = [{ kernels: /^rope/, bytes: 32, why: 'range reduction of sincosf' }];

const limitOf = (name) => limits.find((each) => each.kernels.test(name));

/**
 * @typedef {object} Resources of one kernel on one architecture, in bytes but for the registers
 * @property {number} registers
 * @property {number} spills
 * @property {number} stack
 * @property {number} shared without what a launch adds
 *
 * @typedef {object} Kernel
 * @property {string} file
 * @property {string} name
 * @property {Map<string, Resources>} on by architecture: sm_80
 * @property {Map<string, Counted>} counted by compute capability: 8.0
 * @property {Map<string, Counted>} loops the same of turns of the main loop alone
 *
 * @typedef {object} Counted
 * @property {number} dynamic bytes of shared memory that the last launch added
 * @property {number | undefined} conflicts extra wavefronts per access; undefined without shared memory
 * @property {Sectors | undefined} loads
 * @property {Sectors | undefined} stores
 * @property {number} tensor share of the floating-point operations
 * @property {number} tensorInstructions share of the instructions of warps
 *
 * @typedef {{ perRequest: number, ideal: number }} Sectors 32 bytes each
 */

/** "gemv<half, bf16>" of a mangled kernel: the function without namespaces, "_kernel" and parameters. */
export function readableNames(mangled) {
  const { ok, stdout } = capture('c++filt', [], { input: `${mangled.join('\n')}\n` });
  if (!ok) fail(`c++filt makes the names of kernels readable.\n${packages('compiler')}`);
  return stdout.trimEnd().split('\n').map(readable);
}

function readable(demangled) {
  const text = demangled
    .replace(/^void /, '')
    .replaceAll('(anonymous namespace)::', '')
    .replaceAll('warpsight::', '')
    .replaceAll('cuda::', '')
    .replaceAll('__nv_bfloat16', 'bf16')
    .replaceAll('__half', 'half');
  let depth = 0;
  let end = text.length;
  for (const [at, character] of [...text].entries()) {
    if (character === '<') depth++;
    if (character === '>') depth--;
    if (character !== '(' || depth > 0) continue;
    end = at;
    break;
  }
  return text.slice(0, end).replace(/_kernel(?=<|$)/, '');
}

/**
 * What `ptxas -v` says.
 * @param {string} text
 * @returns {{ entries: { symbol: string, arch: string, resources: Resources }[], warnings: string[] }}
 */
export function parsePtxas(text) {
  const entries = [];
  const number = (pattern, line) => Number(pattern.exec(line)?.[1] ?? 0);
  for (const line of text.split('\n')) {
    const [, symbol, arch] = /Compiling entry function '(.*)' for '(.*)'/.exec(line) ?? [];
    if (symbol !== undefined) entries.push({ symbol, arch, resources: { registers: 0, spills: 0, stack: 0, shared: 0 } });
    const resources = entries.at(-1)?.resources;
    if (resources === undefined) continue;
    if (/bytes stack frame/.test(line)) {
      resources.stack = number(/(\d+) bytes stack frame/, line);
      resources.spills = number(/(\d+) bytes spill stores/, line) + number(/(\d+) bytes spill loads/, line);
    }
    if (/Used \d+ registers/.test(line)) {
      resources.registers = number(/Used (\d+) registers/, line);
      resources.shared = number(/(\d+) bytes smem/, line);
    }
  }
  // C7508: setmaxnreg ignored; C7510: wgmma made serial
  return { entries, warnings: text.split('\n').filter((line) => /^ptxas.*(warning|\(C\d{4}\))/.test(line)) };
}

/**
 * @param {any} stats one kernel of gpusim's GPUSIM_STATS file
 * @param {number} shared bytes of shared memory that every launch has
 * @returns {Counted}
 */
export function countedOf(stats, shared) {
  const waves = stats.shared_load_wavefronts + stats.shared_store_wavefronts + stats.ldmatrix_wavefronts;
  const sectors = (kind) => {
    const perRequest = stats[`global_${kind}_sectors`] / stats[`global_${kind}_requests`];
    return Number.isNaN(perRequest) ? undefined : { perRequest, ideal: perRequest * stats[`global_${kind}_efficiency`] };
  };
  const flops = stats.tensor_flops + stats.fp32_flops + stats.half_flops;
  return {
    dynamic: stats.smem - shared,
    conflicts: waves === 0 ? undefined : stats.shared_extra_wavefronts / (waves - stats.shared_extra_wavefronts),
    loads: sectors('load'),
    stores: sectors('store'),
    tensor: flops === 0 ? 0 : stats.tensor_flops / flops,
    tensorInstructions: (stats.instructions.tensor ?? 0) / stats.warp_instructions,
  };
}

/** What `more` turns of a main loop add to `some` turns and all that lies around them: the same counters again. */
export function turnsOf(some, more) {
  const added = { ...more, instructions: {} };
  for (const [key, value] of Object.entries(more))
    if (typeof value === 'number' && key !== 'smem') added[key] = value - some[key];
  for (const [kind, count] of Object.entries(more.instructions))
    added.instructions[kind] = count - (some.instructions[kind] ?? 0);
  for (const kind of ['load', 'store']) {
    const ideal = (stats) => stats[`global_${kind}_sectors`] * stats[`global_${kind}_efficiency`];
    added[`global_${kind}_efficiency`] = (ideal(more) - ideal(some)) / added[`global_${kind}_sectors`];
  }
  return added;
}

/**
 * What breaks a limit, a sentence each.
 * @param {readonly Kernel[]} kernels
 */
export function problemsOf(kernels) {
  const problems = [];
  for (const { name, on, loops } of kernels) {
    const stack = stacks.find((each) => each.kernels.test(name))?.bytes ?? 0;
    for (const [arch, resources] of on) {
      if (resources.spills > 0) problems.push(`${name} for ${arch} spills ${resources.spills} bytes`);
      if (resources.stack > stack)
        problems.push(`${name} for ${arch} has ${resources.stack} bytes of stack, ${stack} are allowed`);
    }
    const limit = limitOf(name);
    if (limit === undefined) continue;
    for (const [cc, { conflicts = 0, loads, stores, tensor }] of loops) {
      if (conflicts > limit.conflicts + kRounding)
        problems.push(`${name} on ${cc} has ${conflicts.toFixed(3)} bank conflicts per access, ${limit.conflicts} are allowed`);
      for (const [what, sectors] of Object.entries({ loads, stores })) {
        if (sectors !== undefined && sectors.perRequest > (limit.sectors + kRounding) * sectors.ideal)
          problems.push(
            `${name} on ${cc} ${what} ${sectorsText(sectors)} sectors per request, ${limit.sectors} x the fewest are allowed`,
          );
      }
      if (tensor < limit.tensor)
        problems.push(
          `${name} on ${cc} does ${percent(tensor)} of its work on tensor cores, ${percent(limit.tensor)} are needed`,
        );
    }
  }
  for (const limit of limits) {
    const limited = kernels.filter(({ name }) => limit.kernels.test(name));
    if (limited.length > 0 && limited.every(({ loops }) => loops.size === 0))
      problems.push(
        `no main loop of ${limit.kernels.source} has run: main_loops of native/test/forward_pass.cpp names its shapes`,
      );
  }
  return problems;
}

/** gpusim prints proportions with four digits. */
const kRounding = 5e-4;

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const code = (text) => `\`${text}\``;
const sectorsText = ({ perRequest, ideal }) => `${perRequest.toFixed(2)} (${ideal.toFixed(2)})`;

// ── gathering ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The PTX in an object of build-gpusim, by architecture: there it is neither compressed nor machine code. */
export function ptxOf(object) {
  const texts = new Map();
  for (const [text, arch] of object.toString('latin1').matchAll(/\.version [\d.]+\n\.target (sm_\w+)[^\0]*/g))
    texts.set(arch, text);
  return texts;
}

/** `ptxas -v` of each source, with what nvcc gives it; kept in build-report until the PTX changes. */
async function assembleAll(cuda) {
  mkdirSync(cache, { recursive: true });
  const sources = JSON.parse(readFileSync(join(root, 'native', 'sources.json'), 'utf8')).cuda.filter((file) =>
    file.endsWith('.cu'),
  );
  const waiting = sources.flatMap((file) => {
    const ptx = ptxOf(readFileSync(join(root, 'build-gpusim', 'CMakeFiles', 'engine.dir', `${file}.o`)));
    return Object.values(devices).map((arch) => {
      if (!ptx.has(arch)) fail(`the object of ${file} in build-gpusim has no PTX for ${arch}`);
      return { file, arch, text: ptx.get(arch) };
    });
  });
  const outputs = new Map(sources.map((file) => [file, '']));
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { file, arch, text } = next;
      const key = createHash('sha256').update(cuda.version).update(text).digest('hex').slice(0, 16);
      const path = join(cache, `${basename(file)}-${arch}-${key}`);
      if (!existsSync(`${path}.txt`)) {
        writeFileSync(`${path}.ptx`, text, 'latin1');
        const options = ['-v', `-arch=${arch}`, '-m64', '--generate-line-info', `${path}.ptx`, '-o', `${path}.cubin`];
        const made = await captureAsync(join(cuda.toolkit, 'bin', 'ptxas'), options);
        if (!made.ok) fail(`ptxas fails on ${file} for ${arch}:\n${made.stderr}`);
        writeFileSync(`${path}.txt`, made.stdout + made.stderr);
      }
      outputs.set(file, outputs.get(file) + readFileSync(`${path}.txt`, 'utf8'));
    }
  };
  await Promise.all(Array.from({ length: Number(process.env.WARPSIGHT_JOBS ?? availableParallelism()) }, worker));
  return sources.map((file) => ({ file: basename(file), ...parsePtxas(outputs.get(file)) }));
}

/**
 * One pass on a simulated device: which kernel each step took, and the counters by symbol.
 * @param {number} [times] main loops alone, so many times as long
 */
async function simulate(cc, times = 0) {
  const stats = join(cache, `counters-${cc}-${times}.json`);
  // One thread and one seed: loops that poll count the same in every run.
  const env = { GPUSIM_CC: cc, GPUSIM_STATS: stats, GPUSIM_SEED: '1', GPUSIM_THREADS: '1' };
  const ran = await captureAsync(join(root, 'build-gpusim', 'test', 'forward_pass'), ['cuda:0', String(times)], { env });
  if (!ran.ok) fail(`forward_pass fails with GPUSIM_CC=${cc}:\n${ran.stdout}${ran.stderr}`);
  const steps = ran.stdout
    .trimEnd()
    .split('\n')
    .map((line) => line.split(' | '));
  return { cc, steps, stats: JSON.parse(readFileSync(stats, 'utf8')) };
}

/** The counters of turns of the main loops; both lengths take the same kernels, or there is nothing to subtract. */
async function simulateLoops(cc) {
  const [some, more] = [await simulate(cc, 1), await simulate(cc, 2)];
  for (const [i, [, shape, kernel]] of some.steps.entries()) {
    const longer = more.steps[i][2];
    if (longer !== kernel) fail(`forward_pass: ${shape} takes ${kernel} on ${cc}, and twice as long ${longer}`);
  }
  const limited = Object.keys(some.stats).filter((_, i) => limitOf(readableNames(Object.keys(some.stats))[i]));
  return { cc, stats: Object.fromEntries(limited.map((symbol) => [symbol, turnsOf(some.stats[symbol], more.stats[symbol])])) };
}

/** nvcc puts hashes of how it was called into unnamed namespaces; the name of the file stays. */
const withoutHashes = (symbol) => symbol.replace(/\d+_GLOBAL__N__[0-9a-f]+_(\d+_\w+?_cu)_[0-9a-f]{8}/, '$1');

/** @returns {Kernel[]} by file and name */
function kernelsOf(compiled, passes, loops) {
  const kernels = new Map();
  for (const { file, entries } of compiled) {
    const names = readableNames(entries.map(({ symbol }) => symbol));
    for (const [i, { symbol, arch, resources }] of entries.entries()) {
      const key = withoutHashes(symbol);
      if (!kernels.has(key)) kernels.set(key, { file, name: names[i], on: new Map(), counted: new Map(), loops: new Map() });
      kernels.get(key).on.set(arch, resources);
    }
  }
  for (const [kind, simulated] of Object.entries({ counted: passes, loops })) {
    for (const { cc, stats } of simulated) {
      for (const [symbol, counts] of Object.entries(stats)) {
        const kernel = kernels.get(withoutHashes(symbol));
        if (kernel === undefined) fail(`${symbol} ran under gpusim, but ptxas has not seen it`);
        kernel[kind].set(cc, countedOf(counts, kernel.on.get(devices[cc])?.shared ?? 0));
      }
    }
  }
  const place = ({ file, name }) => `${file} ${name}`;
  return [...kernels.values()].sort((a, b) => (place(a) < place(b) ? -1 : 1));
}

// ── the report ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function table(columns, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(columns), line(columns.map(() => '---')), ...rows.map(line)].join('\n');
}

function written(cuda, kernels, passes) {
  const archs = Object.values(devices);
  const limited = limits.map(({ kernels: pattern, conflicts, sectors, tensor }) => [
    code(pattern.source.replaceAll('|', '\\|')),
    `<= ${conflicts}`,
    `<= ${sectors} x the fewest`,
    `>= ${percent(tensor)}`,
  ]);
  const steps = passes[0].steps.map(([op, shape, kernel], i) => [op, shape, ...[kernel, passes[1].steps[i][2]].map(code)]);
  const share = (part) => (part === 0 ? '-' : percent(part));
  const rowsOf = (kind) =>
    kernels.flatMap((kernel) => {
      const rows = new Map(); // what is counted → where
      for (const [cc, each] of kernel[kind]) {
        const cells = JSON.stringify([
          each.conflicts?.toFixed(3) ?? '-',
          each.loads ? sectorsText(each.loads) : '-',
          each.stores ? sectorsText(each.stores) : '-',
          share(each.tensor),
          share(each.tensorInstructions),
        ]);
        rows.set(cells, [...(rows.get(cells) ?? []), cc]);
      }
      return [...rows].map(([cells, on]) => [code(kernel.name), on.join(', '), ...JSON.parse(cells)]);
    });
  const counters = ['kernel', 'on', 'bank conflicts', 'loads', 'stores', 'work on tensor cores', 'of instructions'];
  const both = (values) => (new Set(values).size === 1 ? values[0] : values.join(' / '));
  const resources = kernels.map(({ file, name, on, counted }) => [
    file,
    code(name),
    ...['registers', 'spills', 'stack', 'shared'].map((what) => both(archs.map((arch) => on.get(arch)?.[what] ?? '-'))),
    counted.size === 0 ? '-' : both([...counted.values()].map(({ dynamic }) => dynamic)),
  ]);
  return `# What is known of the CUDA kernels without a GPU

Written by \`npm run report:cuda -- --write\` with nvcc ${cuda.version}; CI runs \`npm run report:cuda\`, which fails where this is not what comes out, or where a
limit is broken. Counts of instructions and accesses; nothing here is a time.

## Limits

No kernel spills. None has a stack but ${stacks.map(({ kernels: pattern, bytes, why }) => `${code(pattern.source.slice(1))} (${bytes} bytes: ${why})`).join(', ')}. ptxas has no remark about
wgmma or setmaxnreg. In main loops:

${table(['kernels', 'bank conflicts per access', 'sectors per request', 'work on tensor cores'], limited)}

## Steps

\`native/test/forward_pass.cpp\` runs each once on simulated devices of compute capability 8.0 and 9.0.

${table(['operation', 'shapes', 'kernel on 8.0', 'kernel on 9.0'], steps)}

## Counters

Bank conflicts: wavefronts of shared memory beyond one, per access that needs one. Sectors of 32 bytes per request of a warp, in brackets the fewest that hold
the bytes asked for; copies by TMA are no requests of warps. Tensor cores: their share of the floating-point operations, and of the instructions.

${table(counters, rowsOf('counted'))}

## Main loops

What twice as long a main loop adds, in products and attention of \`forward_pass\` with longer rows: nothing of what lies around it.

${table(counters, rowsOf('loops'))}

## Registers and memory

${archs.join(' / ')} where they differ; bytes but for the registers. Dynamic shared memory is that of the steps above.

${table(['file', 'kernel', 'registers', 'spills', 'stack', 'static shared', 'dynamic shared'], resources)}
`;
}

async function main() {
  const cuda = findCuda();
  if (cuda === undefined) fail(`report:cuda needs nvcc.\n${packages('nvcc')}`);
  cuda.version = /V([\d.]+)/.exec(capture(cuda.nvcc, ['--version']).stdout)?.[1] ?? cuda.version; // to the last digit
  buildForGpusim();
  const compiled = await assembleAll(cuda);
  const passes = await Promise.all(Object.keys(devices).map((cc) => simulate(cc)));
  const loops = await Promise.all(Object.keys(devices).map(simulateLoops));
  const kernels = kernelsOf(compiled, passes, loops);
  const text = written(cuda, kernels, passes);
  const problems = [
    ...compiled.flatMap(({ file, warnings }) => warnings.map((line) => `${file}: ${line}`)),
    ...problemsOf(kernels),
  ];
  if (process.argv.includes('--write')) writeFileSync(report, text);
  const committed = existsSync(report) ? readFileSync(report, 'utf8') : '';
  const version = / with nvcc (\S+);/.exec(committed)?.[1];
  if (committed !== '' && version !== cuda.version) {
    console.log(
      `docs/cuda-report.md is of nvcc ${version}, this is ${cuda.version}: limits are checked, figures are not compared`,
    );
  } else if (text !== committed) {
    problems.push(`docs/cuda-report.md is not up to date (npm run report:cuda -- --write):\n${difference(committed, text)}`);
  }
  for (const problem of problems) console.error(problem);
  console.log(
    `${kernels.length} kernels for ${Object.values(devices).join(' and ')}, ${passes[0].steps.length} steps, ${problems.length} problems`,
  );
  process.exitCode = problems.length > 0 ? 1 : 0;
}

/** The lines that only one of two texts has, at most 40. */
function difference(before, after) {
  const [old, fresh] = [before.split('\n'), after.split('\n')];
  const [had, has] = [new Set(old), new Set(fresh)];
  const lines = [
    ...old.filter((line) => !has.has(line)).map((line) => `- ${line}`),
    ...fresh.filter((line) => !had.has(line)).map((line) => `+ ${line}`),
  ];
  return lines.slice(0, 40).join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
