// npm run bench:cpu -- [options]: CLIP on the CPU beside onnxruntime-node and PyTorch, and beside what the cores and the memory can do, each in a
// process of its own on the same cores, taking turns. Outputs are compared first. See docs/benchmarks.md.
//   --model NAME     of make-checkpoint.ts (vit-b-32)
//   --rows a,b       of image, products, text, int8, bfloat16, beside, load (all)
//   --threads 1,2    as many cores (1, and 2 where there are two)
//   --batches 1,8    of images
//   --samples N      of each engine in each row (30)
//   --seconds S      no row is begun after it
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { device, Tokenizer } from '../lib';
import { packageRoot } from '../lib/native';
import { barPlot } from './bar-plot';
import { coreCount, cpuSlug, lastLevelCacheBytes, ownCores, pinned, sumsBytesIn32Bits } from './cores';
import { agrees, type CpuRow, compare, cpuBars, cpuTables, type EngineName, type EngineResult, kAgreement } from './cpu-report';
import {
  type Form,
  kThings,
  type Prepare,
  type Prepared,
  paddedIds,
  type Refusal,
  randomPrompts,
  type Sample,
  templatePrompts,
  textMultiplyAdds,
  type Work,
} from './cpu-work';
import { type CheckpointSize, kSizes, makeCheckpoint, random, writeWeights } from './make-checkpoint';
import { compileNative } from './native-program';
import { Peer, pythonWithTorch } from './peer';
import { benchFolder, conditions, report } from './report';
import { median } from './statistics';

/** So long an engine's threads may go on looking for work when their turn is over: OpenBLAS's do for 2^26 ticks, 32 ms at 2.1 GHz. */
const kRestMs = 60;

type Kind = CpuRow['kind'];
const kKinds: readonly Kind[] = ['image', 'products', 'text', 'int8', 'bfloat16', 'beside', 'load'];

interface RowPlan {
  readonly kind: Kind;
  readonly name: string;
  readonly threads: number;
  readonly work: Work;
  /** Rows of the result */
  readonly results: number;
  readonly items: number;
}

interface Run {
  readonly folder: string;
  readonly model: string;
  readonly size: CheckpointSize;
  readonly samples: number;
  readonly python: string | undefined;
  readonly programs: Readonly<Record<'fma-peak' | 'read-bandwidth' | 'read-file', string>>;
}

// ── engines ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Engine {
  prepare(work: Work, form: Form | undefined): Promise<Prepared>;
  sample(): Promise<Sample>;
  end(): Promise<void>;
}

class Unavailable extends Error {}

function parsed<T>(line: string): T {
  const answer: T | Refusal = JSON.parse(line);
  if (typeof answer !== 'object' || answer === null || !('error' in answer)) return answer as T;
  throw answer.unavailable ? new Unavailable(answer.error) : new Error(answer.error);
}

/** The first of this process's cores, one for each thread; undefined where nothing can be pinned. */
function coresFor(threads: number): number[] | undefined {
  return ownCores()?.slice(0, threads);
}

function pinnedPeer(threads: number, command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Peer {
  return new Peer(...pinned(coresFor(threads), command, args), env);
}

function nodeEngine(name: EngineName, threads: number, { folder, model }: Run): Engine {
  const args = [join(__dirname, 'cpu-engine.js'), name, folder, model, String(threads)];
  const peer = pinnedPeer(threads, process.execPath, args, { WARPSIGHT_THREADS: String(threads) });
  return {
    prepare: async (work, form) => parsed(await peer.ask(JSON.stringify({ work, form } as Prepare))),
    sample: async () => parsed(await peer.ask('null')),
    end: () => peer.end(),
  };
}

/** OMP_NUM_THREADS alone would let OpenBLAS take every core. */
function torchEngine(threads: number, { folder, python, size }: Run): Engine {
  if (!python) throw new Unavailable('PyTorch was not found: WARPSIGHT_PYTHON names a Python that has it');
  const count = String(threads);
  const env = { OMP_NUM_THREADS: count, OPENBLAS_NUM_THREADS: count, MKL_NUM_THREADS: count };
  const peer = pinnedPeer(threads, python, [join(benchFolder, 'clip_torch.py'), folder, 'float32', 'cpu', 'off', '1'], env);
  let question: object;
  return {
    async prepare(work, form) {
      question = { work: work.kind, ...form };
      if (work.kind === 'image') question = { ...question, batch: work.batch };
      if (work.kind === 'text') {
        const { context, vocabulary } = size.text;
        question = { ...question, ids: paddedIds(work.prompts, context, vocabulary - 1) };
      }
      if (work.kind === 'products') question = { ...question, file: work.file };
      return { rows: parsed<number[]>(await peer.ask(JSON.stringify({ ...question, how: 'rows' }))) };
    },
    sample: async () => parsed(await peer.ask(JSON.stringify({ ...question, how: 'timed' }))),
    end: () => peer.end(),
  };
}

function readEngine(threads: number, { folder, programs }: Run): Engine {
  const peer = pinnedPeer(threads, programs['read-file'], [join(folder, 'model.safetensors'), String(threads)]);
  return {
    async prepare() {
      await peer.ask('');
      return { rows: [] };
    },
    sample: async () => parsed(await peer.ask('')),
    end: () => peer.end(),
  };
}

function start(name: EngineName, threads: number, run: Run): Engine {
  if (name === 'PyTorch') return torchEngine(threads, run);
  return name === 'read' ? readEngine(threads, run) : nodeEngine(name, threads, run);
}

const kEngines: Readonly<Record<Kind, readonly EngineName[]>> = {
  image: ['warpsight', 'onnxruntime', 'PyTorch'],
  products: ['warpsight', 'onnxruntime', 'PyTorch'],
  text: ['warpsight', 'onnxruntime', 'PyTorch'],
  int8: ['warpsight', 'warpsight int8', 'onnxruntime int8'],
  bfloat16: ['warpsight', 'warpsight bfloat16', 'onnxruntime'],
  beside: ['warpsight', 'warpsight alone', 'onnxruntime'],
  load: ['warpsight', 'read'],
};

/** So many images a batch has beside which one is asked for. */
const kBeside = 64;

/** The ways in which a user might give a peer this work. */
function formsOf(name: EngineName, work: Work): Form[] {
  if (name.startsWith('warpsight') || (work.kind !== 'image' && work.kind !== 'text')) return [];
  const whole = work.kind === 'image' ? work.batch : work.prompts.length;
  const less = work.kind === 'image' ? 1 : Math.min(16, whole);
  const parts = whole > less ? [whole, less] : [whole];
  if (name === 'PyTorch') return parts.map((part) => ({ part }));
  return [{ part: whole }, ...parts.map((part) => ({ part, fixed: true }))];
}

/** Prepares the form that is fastest. */
async function prepareBest(engine: Engine, work: Work, forms: readonly Form[]): Promise<{ prepared: Prepared; form?: string }> {
  if (forms.length === 0) return { prepared: await engine.prepare(work, undefined) };
  let best: { form: Form; ms: number } | undefined;
  for (const form of forms) {
    await engine.prepare(work, form);
    let [ms] = await engine.sample();
    for (let i = 0; i < 2 && ms < 1000; i++) ms = Math.min(ms, (await engine.sample())[0]);
    if (!best || ms < best.ms) best = { form, ms };
  }
  const { form } = best!;
  const prepared = await engine.prepare(work, form);
  return { prepared, form: `${form.part} at once${form.fixed ? ', batch fixed in the model' : ''}` };
}

// ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const problems: string[] = [];

/** The run goes on, and ends with exit code 1. */
function problem(message: string): void {
  problems.push(message);
  console.error(message);
  process.exitCode = 1;
}

/** Peak memory of loading in processes of their own, as what V8 keeps differs by chance. */
async function loadingMemory(threads: number, run: Run) {
  const memory: NonNullable<Prepared['memory']>[] = [];
  for (let i = 0; i < 3; i++) {
    const engine = nodeEngine('warpsight', threads, run);
    memory.push((await engine.prepare({ kind: 'load' }, undefined)).memory!);
    await engine.end();
  }
  return memory;
}

/** @throws {Unavailable} where the engine that the row is about is not there */
async function measure(plan: RowPlan, run: Run): Promise<CpuRow | undefined> {
  const { kind, name, threads, work, results, items } = plan;
  const subject: EngineName = kind === 'int8' || kind === 'bfloat16' ? `warpsight ${kind}` : 'warpsight';
  const fma = pinnedPeer(threads, run.programs['fma-peak'], [String(threads)]);
  const engines = new Map<EngineName, Engine>();
  const about = new Map<EngineName, Omit<EngineResult, 'samples'>>();
  const missing: Partial<Record<EngineName, string>> = {};
  try {
    let ours: Prepared | undefined;
    for (const engineName of kEngines[kind]) {
      try {
        const engine = start(engineName, threads, run);
        engines.set(engineName, engine);
        const asked: Work = engineName === 'warpsight alone' ? { kind: 'image', batch: 1 } : work;
        const { prepared, form } = await prepareBest(engine, asked, formsOf(engineName, asked));
        ours ??= prepared;
        if (prepared === ours || prepared.rows.length === 0) {
          about.set(engineName, {});
          continue;
        }
        const agreement = compare(ours.rows, prepared.rows, results);
        if (!agrees(engineName, agreement)) {
          throw new Error(`${engineName} disagrees with ours: ${JSON.stringify(agreement)}`);
        }
        about.set(engineName, { ...agreement, ...(form !== undefined && { form }) });
      } catch (error) {
        if (!(error instanceof Unavailable)) {
          problem(`${name}, ${threads} threads: ${(error as Error).message}`);
          return undefined;
        }
        if (engineName === subject) throw error;
        missing[engineName] = error.message;
        await engines.get(engineName)?.end();
        engines.delete(engineName);
      }
    }
    await fma.ask(''); // the first measurement warms up
    const peak: number[] = [];
    const samples = new Map([...engines.keys()].map((engine): [EngineName, Sample[]] => [engine, []]));
    const turns = [...engines];
    for (let round = 0; round < run.samples; round++) {
      for (let i = 0; i < turns.length; i++) {
        const [engineName, engine] = turns[(round + i) % turns.length]!;
        await sleep(kRestMs);
        const before = engineName === 'warpsight' ? await fma.number('') : 0;
        samples.get(engineName)!.push(await engine.sample());
        // On both sides of ours: who else uses the host comes and goes in tenths of a second.
        if (engineName === 'warpsight') peak.push((before + (await fma.number(''))) / 2);
      }
    }
    const multiplyAdds = ours?.multiplyAdds;
    const lengths = work.kind === 'text' ? work.prompts.map(({ length }) => length) : undefined;
    return {
      name,
      kind,
      threads,
      cores: coresFor(threads)?.join(', ') ?? 'not pinned',
      ...(multiplyAdds !== undefined && kind !== 'beside' && { flops: 2 * multiplyAdds }),
      items,
      peak,
      engines: Object.fromEntries(turns.map(([engine]) => [engine, { ...about.get(engine), samples: samples.get(engine)! }])),
      ...(ours?.longestStep !== undefined && { longestStep: ours.longestStep }),
      ...(lengths && { multiplyAdds: { ...textMultiplyAdds(run.size, lengths), executed: multiplyAdds! } }),
      ...(kind === 'load' && existsSync('/proc/self/clear_refs') && { memory: await loadingMemory(threads, run) }),
      missing,
    };
  } finally {
    await Promise.all([fma, ...engines.values()].map((process) => process.end()));
  }
}

/** GB/s of the read loop, the median of three behind one that warms up. */
async function readBandwidth(threads: number, { programs }: Run): Promise<number> {
  const loop = pinnedPeer(threads, programs['read-bandwidth'], [String(threads)]);
  await loop.ask('');
  const measured = [await loop.number(''), await loop.number(''), await loop.number('')];
  await loop.end();
  return median(measured);
}

/** x [tokens, D] and as many weights [N, D] as exceed the last-level cache twice, so that each comes from memory; at most 1 GiB. */
function makeProducts(folder: string, file: string, M: number, K: number, N: number): number {
  const bytes = 4 * N * K;
  const copies = Math.min(Math.max(24, Math.ceil((2 * lastLevelCacheBytes()) / bytes)), Math.ceil(2 ** 30 / bytes), 512);
  const weights = Array.from({ length: copies }, (_, i) => random(`w${i}`, [N, K]));
  writeWeights(join(folder, file), [random('x', [M, K]), ...weights], 'F32');
  return copies;
}

/** Prompts of 80 names in one template; ids of our own where the model has no tokenizer's vocabulary. */
async function prompts(vocabulary: number): Promise<{ random: number[][]; template: number[][]; tokenizer: string }> {
  const folder = join(process.env.WARPSIGHT_DATA ?? join(packageRoot, '..', 'shared', 'data'), 'clip-tokenizer');
  const random = randomPrompts(kThings.length, vocabulary);
  if (vocabulary !== 49_408 || !existsSync(folder))
    return { random, template: templatePrompts(kThings.length, vocabulary), tokenizer: 'none: ids of the same pattern' };
  const tokenizer = await Tokenizer.fromPretrained(folder);
  const { ids } = await tokenizer.encodeBatch(kThings.map((thing) => `a photo of a ${thing}.`));
  return { random, template: ids.map((row) => [...row]), tokenizer: "that of OpenAI's CLIP" };
}

async function plansOf(run: Run, kinds: readonly Kind[], threadCounts: readonly number[], batches: readonly number[]) {
  const { vision, text } = run.size;
  const { width: D } = vision;
  const M = Math.floor(vision.image / vision.patch) ** 2 + 1;
  const given = await prompts(text.vocabulary);
  const works: (Omit<RowPlan, 'threads'> & { readonly oneThread?: boolean })[] = [
    ...batches.map((batch) => {
      const work = { kind: 'image', batch } as const;
      return { kind: 'image' as const, name: `image, batch ${batch}`, work, results: batch, items: 1 };
    }),
    ...[D, 3 * D, 4 * D].map((N) => {
      const file = `products-${N}.safetensors`;
      const copies = kinds.includes('products') ? makeProducts(run.folder, file, M, D, N) : 0;
      const work = { kind: 'products', file, copies } as const;
      return { kind: 'products' as const, name: `product ${M} x ${D} x ${N}`, work, results: M, items: copies, oneThread: true };
    }),
    ...(['random', 'template'] as const).map((which) => {
      const work = { kind: 'text', prompts: given[which] } as const;
      const name = `text, ${work.prompts.length} ${which === 'random' ? 'random prompts' : 'prompts of one template'}`;
      return { kind: 'text' as const, name, work, results: work.prompts.length, items: 1, oneThread: true };
    }),
    ...batches.slice(-1).map((batch) => {
      const work = { kind: 'image', batch } as const;
      return { kind: 'int8' as const, name: `image, batch ${batch}`, work, results: batch, items: 1 };
    }),
    ...batches.map((batch) => {
      const work = { kind: 'image', batch } as const;
      return { kind: 'bfloat16' as const, name: `image, batch ${batch}`, work, results: batch, items: 1 };
    }),
    {
      kind: 'beside',
      name: `an image beside ${kBeside}`,
      work: { kind: 'beside', batch: kBeside },
      results: 1,
      items: 1,
    },
    { kind: 'load', name: run.model, work: { kind: 'load' }, results: 0, items: 1 },
  ];
  const plans = works
    .filter(({ kind }) => kinds.includes(kind))
    .flatMap((work) =>
      (work.oneThread ? threadCounts.slice(0, 1) : threadCounts).map((threads): RowPlan => ({ ...work, threads })),
    );
  return { plans, tokenizer: given.tokenizer };
}

function numbersOf(option: string, text: string): number[] {
  const numbers = text.split(',').map(Number);
  if (numbers.every((number) => Number.isInteger(number) && number > 0)) return numbers;
  throw new Error(`--${option} takes whole numbers above 0: it is ${text}`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'vit-b-32' },
      rows: { type: 'string', default: kKinds.join(',') },
      threads: { type: 'string', default: coreCount() > 1 ? '1,2' : '1' },
      batches: { type: 'string', default: '1,8' },
      samples: { type: 'string', default: '30' },
      seconds: { type: 'string', default: 'Infinity' },
    },
  });
  const { model } = values;
  const size = kSizes[model];
  if (!size) throw new Error(`--model takes ${Object.keys(kSizes).join(', ')}: it is ${model}`);
  const kinds = values.rows.split(',') as Kind[];
  const unknown = kinds.find((kind) => !kKinds.includes(kind));
  if (unknown !== undefined) throw new Error(`--rows takes ${kKinds.join(', ')}: one is ${unknown}`);
  const threadCounts = numbersOf('threads', values.threads);
  if (Math.max(...threadCounts) > coreCount()) throw new Error(`--threads: this process may use ${coreCount()} cores`);
  const [samples] = numbersOf('samples', values.samples);
  const command = ['npm run bench:cpu --', ...process.argv.slice(2)].join(' ').trim();
  const here = conditions(command, `${coreCount()} cores to use`);
  const begun = performance.now();
  const compiled = (['fma-peak', 'read-bandwidth', 'read-file'] as const).map((name) => ({ name, ...compileNative(name) }));
  const folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  const rows: CpuRow[] = [];
  const left: string[] = [];
  try {
    makeCheckpoint(folder, size);
    const python = pythonWithTorch('cpu');
    const programs = Object.fromEntries(compiled.map(({ name, path }) => [name, path])) as Run['programs'];
    const run: Run = { folder, model, size, samples: samples!, python, programs };
    const { plans, tokenizer } = await plansOf(run, kinds, threadCounts, numbersOf('batches', values.batches));
    const reading: string[] = [];
    for (const threads of threadCounts)
      reading.push(
        `${(await readBandwidth(threads, run)).toFixed(1)} GB/s with ${threads === 1 ? '1 thread' : `${threads} threads`}`,
      );
    for (const plan of plans) {
      const label = `${plan.kind}: ${plan.name}, ${plan.threads} ${plan.threads === 1 ? 'thread' : 'threads'}`;
      if (performance.now() - begun > 1000 * Number(values.seconds)) {
        left.push(label);
        continue;
      }
      try {
        const row = await measure(plan, run);
        if (row) rows.push(row);
        console.log(`${label}: done`);
      } catch (error) {
        if (!(error instanceof Unavailable)) throw error;
        left.push(`${label}: ${error.message}`);
      }
    }
    const isa = device('cpu').description.split(',')[0]!;
    const about = {
      isa,
      ...here,
      model: `${model} with random float32 weights, ${(statSync(join(folder, 'model.safetensors')).size / 1e6).toFixed(0)} MB`,
      samples: `${samples} of each engine, one in each round, the order rotating; medians, quartiles in brackets; ratios and shares are medians over rounds`,
      cores: [...new Set(rows.map(({ threads, cores }) => `${threads} threads on ${cores}`))].join('; '),
      reading: `a plain loop, before the rows: ${reading.join(', ')}`,
      agreement: `float32: cosine >= ${kAgreement.cosine}, difference <= ${kAgreement.difference} of the largest number; our int8: cosine >= ${kAgreement.int8Cosine}, our bfloat16: >= ${kAgreement.bfloat16Cosine}`,
      tokenizer,
      int8: `onnxruntime's weights have ${sumsBytesIn32Bits() ? 8 : '7 (reduce_range: there is no VNNI)'} bits`,
      forms: formsTaken(rows),
      missing: missingOf(rows),
      problems: problems.join('; ') || 'none',
      notMeasured: left.join('; ') || 'nothing',
    };
    const plot = barPlot({
      title: `CLIP ${model} on ${here.cpu}`,
      x: 'operations that ours needs in float32, a second, over what the FMA loop does',
      groups: cpuBars(rows),
    });
    report(`cpu-${isa}-${cpuSlug()}`, 'CLIP on the CPU', about, cpuTables(rows), { rows }, plot);
  } finally {
    rmSync(folder, { recursive: true, force: true });
    for (const program of compiled) program.dispose();
  }
}

/** How each peer was given its work, where it had a choice. */
function formsTaken(rows: readonly CpuRow[]): string {
  const taken = rows.flatMap(({ name, threads, engines }) =>
    Object.entries(engines)
      .filter(([, { form }]) => form !== undefined)
      .map(([engine, { form }]) => `${name}, ${threads}: ${engine} ${form}`),
  );
  return taken.join('; ') || 'no choice';
}

function missingOf(rows: readonly CpuRow[]): string {
  const reasons = rows.flatMap(({ missing }) => Object.entries(missing).map(([engine, why]) => `${engine}: ${why}`));
  return [...new Set(reasons)].join('; ') || 'nothing';
}

main();
