// npm run bench:accuracy -- PICTURES [--model FOLDER] [--names FILE] [--template TEXT]: how many pictures a CLIP names right in float32, int8 and
// bfloat16, beside onnxruntime in float32 and dynamically quantised. See docs/benchmarks.md.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { CLIP, device, ImageProcessor, Tokenizer, threads, WarpsightError } from '../lib';
import { readConfig } from '../lib/checkpoint/folder';
import { parseClipConfig } from '../lib/models/clip-config';
import type { TowerConfig } from '../lib/models/tower-config';
import { cosine } from './clip-inputs';
import { cpuSlug, sumsBytesIn32Bits } from './cores';
import { type Narrow, paddedIds, pieces } from './cpu-work';
import type { CheckpointSize } from './make-checkpoint';
import { type TowerOptions, writeImageTower, writeTextTower } from './onnx';
import { benchFolder, conditions, markdown, report } from './report';

const root = join(benchFolder, '..');

/** A row for every picture, of any length, and a unit row for every name. */
export interface Features {
  readonly images: readonly Float32Array[];
  readonly texts: readonly Float32Array[];
}

export interface Score {
  readonly engine: string;
  /** Shares of the pictures: of whose name the cosine is the largest, and among the five largest. */
  readonly top1: number;
  readonly top5: number;
  /** Pictures that get the same name as by the first engine */
  readonly same: number;
  /** The smallest to the first engine's */
  readonly imageCosine: number;
  readonly textCosine: number;
}

/** For each picture the names' indices, the best first; equal ones as they stand. */
export function ranked({ images, texts }: Features): number[][] {
  return images.map((image) => {
    const scores = texts.map((text) => text.reduce((sum, value, i) => sum + value * image[i]!, 0));
    return scores.map((_, i) => i).sort((a, b) => scores[b]! - scores[a]!);
  });
}

/** Picture i is right with name i. The first of `engines` is what the others are compared with. */
export function scores(engines: Readonly<Record<string, Features>>): Score[] {
  const [first] = Object.values(engines);
  const answers = ranked(first!).map(([best]) => best);
  const least = (rows: readonly Float32Array[], reference: readonly Float32Array[]) =>
    Math.min(...rows.map((row, i) => cosine(row, reference[i]!)));
  return Object.entries(engines).map(([engine, features]) => {
    const order = ranked(features);
    const share = (n: number) => order.filter((names, i) => names.slice(0, n).includes(i)).length / order.length;
    return {
      engine,
      top1: share(1),
      top5: share(5),
      same: order.filter(([best], i) => best === answers[i]).length,
      imageCosine: least(features.images, first!.images),
      textCosine: least(features.texts, first!.texts),
    };
  });
}

interface Work {
  readonly model: string;
  readonly pictures: readonly string[];
  readonly texts: readonly string[];
}

/** Undefined where this processor has no such products. */
async function ours({ model, pictures, texts }: Work, narrow?: Narrow): Promise<Features | undefined> {
  const clip = await CLIP.fromPretrained(model, { device: 'cpu', ...narrow }).catch((error) => {
    if (error instanceof WarpsightError && error.code === 'ERR_DTYPE') return undefined;
    throw error;
  });
  if (!clip) return undefined;
  const [images, named] = [await clip.encodeImage(pictures), await clip.encodeText(texts, { normalize: true })];
  const width = clip.projectionDim;
  const features = { images: pieces(await images.read(), width), texts: pieces(await named.read(), width) };
  for (const owner of [images, named, clip]) owner.dispose();
  return features;
}

/** One picture or text in a run: onnxruntime's dynamic quantisation has one scale for all rows of a run, and is most exact so. */
async function onnxruntime({ model, pictures, texts }: Work, folder: string, options: TowerOptions): Promise<Features> {
  const ort = await import('onnxruntime-node');
  const size = await sizeOf(model);
  const open = (name: string, write: typeof writeImageTower) => {
    const path = join(folder, `${name}-${options.weightBits ?? 32}.onnx`);
    write(model, size, path, { ...options, batch: 1 });
    return ort.InferenceSession.create(path, { executionProviders: ['cpu'] });
  };

  const vision = await open('image', writeImageTower);
  const processor = await ImageProcessor.fromPretrained(model);
  const images: Float32Array[] = [];
  for (const picture of pictures) {
    const pixels = await processor.preprocess(picture);
    const { embedding } = await vision.run({ pixels: new ort.Tensor('float32', await pixels.read(), pixels.shape) });
    images.push(embedding!.data as Float32Array);
    pixels.dispose();
  }
  await vision.release();

  const language = await open('text', writeTextTower);
  const { context, vocabulary } = size.text;
  const { ids } = await (await Tokenizer.fromPretrained(model)).encodeBatch(texts);
  const named: Float32Array[] = [];
  for (const row of paddedIds(ids, context, vocabulary - 1)) {
    const { embedding } = await language.run({ ids: new ort.Tensor('int64', BigInt64Array.from(row, BigInt), [1, context]) });
    named.push(embedding!.data as Float32Array);
  }
  await language.release();
  return { images, texts: named };
}

/** @throws {Error} for layers that onnx.ts doesn't export */
async function sizeOf(model: string): Promise<CheckpointSize> {
  const { vision, text, projectionDim } = parseClipConfig(await readConfig(model));
  return {
    vision: { ...tower(vision), image: vision.imageSize, patch: vision.patchSize },
    text: { ...tower(text), vocabulary: text.vocabularySize, context: text.contextLength },
    projection: projectionDim,
  };
}

function tower({ hiddenSize, layers, heads, activation, eps }: TowerConfig) {
  if (activation !== 'quickGelu' || eps !== 1e-5)
    throw new Error(`bench:accuracy wants a CLIP with quickGelu and an eps of 1e-5: it is ${activation}, ${eps}`);
  return { width: hiddenSize, layers, heads };
}

function table(all: readonly Score[], pictures: number): string {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const cells = ({ engine, top1, top5, same, imageCosine, textCosine }: Score) => [
    engine,
    percent(top1),
    percent(top5),
    `${same} of ${pictures}`,
    imageCosine.toFixed(5),
    textCosine.toFixed(5),
  ];
  return markdown(['', 'top-1', 'top-5', 'same answers', 'cosine, image', 'cosine, text'], all.map(cells));
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      model: { type: 'string', default: join(root, 'models', 'clip-pictograms') },
      names: { type: 'string', default: join(root, 'tools', 'train', 'openmoji-200.txt') },
      template: { type: 'string', default: 'a photo of a {}' },
    },
  });
  const [folder] = positionals;
  if (folder === undefined || !existsSync(folder))
    throw new Error(`bench:accuracy wants a folder of pictures, named NAME.png: ${folder ?? 'none was given'}`);
  const names = readFileSync(values.names, 'utf8').split('\n').filter(Boolean);
  const files = new Set(readdirSync(folder));
  const lacking = names.filter((name) => !files.has(`${name}.png`));
  if (lacking.length > 0) throw new Error(`${folder} has no picture of ${lacking.slice(0, 5).join(', ')}`);
  const work: Work = {
    model: resolve(values.model),
    pictures: names.map((name) => join(folder, `${name}.png`)),
    texts: names.map((name) => values.template.replace('{}', name.replaceAll('-', ' '))),
  };
  const options = process.argv.slice(2).map((argument) => (argument === folder ? 'PICTURES' : argument));
  const command = ['npm run bench:accuracy --', ...options].join(' ');
  const here = conditions(command, `${threads()} threads of ${cpus().length}`);
  const weightBits = sumsBytesIn32Bits() ? 8 : 7;
  const models = mkdtempSync(join(tmpdir(), 'warpsight-accuracy-'));
  try {
    const engines: Record<string, Features | undefined> = {
      'onnxruntime, float32': await onnxruntime(work, models, {}),
      'onnxruntime, dynamically quantised': await onnxruntime(work, models, { weightBits }),
      'warpsight, float32': await ours(work),
      'warpsight, int8': await ours(work, { quantization: 'int8' }),
      'warpsight, bfloat16': await ours(work, { dtype: 'bfloat16' }),
    };
    const there = Object.entries(engines).filter((entry): entry is [string, Features] => entry[1] !== undefined);
    const all = scores(Object.fromEntries(there));
    const isa = device('cpu').description.split(',')[0]!;
    const about = {
      isa,
      ...here,
      model: basename(work.model),
      pictures: `${names.length}: each has one of as many names, "${values.template}"`,
      onnxruntime: `one picture or text in a run; int8 weights of ${weightBits} bits`,
      compared: 'same answers, and the smallest cosines of features, to the first line',
    };
    report(`accuracy-${isa}-${cpuSlug()}`, 'A CLIP in fewer bits', about, table(all, names.length), { scores: all });
  } finally {
    rmSync(models, { recursive: true, force: true });
  }
}

if (require.main === module) main();
