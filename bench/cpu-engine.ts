// One engine of bench:cpu in a process of its own: cpu-engine.js NAME FOLDER MODEL THREADS. Each line of stdin is a `Prepare` in JSON, answered
// with a `Prepared`, or null, answered with the `Sample` of one call; see cpu-work.ts.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { hostPixels } from './clip-inputs';
import { sumsBytesIn32Bits } from './cores';
import {
  type Form,
  type Narrow,
  type Prepare,
  type Prepared,
  paddedIds,
  pieces,
  type Refusal,
  type Sample,
  type Work,
} from './cpu-work';
import { type CheckpointSize, kSizes } from './make-checkpoint';
import { writeImageTower, writeProducts, writeTextTower } from './onnx';
import { forgetPeak, peakBytes, residentBytes } from './resident';
import { StoredNumbers } from './stored-numbers';

/** A call that can be repeated, to numbers in host memory. */
interface Ready extends Pick<Prepared, 'memory' | 'longestStep'> {
  /** In front of each call. @returns from when on the call counts: when it would have been made in a process that nothing blocks */
  before?(): Promise<number>;
  call(): Promise<Float32Array>;
  /** Behind each call, after the clock has stopped. */
  after?(): Promise<void>;
}

/** `call` somewhere within `batch`, which is begun for each. */
function beside(batch: Ready['call'], call: Ready['call']): Ready {
  let running: Promise<unknown> | undefined;
  return {
    async before() {
      const due = performance.now() + 50 + 100 * Math.random();
      running = batch();
      do await sleep(Math.max(0, due - performance.now()));
      while (performance.now() < due); // timers may be early
      return due;
    },
    call,
    after: async () => void (await running),
  };
}

interface Engine {
  ready(work: Work, form: Form | undefined): Promise<Ready>;
  multiplyAdds?(): number;
}

class Unavailable extends Error {}

// ── ours ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function warpsight(folder: string, size: CheckpointSize, narrow?: Narrow): Promise<Engine> {
  const { CLIP, counters, device, ops, Tensor, WarpsightError, Weight } = await import('../lib/index.js');
  const { profileRuns } = await import('../lib/profile.js');
  const options = { device: 'cpu', ...narrow } as const;
  type Model = Awaited<ReturnType<typeof CLIP.fromPretrained>>;
  type Rows = Awaited<ReturnType<Model['encodeText']>>;
  const read = async (rows: Rows) => {
    const numbers = await rows.read();
    rows.dispose();
    return numbers as Float32Array;
  };

  async function load(): Promise<Ready> {
    let clip: Model | undefined;
    const call = async () => {
      clip = await CLIP.fromPretrained(folder, options);
      return new Float32Array();
    };
    const after = async () => {
      clip?.dispose();
      while (device('cpu').memory().weights > 0) await sleep(1); // else the next load would find them there
    };
    forgetPeak();
    const before = residentBytes();
    await call();
    const memory = { peak: peakBytes() - before, weights: clip!.memoryUsage().weights };
    await after();
    return { call, after, memory };
  }

  function encoding(clip: Model, batch: number): Ready['call'] {
    const { image } = size.vision;
    const input = { pixels: hostPixels(batch, image), shape: [batch, 3, image, image] } as const;
    return async () => read(await clip.encodeImage(input));
  }

  async function model(): Promise<Model> {
    return CLIP.fromPretrained(folder, options).catch((error) => {
      // bfloat16 where the processor has no such products
      throw error instanceof WarpsightError && error.code === 'ERR_DTYPE' ? new Unavailable(error.message) : error;
    });
  }

  return {
    multiplyAdds: () => counters().multiplyAdds,
    async ready(work) {
      switch (work.kind) {
        case 'load':
          return load();
        case 'image':
          return { call: encoding(await model(), work.batch) };
        case 'beside': {
          const clip = await model();
          const batch = encoding(clip, work.batch);
          await batch();
          const runs = await profileRuns('batch', batch);
          const longestStep = Math.max(...runs.flatMap(({ steps }) => steps.map(({ ms }) => ms)));
          return { ...beside(batch, encoding(clip, 1)), longestStep };
        }
        case 'text': {
          const clip = await model();
          return { call: async () => read(await clip.encodeText({ inputIds: work.prompts }, { normalize: true })) };
        }
        case 'products': {
          const stored = new StoredNumbers(join(folder, work.file));
          const shapeOf = (name: string) => stored.shape(name) as [number, number];
          const weights = Array.from({ length: work.copies }, (_, i) => Weight.matrix(stored.read(`w${i}`), shapeOf(`w${i}`)));
          const x = Tensor.from(stored.read('x'), shapeOf('x'));
          const program = device('cpu').compile(
            (rows) => {
              let y = ops.linear(rows as typeof x, weights[0]!);
              for (const weight of weights.slice(1)) y = ops.linear(rows as typeof x, weight);
              return y;
            },
            [{ shape: shapeOf('x') }],
          );
          return { call: async () => read((await program.run([x])) as Rows) };
        }
      }
    },
  };
}

// ── onnxruntime-node ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function onnxruntime(folder: string, size: CheckpointSize, threads: number, int8: boolean): Promise<Engine> {
  const ort = await import('onnxruntime-node').catch((error: Error) => {
    throw new Unavailable(`onnxruntime-node: ${error.message}`);
  });
  const tower = int8 ? ({ weightBits: sumsBytesIn32Bits() ? 8 : 7 } as const) : {};
  let session: InferenceSession | undefined;
  /** `write` makes the model unless an earlier process of the run did. */
  const open = async (path: string, write: (path: string) => void): Promise<InferenceSession> => {
    await session?.release();
    if (!existsSync(path)) write(path);
    session = await ort.InferenceSession.create(path, {
      executionProviders: ['cpu'],
      graphOptimizationLevel: 'all',
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
    });
    return session;
  };

  /** `count` images, `part` of them in a tensor. */
  function images(count: number, part: number): OrtTensor[] {
    const { image } = size.vision;
    return pieces(hostPixels(count, image), part * 3 * image ** 2).map(
      (piece) => new ort.Tensor('float32', piece, [piece.length / (3 * image ** 2), 3, image, image]),
    );
  }

  /** Runs parts one after the other and puts their embeddings together. */
  function inParts(opened: InferenceSession, input: string, parts: readonly OrtTensor[]): Ready {
    return {
      async call() {
        const embeddings: Float32Array[] = [];
        for (const part of parts) {
          const { embedding } = await opened.run({ [input]: part });
          embeddings.push(embedding!.data as Float32Array);
        }
        return embeddings.length === 1 ? embeddings[0]! : joined(embeddings);
      },
    };
  }

  return {
    async ready(work, form) {
      const name = (kind: string) =>
        join(folder, `${kind}-${int8 ? 'int8' : 'float32'}-${form?.fixed ? form.part : 'free'}.onnx`);
      const options = { ...tower, ...(form?.fixed && { batch: form.part }) };
      switch (work.kind) {
        case 'load':
          throw new Unavailable('onnxruntime is not asked to load');
        case 'image':
        case 'beside': {
          const opened = await open(name('image'), (path) => writeImageTower(folder, size, path, options));
          const encoding = (count: number, part = count) => inParts(opened, 'pixels', images(count, part));
          if (work.kind === 'image') return encoding(work.batch, form?.part);
          return beside(encoding(work.batch).call, encoding(1).call);
        }
        case 'text': {
          const { context, vocabulary } = size.text;
          const part = form?.part ?? work.prompts.length;
          const ids = BigInt64Array.from(paddedIds(work.prompts, context, vocabulary - 1).flat(), BigInt);
          const parts = pieces(ids, part * context).map(
            (piece) => new ort.Tensor('int64', piece, [piece.length / context, context]),
          );
          const opened = await open(name('text'), (path) => writeTextTower(folder, size, path, options));
          return inParts(opened, 'ids', parts);
        }
        case 'products': {
          const stored = new StoredNumbers(join(folder, work.file));
          const opened = await open(join(folder, `${work.file}.onnx`), (path) => writeProducts(stored, work.copies, path));
          const x = new ort.Tensor('float32', stored.read('x'), stored.shape('x'));
          return { call: async () => (await opened.run({ x })).y!.data as Float32Array };
        }
      }
    },
  };
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function engineOf(name: string, folder: string, size: CheckpointSize, threads: number): Promise<Engine> {
  if (name.startsWith('onnxruntime')) return onnxruntime(folder, size, threads, name.endsWith('int8'));
  if (name.endsWith('int8')) return warpsight(folder, size, { quantization: 'int8' });
  return warpsight(folder, size, name.endsWith('bfloat16') ? { dtype: 'bfloat16' } : undefined);
}

/** One call that counts, behind one that doesn't unless calls take a second or something runs beside them. */
async function timed({ before, call, after }: Ready, lastMs: number): Promise<Sample> {
  if (lastMs < 1000 && !before) {
    await call();
    await after?.();
  }
  const due = await before?.();
  const used = process.cpuUsage();
  const begun = due ?? performance.now();
  await call();
  const ms = performance.now() - begun;
  const { user, system } = process.cpuUsage(used);
  await after?.();
  return [ms, (user + system) / 1000];
}

async function main([name = '', folder = '', model = '', threads = '1']: readonly string[]): Promise<void> {
  const size = kSizes[model];
  if (!size) throw new Error(`no model is called ${model}`);
  let engine: Engine | undefined;
  let ready: Ready | undefined;
  let lastMs = 0;
  const answer = async (question: Prepare | null): Promise<Prepared | Sample> => {
    if (question === null) {
      const sample = await timed(ready!, lastMs);
      lastMs = sample[0];
      return sample;
    }
    engine ??= await engineOf(name, folder, size, Number(threads));
    ready = await engine.ready(question.work, question.form);
    const { call, after, memory, longestStep } = ready;
    const counted = engine.multiplyAdds?.() ?? 0;
    const begun = performance.now();
    const rows = [...(await call())];
    lastMs = performance.now() - begun;
    const multiplyAdds = engine.multiplyAdds && engine.multiplyAdds() - counted;
    await after?.();
    return { rows, ...(multiplyAdds && { multiplyAdds }), ...(memory && { memory }), ...(longestStep && { longestStep }) };
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const answered = await answer(JSON.parse(line)).catch(
      (error: Error): Refusal => ({ error: error.message, unavailable: error instanceof Unavailable }),
    );
    console.log(JSON.stringify(answered));
  }
}

main(process.argv.slice(2));
