// npm run bench:accuracy -- PICTURES [--model FOLDER] [--names FILE] [--template TEXT]: how many pictures a CLIP names right in float32, int8 and
// bfloat16, beside onnxruntime in float32 and dynamically quantised. See docs/benchmarks.md.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { CLIP, device, ImageProcessor, Tokenizer, WarpsightError } from '../lib';
import { cosine } from './clip-inputs';
import { cpuSlug, sumsBytesIn32Bits } from './cores';
import { paddedIds } from './cpu-work';
import type { CheckpointSize } from './make-checkpoint';
import { type TowerOptions, writeImageTower, writeTextTower } from './onnx';
import { benchFolder, conditions, markdown, report } from './report';

const root = join(benchFolder, '..');

/** Unit rows of every picture and of every name. */
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

type Narrow = { readonly quantization: 'int8' } | { readonly dtype: 'bfloat16' };

/** Undefined where this processor has no such products. */
async function ours({ model, pictures, texts }: Work, narrow?: Narrow): Promise<Features | undefined> {
  const clip = await CLIP.fromPretrained(model, { device: 'cpu', ...narrow }).catch((error) => {
    if (error instanceof WarpsightError && error.code === 'ERR_DTYPE') return undefined;
    throw error;
  });
  if (!clip) return undefined;
  const [images, named] = [
    await clip.encodeImage(pictures, { normalize: true }),
    await clip.encodeText(texts, { normalize: true }),
  ];
  const features = { images: rowsOf(await images.read(), pictures.length), texts: rowsOf(await named.read(), texts.length) };
  for (const owner of [images, named, clip]) owner.dispose();
  return features;
}

/** One picture or text in a run: onnxruntime's dynamic quantisation has one scale for all rows of a run, and is most exact so. */
async function onnxruntime({ model, pictures, texts }: Work, folder: string, options: TowerOptions): Promise<Features> {
  const ort = await import('onnxruntime-node');
  const size = sizeOf(model);
  const open = (name: string, write: typeof writeImageTower) => {
    const path = join(folder, `${name}-${options.weightBits ?? 32}.onnx`);
    write(model, size, path, { ...options, batch: 1 });
    return ort.InferenceSession.create(path, { executionProviders: ['cpu'] });
  };
  const unitRow = (values: Float32Array) => {
    const length = Math.hypot(...values);
    return values.map((value) => value / length);
  };

  const vision = await open('image', writeImageTower);
  const processor = await ImageProcessor.fromPretrained(model);
  const images: Float32Array[] = [];
  for (const picture of pictures) {
    const pixels = await processor.preprocess(picture);
    const { embedding } = await vision.run({ pixels: new ort.Tensor('float32', await pixels.read(), pixels.shape) });
    images.push(unitRow(embedding!.data as Float32Array));
    pixels.dispose();
  }
  await vision.release();

  const language = await open('text', writeTextTower);
  const { context, vocabulary } = size.text;
  const { ids } = await (await Tokenizer.fromPretrained(model)).encodeBatch(texts);
  const rows = paddedIds(
    ids.map((row) => [...row]),
    context,
    vocabulary - 1,
  );
  const named: Float32Array[] = [];
  for (const row of rows) {
    const { embedding } = await language.run({ ids: new ort.Tensor('int64', BigInt64Array.from(row, BigInt), [1, context]) });
    named.push(Float32Array.from(embedding!.data as Float32Array));
  }
  await language.release();
  return { images, texts: named };
}

function rowsOf(values: Float32Array, count: number): Float32Array[] {
  const width = values.length / count;
  return Array.from({ length: count }, (_, i) => values.slice(i * width, (i + 1) * width));
}

/** Of a checkpoint with quickGelu, CLIP's eps and an end mark that is the last of the vocabulary, as the exported towers are. */
function sizeOf(model: string): CheckpointSize {
  const {
    vision_config: vision,
    text_config: text,
    projection_dim: projection,
  } = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8'));
  const tower = (config: Record<string, number>) => ({
    width: config.hidden_size!,
    layers: config.num_hidden_layers!,
    heads: config.num_attention_heads!,
  });
  return {
    vision: { ...tower(vision), image: vision.image_size, patch: vision.patch_size },
    text: { ...tower(text), vocabulary: text.vocab_size, context: text.max_position_embeddings },
    projection,
  };
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
  const here = conditions(`npm run bench:accuracy -- PICTURES`, 'all cores');
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
