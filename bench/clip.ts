// npm run bench:clip -- [options]: encodes and classifications of CLIP models with random weights, from ours and from PyTorch on the same device
// in the same run, taking turns. Outputs are compared first. See docs/benchmarks.md.
//   --device cuda|cpu     cuda where there is one
//   --models a,b          names of make-checkpoint.ts (vit-b-32,vit-l-14-336)
//   --batches 1,8         (1,8,64,256)
//   --dtype f16|bf16|f32  (f16; f32 on the CPU)
//   --rounds N            (5)
//   --compile MODE        of torch.compile: max-autotune, reduce-overhead, off (reduce-overhead)
//   --classes N           (1000)
//   --seconds S           nothing is begun after it
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CLIP, device as deviceOf, devices, type Float, ops, type Program, Tensor, threads } from '../lib';
import { bestClasses, type ClipComposition } from '../lib/models/clip';
import { toFloat32 } from '../lib/models/encode-program';
import { loadClip } from '../lib/models/load-clip';
import { packageRoot } from '../lib/native';
import type { Linear } from '../lib/nn/encoder-layer';
import { cosine, hostIds, hostPixels } from './clip-inputs';
import { type CheckpointSize, kSizes, makeCheckpoint, type StoredType } from './make-checkpoint';
import { Peer, pythonWithTorch } from './peer';
import { benchFolder, conditions, markdown, report } from './report';
import { median, quantile } from './statistics';

const kPromptTokens = 10;
const kTypes: Readonly<Record<string, readonly [Float, StoredType]>> = {
  f16: ['float16', 'F16'],
  bf16: ['bfloat16', 'BF16'],
  f32: ['float32', 'F32'],
};
/** cosine of ours and PyTorch's: each may be 1e-4 (bfloat16: 1e-3) from the float32 result, at angles that add up to twice the angle. */
const kAgreement: Readonly<Record<Float, number>> = { float16: 1 - 4e-4, bfloat16: 1 - 4e-3, float32: 1 - 1e-6 };

type Engine = 'eager' | 'compiled';
type Work = 'image' | 'text' | 'classify';

/** What is measured of one engine, in milliseconds. */
interface Samples {
  /** Of one run of some back to back, inputs on the device; a number for each round. */
  readonly device: number[];
  /** From numbers in host memory to numbers in host memory, by a caller that waits; of all rounds. */
  readonly awaited: number[];
}

interface Result {
  readonly model: string;
  readonly work: Work | 'text from strings';
  readonly batch: number;
  readonly cosine: number | undefined;
  readonly engines: Readonly<Partial<Record<'warpsight' | 'eager' | 'compiled', Samples>>>;
}

// ── ours ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

class Ours {
  readonly #clip: CLIP;
  #classes: Tensor<Float> | undefined;

  constructor(
    readonly composition: ClipComposition,
    readonly size: CheckpointSize,
    readonly dispose: () => void,
  ) {
    this.#clip = new CLIP(composition);
  }

  static async load(folder: string, size: CheckpointSize, { device, dtype, classes }: Plan): Promise<Ours> {
    const { composition, weights } = await loadClip(folder, { device, dtype });
    const ours = new Ours(composition, size, () => {
      ours.#classes?.dispose();
      ours.#clip.dispose();
      for (const weight of weights) weight.dispose();
    });
    const rows = await ours.#clip.encodeText(
      { inputIds: hostIds(classes, kPromptTokens, size.text.vocabulary) },
      { normalize: true },
    );
    ours.#classes = dtype === 'float32' ? rows : ops.cast(rows, dtype); // as ZeroShotClassifier keeps them
    if (ours.#classes !== rows) rows.dispose();
    return ours;
  }

  /** One call as a user makes it, to numbers: those of the first row come back. */
  call(work: Work, batch: number): () => Promise<Float32Array> {
    const { image } = this.size.vision;
    if (work === 'text') {
      const inputIds = hostIds(batch, kPromptTokens, this.size.text.vocabulary);
      return async () => {
        using features = await this.#clip.encodeText({ inputIds }, { normalize: true });
        return (await features.read()).subarray(0, this.#clip.projectionDim) as Float32Array;
      };
    }
    const input = { pixels: hostPixels(batch, image), shape: [batch, 3, image, image] } as const;
    if (work === 'classify') return async () => (await this.#clip.rankClasses(input, this.#classes!, 'bench', 5))[0]!.scores;
    return async () => {
      using features = await this.#clip.encodeImage(input);
      return (await features.read()).subarray(0, this.#clip.projectionDim) as Float32Array;
    };
  }

  /** The same work with inputs that lie on the device. */
  program(work: Work, batch: number): { program: Program<Tensor>; inputs: readonly Tensor[] } {
    const { visionEncoder, textEncoder, visionProjection, textProjection, logitScale, device } = this.composition;
    const { image } = this.size.vision;
    const there = (array: Float32Array | Int32Array, shape: readonly number[]) =>
      array instanceof Float32Array
        ? Tensor.from(array, shape, { device: device! })
        : Tensor.from(array, shape, { device: device! });
    const project = (features: Tensor<Float>, projection: ClipComposition['visionProjection']) =>
      ops.linear(toFloat32(features), (projection as Linear).weight);
    const compiled = (inputs: readonly Tensor[], fn: (...given: Tensor[]) => Tensor) => ({
      program: deviceOf(device as 'cpu').compile(
        fn,
        inputs.map(({ shape, dtype }) => ({ shape, dtype })),
      ),
      inputs,
    });
    if (work === 'text') {
      const plan = textEncoder.layout(hostIds(batch, kPromptTokens, this.size.text.vocabulary));
      const fields = (array: Int32Array) => there(array, [array.length / 6, 6]);
      const rows = (array: Int32Array) => there(array, [array.length]);
      const { ids, positions, segments, lastRows, lastSegments } = plan;
      return compiled([rows(ids), rows(positions), fields(segments), rows(lastRows), fields(lastSegments)], (...given) => {
        const [tokens, places, sequences, last, lastSequences] = given as Tensor<'int32'>[];
        const features = textEncoder.forward({
          ids: tokens!,
          positions: places!,
          segments: sequences!,
          lastRows: last!,
          lastSegments: lastSequences!,
        });
        return ops.l2Normalize(project(features, textProjection));
      });
    }
    const pooled = Int32Array.from({ length: batch }, (_, i) => visionEncoder.pooledRow(i));
    return compiled([there(hostPixels(batch, image), [batch, 3, image, image]), there(pooled, [batch])], (pixels, rows) => {
      const features = project(visionEncoder.forward(pixels as Tensor<'float32'>, rows as Tensor<'int32'>), visionProjection);
      if (work === 'image') return features;
      return bestClasses(features, this.#classes!, logitScale, { k: 5 }).scores;
    });
  }

  /** The features of classes, from their names on. */
  async classesFromStrings(classes: number): Promise<void> {
    const prompts = Array.from({ length: classes }, (_, i) => `a photo of a thing ${i}`);
    using features = await this.#clip.encodeText(prompts, { normalize: true });
    await features.read();
  }
}

/** Milliseconds of one replay, of some back to back. */
async function backToBack(program: Program<Tensor>, inputs: readonly Tensor[], runs: number): Promise<number> {
  using out = program.launch(inputs);
  await out.read();
  const begun = performance.now();
  for (let i = 0; i < runs; i++) program.launch(inputs, { out: [out] });
  await out.read();
  return (performance.now() - begun) / runs;
}

async function milliseconds(call: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await call();
  return performance.now() - begun;
}

// ── the run ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Plan {
  readonly device: 'cpu' | 'cuda';
  readonly dtype: Float;
  readonly rounds: number;
  readonly classes: number;
  readonly engines: readonly Engine[];
}

const problems: string[] = [];

/** The run goes on, and ends with exit code 1. */
function problem(message: string): void {
  problems.push(message);
  console.error(message);
  process.exitCode = 1;
}

async function measure(
  model: string,
  work: Work,
  batch: number,
  ours: Ours,
  peer: Peer | undefined,
  plan: Plan,
): Promise<Result | undefined> {
  const { rounds, engines, dtype } = plan;
  const call = ours.call(work, batch);
  const mine = await call();
  const ask = async (engine: string, how: string, runs = 1): Promise<number[]> => {
    const answer = JSON.parse(await peer!.ask(JSON.stringify({ work, batch, engine, how, runs })));
    if (!Array.isArray(answer)) throw new Error(`${model}, ${work}, batch ${batch}: PyTorch (${engine}): ${answer.error}`);
    return answer;
  };
  let agreement: number | undefined;
  const able: Engine[] = [];
  for (const engine of peer ? engines : []) {
    try {
      agreement = Math.min(agreement ?? 1, cosine(mine, await ask(engine, 'features')));
      able.push(engine);
    } catch (error) {
      problem((error as Error).message);
    }
    if (agreement !== undefined && !(agreement >= kAgreement[dtype])) {
      problem(`${model}, ${work}, batch ${batch}: ours and PyTorch (${engine}) disagree: cosine ${agreement}`);
      return undefined;
    }
  }
  const { program, inputs } = ours.program(work, batch);
  try {
    const once = await backToBack(program, inputs, 3);
    const runs = Math.min(200, Math.ceil(30 / once)); // some 30 ms
    const names = ['warpsight', ...able] as const;
    const samples = names.map((): Samples => ({ device: [], awaited: [] }));
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < names.length; i++) {
        const turn = (round + i) % names.length;
        const engine = names[turn]!;
        const { device, awaited } = samples[turn]!;
        if (engine === 'warpsight') {
          device.push(await backToBack(program, inputs, runs));
          for (let run = 0; run < runs; run++) awaited.push(await milliseconds(call));
        } else {
          device.push(...(await ask(engine, 'device', runs)));
          awaited.push(...(await ask(engine, 'awaited', runs)));
        }
      }
    }
    return { model, work, batch, cosine: agreement, engines: Object.fromEntries(names.map((name, i) => [name, samples[i]!])) };
  } finally {
    for (const disposable of [program, ...inputs]) disposable.dispose();
  }
}

async function fromStrings(model: string, ours: Ours, { rounds, classes }: Plan): Promise<Result> {
  await ours.classesFromStrings(classes);
  const awaited: number[] = [];
  for (let i = 0; i < 3 * rounds; i++) awaited.push(await milliseconds(() => ours.classesFromStrings(classes)));
  const engines = { warpsight: { device: [], awaited } };
  return { model, work: 'text from strings', batch: classes, cosine: undefined, engines };
}

function table(results: readonly Result[]): string {
  const ms = (values: readonly number[] | undefined, q = 0.5) => (values?.length ? quantile(values, q).toFixed(3) : '-');
  const rows = results.map(({ model, work, batch, engines: { warpsight, eager, compiled } }) => {
    const ours = warpsight!.device.length > 0 ? median(warpsight!.device) : undefined;
    const ratio = (other: Samples | undefined) => (ours && other ? (median(other.device) / ours).toFixed(2) : '-');
    return [
      `${model}, ${work}`,
      String(batch),
      ms(warpsight!.device),
      ms(eager?.device),
      ms(compiled?.device),
      ratio(eager),
      ratio(compiled),
      ours ? ((1000 * batch) / ours).toFixed(0) : '-',
      ms(warpsight!.awaited),
      ms(warpsight!.awaited, 0.99),
      ms(eager?.awaited),
      ms(compiled?.awaited),
    ];
  });
  const columns = ['model, work', 'batch', 'ms on the device', 'PyTorch eager', 'compiled', 'eager ÷ ours', 'compiled ÷ ours'];
  return markdown([...columns, 'per second', 'awaited p50', 'p99', 'eager awaited p50', 'compiled awaited p50'], rows);
}

/** OpenAI's, in `clip-tokenizer` of WARPSIGHT_DATA or ../shared/data; else the one that ships, whose vocabulary is smaller. */
function chosenTokenizer(): { tokenizer: string; vocabulary: number } {
  const openai = join(process.env.WARPSIGHT_DATA ?? join(packageRoot, '..', 'shared', 'data'), 'clip-tokenizer');
  if (existsSync(openai)) return { tokenizer: openai, vocabulary: 49_408 };
  return { tokenizer: join(packageRoot, 'models', 'clip-pictograms'), vocabulary: 3000 };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      device: { type: 'string', default: devices().some(({ name, usable }) => name !== 'cpu' && usable) ? 'cuda' : 'cpu' },
      models: { type: 'string', default: 'vit-b-32,vit-l-14-336' },
      batches: { type: 'string', default: '1,8,64,256' },
      dtype: { type: 'string' },
      rounds: { type: 'string', default: '5' },
      compile: { type: 'string', default: 'reduce-overhead' },
      classes: { type: 'string', default: '1000' },
      seconds: { type: 'string', default: 'Infinity' },
    },
  });
  const device = values.device === 'cpu' ? 'cpu' : 'cuda';
  const [dtype, stored] = kTypes[values.dtype ?? (device === 'cpu' ? 'f32' : 'f16')] ?? kTypes.f16!;
  const engines = values.compile === 'off' ? (['eager'] as const) : (['eager', 'compiled'] as const);
  const plan: Plan = { device, dtype, rounds: Number(values.rounds), classes: Number(values.classes), engines };
  const command = ['npm run bench:clip --', ...process.argv.slice(2)].join(' ');
  const here = conditions(command, `${threads()} threads of ${cpus().length}`);
  const interpreter = pythonWithTorch(device, { atLeast2: true });
  const begun = performance.now();
  const late = () => performance.now() - begun > 1000 * Number(values.seconds);

  const { tokenizer, vocabulary } = chosenTokenizer();
  const results: Result[] = [];
  const left: string[] = [];
  for (const model of values.models.split(',')) {
    const known = kSizes[model];
    if (!known) throw new Error(`--models takes ${Object.keys(kSizes).join(', ')}: one is ${model}`);
    const size: CheckpointSize = { ...known, text: { ...known.text, vocabulary } };
    const folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
    let peer: Peer | undefined;
    let ours: Ours | undefined;
    try {
      makeCheckpoint(folder, size, { dtype: stored, tokenizer });
      ours = await Ours.load(folder, size, plan);
      if (interpreter)
        peer = new Peer(interpreter, [join(benchFolder, 'clip_torch.py'), folder, dtype, device, values.compile, values.classes]);
      const batches = values.batches.split(',').map(Number);
      const works: [Work, number][] = [
        ...batches.map((batch): [Work, number] => ['image', batch]),
        ...batches.map((batch): [Work, number] => ['classify', batch]),
        ['text', 1],
        ['text', plan.classes], // a classifier from ids
      ];
      for (const [work, batch] of works) {
        if (late()) left.push(`${model}, ${work}, batch ${batch}`);
        else {
          const result = await measure(model, work, batch, ours, peer, plan);
          if (result) results.push(result);
          console.log(`${model}, ${work}, batch ${batch}: done`);
        }
      }
      if (!late()) results.push(await fromStrings(model, ours, plan));
    } finally {
      await peer?.end();
      ours?.dispose();
      rmSync(folder, { recursive: true, force: true });
    }
  }
  const about = {
    device: device === 'cuda' ? deviceOf('cuda').description : deviceOf('cpu').description,
    ...here,
    dtype,
    models: `random weights, ${plan.classes} classes, prompts of ${kPromptTokens} tokens, ${vocabulary} words; ${values.rounds} rounds, the engines taking turns`,
    PyTorch: interpreter
      ? `${interpreter}, compiled with mode ${values.compile}`
      : 'not found: WARPSIGHT_PYTHON names a Python that has it (2.0 or later)',
    problems: problems.length > 0 ? problems.join('; ') : 'none',
    notMeasured: left.length > 0 ? left.join('; ') : 'nothing',
  };
  report(`clip-${device}`, `CLIP on ${device === 'cuda' ? 'CUDA' : 'the CPU'}`, about, table(results), { results });
}

main();
