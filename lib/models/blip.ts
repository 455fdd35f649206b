import { WeightLoader } from '../checkpoint/weight-loader';
import { type DeviceName, device as openDevice } from '../device';
import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import { type EncoderLayer, encoderLayer, type LayerNorm, type Linear, norm } from '../nn/encoder-layer';
import {
  type Context,
  type PooledPostNormLayer,
  type PostNormLayer,
  pooledPostNormLayer,
  postNormLayer,
} from '../nn/post-norm-layer';
import { cast, embed, gatherRows, l2Normalize, linear, patchEmbed, scaledLogits } from '../ops';
import { kSegmentFields } from '../preprocess/text-batch';
import { dim, type InputSpec, type LaunchOptions, type Program } from '../program';
import { scope, Tensor } from '../tensor';
import type { Weight } from '../weight';
import { type BlipConfig, parseBlipConfig } from './blip-config';
import { blipNaming, blipParts, checkBlipTensors, kBlipPatches, tokensOf } from './blip-tensors';
import type { EncodeOptions, LoadOptions } from './clip';
import { bucket, mostRows, toFloat32 } from './encode-program';
import { type ImageInputs, joinRows } from './image-runner';
import { checkTokenizer, chooseDtype, chooseQuantization, imageProcessorOf, tokenizerOf, withCheckpoint } from './loading';
import { type LoadedPairModel, PairModel } from './pair-model';
import { groupPairs, inOrder, type Pair, type PairPart } from './pairs';
import type { TextInput } from './token-rows';
import type { PairOptions } from './vilt';
import type { PatchEmbedding } from './vision-encoder';

/** What a BLIP is composed of. */
export interface BlipParts {
  readonly vision: {
    readonly embedding: PatchEmbedding;
    readonly layers: readonly EncoderLayer[];
    readonly postNorm: LayerNorm;
  };
  readonly text: {
    readonly tokens: Weight<'table'>;
    readonly positions: Weight<'table'>;
    readonly norm: LayerNorm;
    readonly layers: readonly PostNormLayer[];
    readonly lastLayer: PooledPostNormLayer;
  };
  /** [d, width of the vision tower] */
  readonly visionProjection: Linear;
  /** [d, D] */
  readonly textProjection: Linear;
  /** [2, D]: they don't match, they do */
  readonly matchingHead: Linear;
  /** Dtype of the activations. */
  readonly dtype: Float;
}

export interface BlipOutput {
  /** [n, m, 2]: they don't match, they do */
  readonly itmLogits: Tensor<'float32'>;
  /** [n, m] cosines of the embeddings */
  readonly itcCosine: Tensor<'float32'>;
  /** [n, d], unit rows */
  readonly imageEmbeds: Tensor<'float32'>;
  /** [m, d], unit rows */
  readonly textEmbeds: Tensor<'float32'>;
  dispose(): void;
}

/** Pictures, or what {@link BlipImageTextMatching.imageFeatures} made of them: [n, rows of a picture, width]. */
export type BlipImages = ImageInputs | Tensor<'float32'>;

/** Above it a call goes to the lane that lets short calls pass between its steps. */
const kInteractiveRows = 512;

/**
 * Mid fusion: a text encoder whose layers attend to the features of a picture; and two embeddings, for retrieval.
 *
 * ```
 * images ─▶ vision tower ─▶ features ──────┬──▶ first row ─▶ projection ─▶ L2 norm ─┐
 *                                          │ keys, values                           ├─▶ cosine
 * texts  ─▶ text encoder ─▶ first row ─────│──────────────▶ projection ─▶ L2 norm ──┘
 * texts  ─▶ text encoder with cross-attention ─▶ first row ─▶ matching head
 * ```
 *
 * @see Li et al. 2022
 */
export class BlipImageTextMatching extends PairModel<BlipConfig> {
  readonly #parts: BlipParts;
  /** Rows of a picture. */
  readonly #tokens: number;

  private constructor(loaded: LoadedPairModel<BlipConfig>, parts: BlipParts) {
    const { config } = loaded;
    const tokens = tokensOf(config);
    // the class token's row
    super(loaded, { imageSize: config.vision.imageSize, tokens, rowsOf: (image) => [image * tokens] }, 16);
    this.#parts = parts;
    this.#tokens = tokens;
  }

  /**
   * Loads a checkpoint in the format of Salesforce/blip-itm-base-coco.
   *
   * @throws {WarpsightError} ERR_CHECKPOINT, ERR_CONFIG, ERR_TOKENIZER, ERR_DEVICE, ERR_OUT_OF_MEMORY, ERR_ABORTED
   */
  static async fromPretrained(folderOrHubId: string | URL, options: LoadOptions = {}): Promise<BlipImageTextMatching> {
    const { signal, dtype = 'auto', onProgress } = options;
    const what = 'BlipImageTextMatching.fromPretrained';
    return withCheckpoint(what, folderOrHubId, options, blipNaming, async ({ checkpoint, folder, device }) => {
      const config = parseBlipConfig(checkpoint.config);
      checkBlipTensors(checkpoint.tensors, config);
      const [imageProcessor, tokenizer] = await Promise.all([imageProcessorOf(folder), tokenizerOf(folder, signal)]);
      checkTokenizer(tokenizer, config.text.vocabularySize, folder);
      const stored = checkpoint.tensors.get(kBlipPatches)?.stored.dtype;
      const quantization = chooseQuantization(options.quantization, device);
      const loader = new WeightLoader(checkpoint, device, chooseDtype(dtype, device, stored), quantization);
      const parts = blipParts(config, loader);
      await loader.load({ signal, onProgress });
      const { weights } = loader;
      return new BlipImageTextMatching(
        { config, weights, device, dtype: loader.compute, quantization, imageProcessor, tokenizer },
        parts,
      );
    });
  }

  /** d, the width of embeddings */
  get projectionDim(): number {
    return this.config.projectionDim;
  }

  /**
   * What retrieval compares.
   *
   * @returns [n, projectionDim]; the caller disposes it
   * @throws {WarpsightError} ERR_IMAGE, ERR_SHAPE, ERR_ABORTED, ERR_DISPOSED
   */
  async encodeImage(images: BlipImages, options: EncodeOptions = {}): Promise<Tensor<'float32'>> {
    this.alive();
    const { normalize = false, signal } = options;
    if (images instanceof Tensor) return scope(() => this.#embedOf(this.#rowsOf(images), normalize));
    const build = (pixels: Tensor<'float32'>, first: Tensor<'int32'>) =>
      this.#imageEmbeds(gatherRows(this.#vision(pixels), first), normalize);
    const parts = await this.images.run(images, { key: `embeds ${normalize}`, build }, signal);
    return joinRows(parts, this.projectionDim, this.device);
  }

  /**
   * @returns [m, projectionDim]; the caller disposes it
   * @throws {WarpsightError} ERR_TOKENIZER, ERR_ARGUMENT, ERR_ABORTED, ERR_DISPOSED
   */
  async encodeText(texts: TextInput, options: EncodeOptions = {}): Promise<Tensor<'float32'>> {
    const { normalize = false, signal } = options;
    const rows = await this.tokenRows(texts, signal);
    return this.#encodeRows(rows, normalize, signal);
  }

  /**
   * Features of pictures that {@link match} and {@link forward} take in their place: they are computed once, however many texts come.
   *
   * @returns [n, rows of a picture, width]; the caller disposes it
   * @throws {WarpsightError} ERR_IMAGE, ERR_SHAPE, ERR_ABORTED, ERR_DISPOSED
   */
  async imageFeatures(images: ImageInputs, options: PairOptions = {}): Promise<Tensor<'float32'>> {
    this.alive();
    const { hiddenSize } = this.config.vision;
    const build = (pixels: Tensor<'float32'>) => toFloat32(this.#vision(pixels));
    const parts = await this.images.run(images, { key: 'features', build }, options.signal);
    const rows = await joinRows(parts, hiddenSize, this.device);
    const result = rows.reshape([rows.shape[0]! / this.#tokens, this.#tokens, hiddenSize]);
    rows.dispose();
    return result;
  }

  /**
   * Every image with every text, by both heads.
   *
   * @throws {WarpsightError} as encodeImage and encodeText
   */
  async forward(images: BlipImages, texts: TextInput, options: PairOptions = {}): Promise<BlipOutput> {
    const { signal } = options;
    const rows = await this.tokenRows(texts, signal);
    const features = images instanceof Tensor ? images : await this.imageFeatures(images, options);
    const made: Tensor[] = images instanceof Tensor ? [] : [features];
    try {
      const [n, m] = [features.shape[0]!, rows.length];
      const imageEmbeds = scope(() => this.#embedOf(this.#rowsOf(features), true));
      made.push(imageEmbeds);
      const textEmbeds = await this.#encodeRows(rows, true, signal);
      made.push(textEmbeds);
      const logits = await this.#matchAll(features, rows, signal);
      made.push(logits);
      const itmLogits = logits.reshape([n, m, 2]);
      const itcCosine = scaledLogits(imageEmbeds, textEmbeds, 0, { unit: true });
      logits.dispose();
      if (features !== images) features.dispose();
      const output = { itmLogits, itcCosine, imageEmbeds, textEmbeds };
      const dispose = () => {
        for (const tensor of Object.values(output)) tensor.dispose();
      };
      return { ...output, dispose };
    } catch (error) {
      for (const tensor of made) tensor.dispose();
      throw error;
    }
  }

  /**
   * The probability that they match, for every image with every text: [image][text].
   *
   * @throws {WarpsightError} as encodeImage and encodeText
   */
  async match(images: BlipImages, texts: TextInput, options: PairOptions = {}): Promise<number[][]> {
    const { signal } = options;
    const rows = await this.tokenRows(texts, signal);
    const features = images instanceof Tensor ? images : await this.imageFeatures(images, options);
    try {
      const logits = await this.#matchAll(features, rows, signal);
      try {
        const all = await logits.read();
        const probability = (pair: number) => 1 / (1 + Math.exp(all[2 * pair]! - all[2 * pair + 1]!)); // softmax of two
        return Array.from({ length: features.shape[0]! }, (_, i) => rows.map((_, j) => probability(i * rows.length + j)));
      } finally {
        logits.dispose();
      }
    } finally {
      if (features !== images) features.dispose();
    }
  }

  /** Plans and runs what a first call with so many pictures would have to: later calls of that size find everything ready. */
  warmup({ batch = 1 }: { readonly batch?: number } = {}): Promise<void> {
    return this.warm(batch, 1);
  }

  // ── images ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** [n, 3, R, R] to [n·T, Dv] */
  #vision(pixels: Tensor<'float32'>): Tensor<Float> {
    const { embedding, layers, postNorm } = this.#parts.vision;
    const T = this.#tokens;
    let x = patchEmbed(pixels, embedding.weight, { ...embedding, dtype: this.#parts.dtype });
    for (const layer of layers) x = encoderLayer(x, layer, { maxQueries: T, maxKeys: T });
    return norm(x, postNorm);
  }

  /** @param first [n, Dv] the class tokens' rows @returns [n, d] */
  #imageEmbeds(first: Tensor<Float>, normalize: boolean): Tensor<'float32'> {
    const { visionProjection } = this.#parts;
    const embeds = linear(toFloat32(first), visionProjection.weight, { bias: visionProjection.bias });
    return normalize ? l2Normalize(embeds) : embeds;
  }

  /** @param rows [n·T, Dv] */
  #embedOf(rows: Tensor<'float32'>, normalize: boolean): Tensor<'float32'> {
    const T = this.#tokens;
    const first = Int32Array.from({ length: rows.shape[0]! / T }, (_, i) => i * T);
    return this.#imageEmbeds(gatherRows(rows, Tensor.from(first, [first.length], { device: this.device })), normalize);
  }

  /** Features of a caller, [n, T, Dv], as rows. */
  #rowsOf(features: Tensor<'float32'>): Tensor<'float32'> {
    const { hiddenSize } = this.config.vision;
    const [n, tokens, width] = features.shape;
    if (features.shape.length !== 3 || tokens !== this.#tokens || width !== hiddenSize || features.dtype !== 'float32') {
      const given = `[${features.shape.join(', ')}] ${features.dtype}`;
      throw new WarpsightError('ERR_SHAPE', `features must be [n, ${this.#tokens}, ${hiddenSize}] float32: they are ${given}`);
    }
    if (features.device !== this.device) {
      throw new WarpsightError('ERR_DEVICE', `the features are on ${features.device}, the model is on ${this.device}`);
    }
    return features.reshape([n! * this.#tokens, hiddenSize]);
  }

  // ── texts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** [m, d] of texts by themselves. */
  async #encodeRows(
    rows: readonly Int32Array[],
    normalize: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Tensor<'float32'>> {
    const pairs = rows.map((_, text): Pair => ({ image: 0, text, at: text }));
    const bulk = rows.reduce((sum, { length }) => sum + length, 0) > kInteractiveRows;
    const parts: Tensor<'float32'>[] = [];
    for (const group of groupPairs(pairs, ({ text }) => rows[text]!.length, mostRows(this.device))) {
      const { inputs, arrays, key, longest } = textInputs(group, rows);
      const program = this.#program(`text ${normalize} ${key}`, inputs, (...given) => {
        const { textProjection } = this.#parts;
        const features = this.#text(given as Tensor<'int32'>[], longest, undefined);
        const embeds = linear(features, textProjection.weight, { bias: textProjection.bias });
        return normalize ? l2Normalize(embeds) : embeds;
      });
      parts.push(program.launch(arrays, { bulk, signal }));
    }
    return joinRows(parts, this.projectionDim, this.device);
  }

  // ── both ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Every image with every text.
   *
   * @param features [n, T, Dv]
   * @returns [n·m, 2] logits, in the order of images
   */
  async #matchAll(
    features: Tensor<'float32'>,
    texts: readonly Int32Array[],
    signal: AbortSignal | undefined,
  ): Promise<Tensor<'float32'>> {
    const parts: (PairPart & { readonly logits: Tensor<'float32'> })[] = [];
    const all = this.#rowsOf(features);
    try {
      const n = features.shape[0]!;
      const most = mostRows(this.device);
      const imagesPerRun = Math.max(1, Math.floor(most / this.#tokens));
      const launch = { bulk: n * texts.length * this.#tokens > kInteractiveRows, signal };
      for (let start = 0; start < n; start += imagesPerRun) {
        const count = Math.min(imagesPerRun, n - start);
        const pairs = Array.from({ length: count }, (_, image) =>
          texts.map((_, text): Pair => ({ image, text, at: (start + image) * texts.length + text })),
        ).flat();
        const rows = scope(() => this.#slice(all, start, count));
        for (const group of groupPairs(pairs, ({ text }) => texts[text]!.length, most)) {
          parts.push({ at: group.map(({ at }) => at), logits: this.#matchPairs(rows, group, texts, launch) });
        }
        rows.dispose();
      }
      return await inOrder(parts, ({ logits }) => logits, 2, this.device);
    } catch (error) {
      for (const { logits } of parts) logits.dispose();
      throw error;
    } finally {
      all.dispose();
    }
  }

  /** The rows of `count` pictures from `start` on, in the dtype of the activations. */
  #slice(rows: Tensor<'float32'>, start: number, count: number): Tensor<Float> {
    const T = this.#tokens;
    const { dtype } = this.#parts;
    const whole = count * T === rows.shape[0];
    const index = Int32Array.from({ length: whole ? 0 : count * T }, (_, i) => start * T + i);
    const some = whole ? rows.reshape(rows.shape) : gatherRows(rows, Tensor.from(index, [index.length], { device: this.device }));
    return dtype === 'float32' ? some : cast(some, dtype);
  }

  /** @param rows [F, Dv] @returns [B, 2] */
  #matchPairs(
    rows: Tensor<Float>,
    pairs: readonly Pair[],
    texts: readonly Int32Array[],
    launch: LaunchOptions,
  ): Tensor<'float32'> {
    const { inputs, arrays, key, longest } = textInputs(pairs, texts);
    const { hiddenSize } = this.config.vision;
    const T = this.#tokens;
    const F = dim('F', bucket(rows.shape[0]! / T, 1, 2), T);
    const B = dim('B', bucket(pairs.length, 1, 2));
    const all: InputSpec[] = [
      { shape: [F, hiddenSize], dtype: this.#parts.dtype },
      { shape: [B, kSegmentFields], dtype: 'int32' },
      { shape: [B, kSegmentFields], dtype: 'int32' },
      ...inputs,
    ];
    const program = this.#program(`match ${F.max} ${key}`, all, (context, segments, firstSegments, ...text) => {
      const { matchingHead } = this.#parts;
      const first = this.#text(text as Tensor<'int32'>[], longest, {
        rows: context as Tensor<Float>,
        segments: segments as Tensor<'int32'>,
        firstSegments: firstSegments as Tensor<'int32'>,
      });
      return linear(first, matchingHead.weight, { bias: matchingHead.bias });
    });
    let start = 0;
    const segments: number[] = [];
    const firstSegments: number[] = [];
    pairs.forEach(({ image, text }, b) => {
      const { length } = texts[text]!;
      segments.push(start, length, image * T, T, 0, 0);
      firstSegments.push(b, 1, image * T, T, 0, 0);
      start += length;
    });
    return program.launch([rows, Int32Array.from(segments), Int32Array.from(firstSegments), ...arrays], launch);
  }

  /**
   * The first row of each text behind the encoder, in float32.
   *
   * @param given as `textInputs` lists them
   * @param longest of the texts
   * @param context pictures that the texts attend to
   * @returns [B, D]
   */
  #text(given: readonly Tensor<'int32'>[], longest: number, context: PictureContext | undefined): Tensor<'float32'> {
    const { tokens, positions: positionTable, norm: embeddingNorm, layers, lastLayer } = this.#parts.text;
    const [ids, positions, segments, firstRows, firstSegments] = given;
    const pictures = (sequences: Tensor<'int32'>, maxQueries: number): Context<Float> | undefined =>
      context && { rows: context.rows, sequences: { segments: sequences, maxQueries, maxKeys: this.#tokens } };
    let x = norm(embed(ids!, tokens, { positions: positions!, positionTable, dtype: this.#parts.dtype }), embeddingNorm); // [R, D]
    const every = context && pictures(context.segments, longest);
    for (const layer of layers)
      x = postNormLayer(x, layer, { segments: segments!, maxQueries: longest, maxKeys: longest }, every);
    const first = { segments: firstSegments!, maxQueries: 1, maxKeys: longest };
    return toFloat32(pooledPostNormLayer(x, lastLayer, firstRows!, first, context && pictures(context.firstSegments, 1)));
  }

  #program(key: string, inputs: readonly InputSpec[], build: (...inputs: Tensor[]) => Tensor<'float32'>) {
    const make = () => openDevice(this.device as DeviceName).compile(build, inputs);
    return this.programs.get(key, make) as Program<Tensor<'float32'>>;
  }
}

/** Pictures that texts attend to, inside a program. */
interface PictureContext {
  /** [F, Dv] */
  readonly rows: Tensor<Float>;
  /** [B, 6]: the rows of each text, and of its picture */
  readonly segments: Tensor<'int32'>;
  /** The same for the first rows alone. */
  readonly firstSegments: Tensor<'int32'>;
}

/** A text for each pair, one after the other: inputs of a program in the order ids, positions, segments, first rows, their segments. */
function textInputs(pairs: readonly Pair[], texts: readonly Int32Array[]) {
  const total = pairs.reduce((sum, { text }) => sum + texts[text]!.length, 0);
  const ids = new Int32Array(total);
  const positions = new Int32Array(total);
  const segments: number[] = [];
  const firstRows: number[] = [];
  const firstSegments: number[] = [];
  let start = 0;
  let longest = 0;
  pairs.forEach(({ text }, b) => {
    const tokens = texts[text]!;
    const { length } = tokens;
    ids.set(tokens, start);
    for (let i = 0; i < length; i++) positions[start + i] = i;
    segments.push(start, length, start, length, 0, 0);
    firstRows.push(start);
    firstSegments.push(b, 1, start, length, 0, 0);
    start += length;
    longest = Math.max(longest, length);
  });
  const sizes = { T: bucket(total, 16, 2), B: bucket(pairs.length, 1, 2), longest: bucket(longest, 16, 2) };
  const T = dim('T', sizes.T);
  const B = dim('B', sizes.B);
  const inputs: InputSpec[] = [
    { shape: [T], dtype: 'int32' },
    { shape: [T], dtype: 'int32' },
    { shape: [B, kSegmentFields], dtype: 'int32' },
    { shape: [B], dtype: 'int32' },
    { shape: [B, kSegmentFields], dtype: 'int32' },
  ];
  const arrays = [ids, positions, Int32Array.from(segments), Int32Array.from(firstRows), Int32Array.from(firstSegments)];
  return { inputs, arrays, key: Object.values(sizes).join(' '), longest: sizes.longest };
}
