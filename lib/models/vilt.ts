import { WeightLoader } from '../checkpoint/weight-loader';
import { type DeviceName, device as openDevice } from '../device';
import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import { LruCache } from '../lru';
import {
  type EncoderLayer,
  encoderLayer,
  type LayerNorm,
  type Linear,
  norm,
  type PooledLayer,
  pooledLayer,
} from '../nn/encoder-layer';
import { activate, embed, linear, patchEmbed, splice } from '../ops';
import type { ImageInput } from '../preprocess/image-source';
import { kSegmentFields } from '../preprocess/text-batch';
import { dim, type InputSpec, type LaunchOptions, type Program } from '../program';
import type { Tensor } from '../tensor';
import { Weight } from '../weight';
import type { LoadOptions } from './clip';
import { bucket, mostRows, toFloat32 } from './encode-program';
import type { ImageInputs, ImageRun } from './image-runner';
import { checkTokenizer, chooseDtype, chooseQuantization, imageProcessorOf, tokenizerOf, withCheckpoint } from './loading';
import { type LoadedPairModel, PairModel } from './pair-model';
import { groupPairs, inOrder, type Pair, type PairPart } from './pairs';
import { interpolatePositions } from './position-grid';
import type { TextInput } from './token-rows';
import { parseViltConfig, type ViltConfig } from './vilt-config';
import { checkViltTensors, kViltTokens, viltNaming, viltParts } from './vilt-tensors';

/** What is computed of a pair's pooled row. */
export type ViltHead =
  | { readonly kind: 'retrieval'; readonly linear: Linear }
  | {
      readonly kind: 'answers';
      readonly fc1: Linear;
      readonly norm: LayerNorm;
      readonly fc2: Linear;
      readonly labels: readonly string[];
    };

/** What a ViLT is composed of. */
export interface ViltParts {
  readonly text: {
    readonly tokens: Weight<'table'>;
    /** Positions, and the one type that tokens have. */
    readonly positions: Weight<'table'>;
    /** Its bias holds the embedding of the modality text. */
    readonly norm: LayerNorm;
  };
  readonly image: {
    readonly patch: number;
    readonly weight: Weight<'matrix'>;
    readonly bias: Weight<'vector'>;
    readonly classToken: Weight<'vector'>;
    /** [1 + grid², D]: the class token's, then of a picture of grid x grid patches; the embedding of the modality picture is in all of them. */
    readonly positions: Float32Array;
    readonly grid: number;
  };
  readonly layers: readonly EncoderLayer[];
  readonly lastLayer: PooledLayer;
  readonly finalNorm: LayerNorm;
  readonly pooler: Linear;
  readonly head: ViltHead;
  /** Dtype of the activations. */
  readonly dtype: Float;
}

export interface PairOptions {
  readonly signal?: AbortSignal;
}

export interface ViltOutput {
  /** [n, 1] of the retrieval head, [n, answers] of the question-answering one */
  readonly logits: Tensor<'float32'>;
  /** [n, D] */
  readonly pooled: Tensor<'float32'>;
  dispose(): void;
}

export interface Answer {
  readonly label: string;
  readonly index: number;
  /** Sigmoid of the answer's logit: answers are judged each by itself. */
  readonly score: number;
}

export interface AnswerOptions extends PairOptions {
  /** 5 by default */
  readonly topK?: number;
}

/** Grids whose positions are kept: the processor of the published models makes 15 of them. */
const kMostGrids = 32;

/**
 * Early fusion: one encoder over the tokens of a text and the patches of a picture.
 *
 * ```
 * texts  ─▶ word + position, norm ─┐
 *                                  ├─ + modality ─▶ [text ; picture] ─▶ encoder ─▶ first row ─▶ pooler ─▶ head
 * images ─▶ patches + position ────┘
 * ```
 *
 * @see Kim et al. 2021
 */
export class ViLT extends PairModel<ViltConfig> {
  readonly #parts: ViltParts;
  readonly #grids = new LruCache<string, Weight<'vector'>>(kMostGrids, (weight) => weight.dispose());

  private constructor(loaded: LoadedPairModel<ViltConfig>, parts: ViltParts) {
    super(loaded, { imageSize: undefined, leastSide: loaded.config.vision.patchSize }, 2 * kMostGrids);
    this.#parts = parts;
  }

  /**
   * Loads a checkpoint in the format of dandelin/vilt-b32-finetuned-coco (retrieval) or dandelin/vilt-b32-finetuned-vqa (question answering).
   *
   * @throws {WarpsightError} ERR_CHECKPOINT, ERR_CONFIG, ERR_TOKENIZER, ERR_DEVICE, ERR_OUT_OF_MEMORY, ERR_ABORTED
   */
  static async fromPretrained(folderOrHubId: string | URL, options: LoadOptions = {}): Promise<ViLT> {
    const { signal, dtype = 'auto', onProgress } = options;
    return withCheckpoint('ViLT.fromPretrained', folderOrHubId, options, viltNaming, async ({ checkpoint, folder, device }) => {
      const config = parseViltConfig(checkpoint.config);
      checkViltTensors(checkpoint.tensors, config);
      const [imageProcessor, tokenizer] = await Promise.all([imageProcessorOf(folder), tokenizerOf(folder, signal)]);
      checkTokenizer(tokenizer, config.text.vocabularySize, folder);
      const stored = checkpoint.tensors.get(kViltTokens)?.stored.dtype;
      const quantization = chooseQuantization(options.quantization, device);
      const loader = new WeightLoader(checkpoint, device, chooseDtype(dtype, device, stored), quantization);
      const parts = await viltParts(config, loader);
      await loader.load({ signal, onProgress });
      const { positions, norm } = parts.text;
      const weights = [...loader.weights, positions, norm.bias];
      return new ViLT({ config, weights, device, dtype: loader.compute, quantization, imageProcessor, tokenizer }, parts);
    });
  }

  /**
   * Each image with the text of the same index.
   *
   * @param images of any size each
   * @param texts as many
   * @throws {WarpsightError} ERR_ARGUMENT, ERR_IMAGE, ERR_SHAPE, ERR_TOKENIZER, ERR_ABORTED, ERR_DISPOSED
   */
  async forward(images: ImageInputs, texts: TextInput, options: PairOptions = {}): Promise<ViltOutput> {
    const { logits, pooled } = await this.#run(images, texts, 'each', options.signal);
    const dispose = () => {
      logits.dispose();
      pooled.dispose();
    };
    return { logits, pooled, dispose };
  }

  /**
   * How well every image and every text go together: logits of the retrieval head, [image][text].
   *
   * @throws {WarpsightError} ERR_CONFIG if the checkpoint has another head; as forward
   */
  async score(images: ImageInputs, texts: TextInput, options: PairOptions = {}): Promise<number[][]> {
    this.#require('retrieval', 'score');
    const { logits, pooled, images: n, texts: m } = await this.#run(images, texts, 'all', options.signal);
    try {
      const all = await logits.read();
      return Array.from({ length: n }, (_, i) => [...all.subarray(i * m, (i + 1) * m)]);
    } finally {
      logits.dispose();
      pooled.dispose();
    }
  }

  /**
   * Answers a question about a picture.
   *
   * @returns the best answers, falling
   * @throws {WarpsightError} ERR_CONFIG if the checkpoint has another head; as forward
   */
  async answer(image: ImageInput, question: TextInput, options: AnswerOptions = {}): Promise<Answer[]> {
    const { labels } = this.#require('answers', 'answer');
    const { topK = 5, signal } = options;
    if (!Number.isInteger(topK) || topK < 1) {
      throw new WarpsightError('ERR_ARGUMENT', `answer: topK must be a whole number of at least 1: it is ${String(topK)}`);
    }
    const { logits, pooled } = await this.#run(image, question, 'each', signal);
    try {
      const values = await logits.read();
      const scores = Array.from(values, (value, index) => ({ label: labels[index]!, index, value }));
      return scores
        .sort((a, b) => b.value - a.value)
        .slice(0, topK)
        .map(({ label, index, value }) => ({ label, index, score: 1 / (1 + Math.exp(-value)) }));
    } finally {
      logits.dispose();
      pooled.dispose();
    }
  }

  /** Plans and runs what a first call with so many pictures would have to: later calls of that size find everything ready. */
  warmup({ batch = 1 }: { readonly batch?: number } = {}): Promise<void> {
    return this.warm(batch, batch);
  }

  override dispose(): void {
    super.dispose();
    this.#grids.clear();
  }

  #require<K extends ViltHead['kind']>(kind: K, call: string): Extract<ViltHead, { kind: K }> {
    this.alive();
    const { head } = this.#parts;
    const isWanted = (given: ViltHead): given is Extract<ViltHead, { kind: K }> => given.kind === kind;
    if (isWanted(head)) return head;
    const names = { retrieval: 'a retrieval head (rank_output)', answers: 'a question-answering head (classifier)' };
    throw new WarpsightError('ERR_CONFIG', `${call}: it needs ${names[kind]}, this checkpoint has ${names[head.kind]}`);
  }

  /** 'each': image i with text i; 'all': every image with every text, in the order of images. */
  async #run(
    images: ImageInputs,
    texts: TextInput,
    which: 'each' | 'all',
    signal: AbortSignal | undefined,
  ): Promise<{ logits: Tensor<'float32'>; pooled: Tensor<'float32'>; images: number; texts: number }> {
    const rows = await this.tokenRows(texts, signal);
    const build = (pixels: Tensor<'float32'>) => this.#imageRows(pixels);
    const runs = await this.images.runs(images, { key: 'rows', build }, signal);
    const parts: (PairPart & { readonly logits: Tensor<'float32'>; readonly pooled: Tensor<'float32'> })[] = [];
    try {
      this.alive();
      const n = runs.reduce((sum, { indices }) => sum + indices.length, 0);
      if (which === 'each' && rows.length !== n) {
        throw new WarpsightError('ERR_ARGUMENT', `${n} images and ${rows.length} texts were given: forward takes pairs`);
      }
      const launch = { bulk: (which === 'each' ? n : n * rows.length) > kInteractivePairs, signal };
      for (const run of runs) {
        const pairs = run.indices.flatMap((index, row): Pair[] => {
          if (which === 'each') return [{ image: row, text: index, at: index }];
          return rows.map((_, text) => ({ image: row, text, at: index * rows.length + text }));
        });
        const T = this.#tokens(run);
        for (const group of groupPairs(pairs, ({ text }) => T + rows[text]!.length, mostRows(this.device))) {
          parts.push({ at: group.map(({ at }) => at), ...this.#runPairs(run, group, rows, launch) });
        }
      }
      const { vision } = this.config;
      const outputs = this.#parts.head.kind === 'retrieval' ? 1 : this.#parts.head.labels.length;
      const logits = await inOrder(parts, ({ logits }) => logits, outputs, this.device);
      const pooled = await inOrder(parts, ({ pooled }) => pooled, vision.hiddenSize, this.device);
      return { logits, pooled, images: n, texts: rows.length };
    } catch (error) {
      for (const { logits, pooled } of parts) for (const tensor of [logits, pooled]) tensor.dispose();
      throw error;
    } finally {
      for (const { result } of runs) result.dispose();
    }
  }

  /** Rows of one picture of a run. */
  #tokens({ height, width }: ImageRun<unknown>): number {
    const { patch } = this.#parts.image;
    return Math.floor(height / patch) * Math.floor(width / patch) + 1;
  }

  /** [n, 3, H, W] to [n·T, D]: patches with the positions of their own grid. */
  #imageRows(pixels: Tensor<'float32'>): Tensor<Float> {
    const { image, dtype } = this.#parts;
    const [, , height, width] = pixels.shape;
    const [rows, columns] = [Math.floor(height! / image.patch), Math.floor(width! / image.patch)];
    const positions = this.#grids.get(`${rows} x ${columns}`, () =>
      Weight.vector(interpolatePositions(image.positions, image.grid, rows, columns), { device: this.device }),
    );
    const { patch, bias, classToken } = image;
    return patchEmbed(pixels, image.weight, { patch, bias, classToken, positions, dtype });
  }

  #runPairs(
    run: ImageRun<Tensor>,
    pairs: readonly Pair[],
    texts: readonly Int32Array[],
    launch: LaunchOptions,
  ): { logits: Tensor<'float32'>; pooled: Tensor<'float32'> } {
    const imageTokens = this.#tokens(run);
    const layout = layOut(pairs, texts, imageTokens);
    const D = this.config.vision.hiddenSize;
    const sizes = {
      T: bucket(layout.ids.length, 64, 2),
      B: bucket(pairs.length, 1, 2),
      F: bucket(run.result.shape[0]!, 64, 2),
      longest: bucket(layout.longest, 64, 2),
    };
    const T = dim('T', sizes.T);
    const B = dim('B', sizes.B);
    const inputs: InputSpec[] = [
      { shape: [dim('F', sizes.F), D], dtype: this.#parts.dtype },
      { shape: [T], dtype: 'int32' },
      { shape: [T], dtype: 'int32' },
      { shape: [T], dtype: 'int32' },
      { shape: [B, kSegmentFields], dtype: 'int32' },
      { shape: [B], dtype: 'int32' },
      { shape: [B, kSegmentFields], dtype: 'int32' },
    ];
    const program = this.programs.get(`pairs ${Object.values(sizes).join(' ')}`, () =>
      openDevice(this.device as DeviceName).compile((features, ...given) => {
        const [ids, positions, index, segments, firstRows, firstSegments] = given as Tensor<'int32'>[];
        return this.#joint(features as Tensor<Float>, {
          ids: ids!,
          positions: positions!,
          index: index!,
          segments: segments!,
          firstRows: firstRows!,
          firstSegments: firstSegments!,
          longest: sizes.longest,
        });
      }, inputs),
    ) as Program<{ logits: Tensor<'float32'>; pooled: Tensor<'float32'> }>;
    const { ids, positions, index, segments, firstRows, firstSegments } = layout;
    return program.launch([run.result, ids, positions, index, segments, firstRows, firstSegments], launch);
  }

  /** @param features [F, D] rows of pictures */
  #joint(features: Tensor<Float>, given: JointInputs): { logits: Tensor<'float32'>; pooled: Tensor<'float32'> } {
    const { text, layers, lastLayer, finalNorm, pooler, dtype } = this.#parts;
    const { ids, positions, index, segments, firstRows, firstSegments, longest } = given;
    const words = norm(embed(ids, text.tokens, { positions, positionTable: text.positions, dtype }), text.norm); // [T, D]
    let x = splice(words, features, index); // [T, D]: for each pair its text, then its picture
    for (const layer of layers) x = encoderLayer(x, layer, { segments, maxQueries: longest, maxKeys: longest });
    const first = { segments: firstSegments, maxQueries: 1, maxKeys: longest };
    const read = norm(toFloat32(pooledLayer(x, lastLayer, firstRows, first)), finalNorm); // [B, D]
    const pooled = linear(read, pooler.weight, { bias: pooler.bias, activation: 'tanh' });
    return { logits: headLogits(pooled, this.#parts.head), pooled };
  }
}

/** Above it a call goes to the lane that lets short calls pass between its steps. */
const kInteractivePairs = 4;

interface JointInputs {
  /** [T] int32; 0 where a picture's row goes */
  readonly ids: Tensor<'int32'>;
  readonly positions: Tensor<'int32'>;
  /** [T] int32: the picture's row that stands here, −1 for a token */
  readonly index: Tensor<'int32'>;
  /** [B, 6] */
  readonly segments: Tensor<'int32'>;
  /** [B] the row of each pair's first token */
  readonly firstRows: Tensor<'int32'>;
  readonly firstSegments: Tensor<'int32'>;
  readonly longest: number;
}

/** Pairs one after the other, the tokens of the text before the rows of the picture. */
function layOut(pairs: readonly Pair[], texts: readonly Int32Array[], imageTokens: number) {
  const total = pairs.reduce((sum, { text }) => sum + texts[text]!.length + imageTokens, 0);
  const ids = new Int32Array(total);
  const positions = new Int32Array(total);
  const index = new Int32Array(total).fill(-1);
  const firstRows: number[] = [];
  const segments: number[] = [];
  const firstSegments: number[] = [];
  let start = 0;
  let longest = 0;
  pairs.forEach(({ image, text }, b) => {
    const tokens = texts[text]!;
    const length = tokens.length + imageTokens;
    ids.set(tokens, start);
    for (let i = 0; i < tokens.length; i++) positions[start + i] = i;
    for (let i = 0; i < imageTokens; i++) index[start + tokens.length + i] = image * imageTokens + i;
    firstRows.push(start);
    segments.push(start, length, start, length, 0, 0);
    firstSegments.push(b, 1, start, length, 0, 0);
    start += length;
    longest = Math.max(longest, length);
  });
  const int32 = (list: readonly number[]) => Int32Array.from(list);
  return {
    ids,
    positions,
    index,
    segments: int32(segments),
    firstRows: int32(firstRows),
    firstSegments: int32(firstSegments),
    longest,
  };
}

/** @param pooled [B, D] */
function headLogits(pooled: Tensor<'float32'>, head: ViltHead): Tensor<'float32'> {
  switch (head.kind) {
    case 'retrieval':
      return linear(pooled, head.linear.weight, { bias: head.linear.bias }); // [B, 1]
    case 'answers': {
      const hidden = norm(linear(pooled, head.fc1.weight, { bias: head.fc1.bias }), head.norm); // [B, 2·D]
      return linear(activate(hidden, 'gelu'), head.fc2.weight, { bias: head.fc2.bias }); // [B, answers]
    }
  }
}
