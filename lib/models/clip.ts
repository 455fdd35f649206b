import { type DeviceName, device as openDevice } from '../device';
import type { Float, Quantization } from '../dtype';
import { WarpsightError } from '../errors';
import type { Linear } from '../nn/encoder-layer';
import { cast, l2Normalize, linear, scaledLogits, zeroShotHead } from '../ops';
import type { ImageProcessor } from '../preprocess/image-processor';
import { kSegmentFields, type TextBatchPlan } from '../preprocess/text-batch';
import type { Tokenizer } from '../preprocess/tokenizer';
import { dim, type InputSpec, type LaunchOptions, type ProgramResult } from '../program';
import type { Tensor } from '../tensor';
import { Weight } from '../weight';
import type { ClipModelConfig } from './clip-config';
import { bucket, mostRows, type ProgramCache, programCache, toFloat32 } from './encode-program';
import { type ImageInputs, ImageRunner, joinRows } from './image-runner';
import { loadClip } from './load-clip';
import { type TextEncoder, type TextInputs, TextTransformer } from './text-encoder';
import { type TextInput, tokenRows } from './token-rows';
import type { VisionEncoder } from './vision-encoder';

/** Where a checkpoint comes from and how it runs. */
export interface LoadOptions {
  /** 'auto' (default): CUDA where it can be used, else the CPU; `model.device` says which. */
  readonly device?: DeviceName;
  /**
   * Arithmetic of activations. 'auto' (default): float32 on the CPU; on CUDA the checkpoint's own 16-bit type, float16 if it is float32.
   *
   * On the CPU 'bfloat16' rounds both operands of the weights' products, sums them in float32 and keeps everything else in float32: weights take two
   * bytes a number. Faster with AMX or AMD's AVX512-BF16, about as fast as float32 with other AVX-512; without AVX-512 loading fails with ERR_DTYPE.
   */
  readonly dtype?: 'auto' | Float;
  /**
   * What matrices are kept as: 'none' (default): their stored type; 'int8': one byte a number, on the CPU, which is smaller and faster at some
   * accuracy. Embeddings, norms, attention and last projections stay as they are.
   */
  readonly quantization?: Quantization;
  readonly onProgress?: (progress: { readonly file: string; readonly loaded: number; readonly total: number }) => void;
  readonly signal?: AbortSignal;
  readonly revision?: string;
  readonly cacheDir?: string;
  readonly localFilesOnly?: boolean;
}

export interface EncodeOptions {
  /** Rows of unit length. false by default */
  readonly normalize?: boolean;
  readonly signal?: AbortSignal;
}

/** What a CLIP is composed of. */
export interface ClipComposition {
  readonly visionEncoder: VisionEncoder;
  readonly textEncoder: TextEncoder;
  /** [projectionDim, width]; without it the encoder's features are the embedding. */
  readonly visionProjection?: Linear | Weight<'matrix'> | undefined;
  readonly textProjection?: Linear | Weight<'matrix'> | undefined;
  /** As checkpoints store it, before exp(). */
  readonly logitScale: number;
  /** Given: SigLIP's form, each pair judged by itself with a sigmoid. */
  readonly logitBias?: number | undefined;
  /** For pictures; without it only pre-processed pixels are taken. */
  readonly imageProcessor?: ImageProcessor | undefined;
  /** For strings; without it only ids are taken. */
  readonly tokenizer?: Tokenizer | undefined;
  /** 'cpu' by default: where the weights are. */
  readonly device?: string | undefined;
  readonly dtype?: Float | undefined;
  /** What its matrices are kept as; 'none' by default. */
  readonly quantization?: Quantization | undefined;
  readonly config?: ClipModelConfig | undefined;
}

export interface ClipOutput {
  /** [n, m]: exp(scale)·cos (+ bias) */
  readonly logitsPerImage: Tensor<'float32'>;
  /** [m, n] */
  readonly logitsPerText: Tensor<'float32'>;
  /** [n, d], unit rows */
  readonly imageEmbeds: Tensor<'float32'>;
  /** [m, d], unit rows */
  readonly textEmbeds: Tensor<'float32'>;
  dispose(): void;
}

/** Texts that are tried as one run; where their rows are too many they are halved. */
const kMostTexts = 256;
/** Above it a call goes to the lane that lets short calls pass between its steps. */
const kInteractiveTokens = 512;

/**
 * Images and texts in one space.
 *
 * ```
 * images ─▶ visionEncoder ─▶ visionProjection ─▶ L2 norm ─┐
 *                                                         ├─▶ exp(logitScale)·I·Tᵀ
 * texts  ─▶ textEncoder   ─▶ textProjection   ─▶ L2 norm ─┘
 * ```
 *
 * @see Radford et al. 2021, figure 3
 */
export class CLIP {
  readonly device: string;
  readonly dtype: Float;
  readonly quantization: Quantization;
  /** What the checkpoint's config.json says; undefined for a composition of one's own. */
  readonly config: ClipModelConfig | undefined;
  /** d, the width of embeddings */
  readonly projectionDim: number;
  readonly logitScale: number;
  /** SigLIP's learned bias; its presence makes scores sigmoids. */
  readonly logitBias: number | undefined;
  readonly tokenizer: Tokenizer | undefined;
  readonly imageProcessor: ImageProcessor | undefined;
  readonly #vision: VisionEncoder;
  readonly #text: TextEncoder;
  readonly #visionProjection: Linear | undefined;
  readonly #textProjection: Linear | undefined;
  readonly #programs: ProgramCache = programCache();
  readonly #images: ImageRunner;
  #weights: readonly Weight[] = [];
  #disposed = false;

  constructor(composition: ClipComposition) {
    const { visionEncoder, textEncoder, visionProjection, textProjection, logitScale, logitBias } = checkParts(composition);
    this.#vision = visionEncoder;
    this.#text = textEncoder;
    this.#visionProjection = asLinear(visionProjection);
    this.#textProjection = asLinear(textProjection);
    this.device = composition.device ?? this.#visionProjection?.weight.device ?? 'cpu';
    this.dtype = composition.dtype ?? 'float32';
    this.quantization = composition.quantization ?? 'none';
    this.config = composition.config;
    this.tokenizer = composition.tokenizer;
    this.imageProcessor = composition.imageProcessor;
    this.logitScale = checkScale(logitScale);
    this.logitBias = checkBias(logitBias);
    const widths = [
      this.#visionProjection?.weight.shape[0] ?? visionEncoder.width,
      this.#textProjection?.weight.shape[0] ?? textEncoder.width,
    ];
    if (widths[0] !== widths[1]) {
      throw new WarpsightError(
        'ERR_SHAPE',
        `CLIP: images are projected to ${widths[0]} numbers, texts to ${widths[1]}: they must be as many`,
      );
    }
    this.projectionDim = widths[0]!;
    this.#images = new ImageRunner({
      device: this.device,
      imageSize: visionEncoder.imageSize,
      tokens: visionEncoder.tokens,
      rowsOf: (image) => [visionEncoder.pooledRow(image)],
      imageProcessor: this.imageProcessor,
      programs: this.#programs,
    });
  }

  /**
   * Loads a CLIP or SigLIP checkpoint in Hugging Face format: a folder, or 'org/name' from the Hugging Face cache. Without an argument: the small
   * model that ships with the package.
   *
   * @throws {WarpsightError} ERR_CHECKPOINT, ERR_CONFIG, ERR_TOKENIZER, ERR_DEVICE, ERR_OUT_OF_MEMORY, ERR_ABORTED
   */
  static async fromPretrained(folderOrHubId?: string | URL, options: LoadOptions = {}): Promise<CLIP> {
    const { composition, weights } = await loadClip(folderOrHubId, options);
    const clip = new CLIP(composition);
    clip.#weights = weights;
    return clip;
  }

  /**
   * @param images one or an array of paths, file URLs, encoded bytes, raw pixels, or pre-processed `{ pixels, shape }`
   * @returns [n, projectionDim]; the caller disposes it
   * @throws {WarpsightError} ERR_IMAGE, ERR_SHAPE, ERR_ABORTED, ERR_DISPOSED
   */
  async encodeImage(images: ImageInputs, options: EncodeOptions = {}): Promise<Tensor<'float32'>> {
    const { normalize = false, signal } = options;
    const head: ImageHead<Tensor<'float32'>> = {
      key: normalize ? 'unit' : 'plain',
      build: (features) => (normalize ? l2Normalize(features) : features),
    };
    const parts = await this.#runImages(images, head, signal);
    return joinRows(parts, this.projectionDim, this.device);
  }

  /**
   * @param texts strings, or ids
   * @returns [m, projectionDim]; the caller disposes it
   * @throws {WarpsightError} ERR_TOKENIZER, ERR_ARGUMENT, ERR_ABORTED, ERR_DISPOSED
   */
  async encodeText(texts: TextInput, options: EncodeOptions = {}): Promise<Tensor<'float32'>> {
    const { normalize = false, signal } = options;
    this.#alive();
    const { contextLength, vocabularySize } = this.#text;
    const rows = await tokenRows(texts, { contextLength, vocabularySize, tokenizer: this.tokenizer }, signal);
    this.#alive();
    const plans = this.#layouts(rows);
    const tokens = plans.reduce((sum, { ids }) => sum + ids.length, 0);
    const launch = { bulk: tokens > kInteractiveTokens, signal };
    const parts = plans.map((plan) => this.#runText(plan, normalize, launch));
    return joinRows(parts, this.projectionDim, this.device);
  }

  /**
   * Every image with every text.
   *
   * @throws {WarpsightError} as encodeImage and encodeText
   */
  async forward(images: ImageInputs, texts: TextInput, options: Pick<EncodeOptions, 'signal'> = {}): Promise<ClipOutput> {
    const [imageEmbeds, textEmbeds] = await both(
      this.encodeImage(images, { ...options, normalize: true }),
      this.encodeText(texts, { ...options, normalize: true }),
    );
    const bias = { bias: this.logitBias ?? 0, unit: true };
    const logitsPerImage = scaledLogits(imageEmbeds, textEmbeds, this.logitScale, bias);
    const logitsPerText = scaledLogits(textEmbeds, imageEmbeds, this.logitScale, bias);
    const output = { logitsPerImage, logitsPerText, imageEmbeds, textEmbeds };
    return {
      ...output,
      dispose: () => {
        for (const tensor of Object.values(output)) tensor.dispose();
      },
    };
  }

  /** The cosine of every image with every text, as numbers: [image][text]. */
  async similarity(images: ImageInputs, texts: TextInput, options: Pick<EncodeOptions, 'signal'> = {}): Promise<number[][]> {
    const [imageEmbeds, textEmbeds] = await both(
      this.encodeImage(images, { ...options, normalize: true }),
      this.encodeText(texts, { ...options, normalize: true }),
    );
    const cosines = scaledLogits(imageEmbeds, textEmbeds, 0, { unit: true });
    try {
      return (await cosines.rows()).map((row) => [...row]);
    } finally {
      for (const tensor of [imageEmbeds, textEmbeds, cosines]) tensor.dispose();
    }
  }

  /**
   * @internal The k best classes of each image, in one native call from pictures to scores.
   * @param classes [C, d] unit rows, in the model's dtype; @param key tells apart programs that captured other classes
   */
  async rankClasses(
    images: ImageInputs,
    classes: Tensor<Float>,
    key: string,
    k: number,
    signal?: AbortSignal,
  ): Promise<RankedClasses[]> {
    const { logitScale, logitBias } = this;
    const head: ImageHead<{ scores: Tensor<'float32'>; indices: Tensor<'int32'> }> = {
      key: `rank ${key} ${k}`,
      build: (features) => bestClasses(features, classes, logitScale, { k, logitBias }),
    };
    const parts = await this.#runImages(images, head, signal);
    try {
      const ranked: RankedClasses[] = [];
      for (const { scores, indices } of parts) {
        const [scoreRows, indexRows] = await Promise.all([scores.rows(), indices.rows()]);
        scoreRows.forEach((row, i) => {
          ranked.push({ scores: row, indices: indexRows[i]! });
        });
      }
      return ranked;
    } finally {
      for (const { scores, indices } of parts) {
        scores.dispose();
        indices.dispose();
      }
    }
  }

  /** Plans and runs what a first call of this batch size would have to: later calls find everything ready. */
  async warmup({ batch = 1 }: { readonly batch?: number } = {}): Promise<void> {
    const size = this.#vision.imageSize;
    const shape = [batch, 3, size, size] as const;
    const image = await this.encodeImage({ pixels: new Float32Array(batch * 3 * size * size), shape });
    const ids = Int32Array.from({ length: 2 }, () => 0);
    if (this.#text instanceof TextTransformer) ids[1] = endMark(this.#text);
    const text = await this.encodeText({ inputIds: [ids] });
    await Promise.all([image.read(), text.read()]);
    image.dispose();
    text.dispose();
  }

  /** Bytes on the device that this model's weights take; weights shared with other models count in each. */
  memoryUsage(): { readonly device: string; readonly weights: number } {
    this.#alive();
    return { device: this.device, weights: this.#weights.reduce((sum, weight) => sum + weight.info.bytes, 0) };
  }

  /** Lets go of weights and programs; work in flight ends first. Safe again. */
  dispose(): void {
    this.#disposed = true;
    this.#programs.clear();
    for (const weight of this.#weights) weight.dispose();
    this.#images.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  // ── images ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #runImages<R extends ProgramResult>(images: ImageInputs, head: ImageHead<R>, signal: AbortSignal | undefined): Promise<R[]> {
    const build = (pixels: Tensor<'float32'>, pooledRows: Tensor<'int32'>) => head.build(this.#imageFeatures(pixels, pooledRows));
    return this.#images.run(images, { key: head.key, build }, signal);
  }

  #imageFeatures(pixels: Tensor<'float32'>, pooledRows: Tensor<'int32'>): Tensor<'float32'> {
    const features = this.#vision.forward(pixels, pooledRows); // [n, D]
    return project(features, this.#visionProjection); // [n, d]
  }

  // ── texts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Texts in runs of not too many rows, padding and shared prefixes considered. */
  #layouts(texts: readonly Int32Array[]): TextBatchPlan[] {
    const halves = (some: readonly Int32Array[]): TextBatchPlan[] => {
      const plan = this.#text.layout(some);
      if (plan.ids.length <= mostRows(this.device) || some.length === 1) return [plan];
      const middle = Math.ceil(some.length / 2);
      return [...halves(some.slice(0, middle)), ...halves(some.slice(middle))];
    };
    const plans: TextBatchPlan[] = [];
    for (let i = 0; i < texts.length; i += kMostTexts) plans.push(...halves(texts.slice(i, i + kMostTexts)));
    return plans;
  }

  #runText(plan: TextBatchPlan, normalize: boolean, launch: LaunchOptions): Tensor<'float32'> {
    const { ids, positions, segments, lastRows, lastSegments } = plan;
    const T = dim('T', bucket(ids.length, 16, 2));
    const S = dim('S', bucket(segments.length / kSegmentFields, 1, 4));
    const B = dim('B', bucket(lastRows.length, 1, 4));
    const inputs: InputSpec[] = [
      { shape: [T], dtype: 'int32' },
      { shape: [T], dtype: 'int32' },
      { shape: [S, kSegmentFields], dtype: 'int32' },
      { shape: [B], dtype: 'int32' },
      { shape: [B, kSegmentFields], dtype: 'int32' },
    ];
    const key = `text ${normalize} ${T.max} ${S.max} ${B.max}`;
    const program = this.#program(key, inputs, (...given) => {
      const [tokenIds, tokenPositions, sequences, rows, lastSequences] = given as Tensor<'int32'>[];
      const batch: TextInputs = {
        ids: tokenIds!,
        positions: tokenPositions!,
        segments: sequences!,
        lastRows: rows!,
        lastSegments: lastSequences!,
      };
      const features = project(this.#text.forward(batch), this.#textProjection); // [B, d]
      return normalize ? l2Normalize(features) : features;
    });
    return program.launch([ids, positions, segments, lastRows, lastSegments], launch) as Tensor<'float32'>;
  }

  // ── both ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #program(key: string, inputs: readonly InputSpec[], build: (...inputs: Tensor[]) => ProgramResult) {
    return this.#programs.get(key, () => openDevice(this.device as DeviceName).compile(build, inputs));
  }

  #alive(): void {
    if (this.#disposed) throw new WarpsightError('ERR_DISPOSED', 'the model was used after dispose()');
  }
}

/** Scores of the best classes, falling, and which classes they are. */
export interface RankedClasses {
  readonly scores: Float32Array;
  readonly indices: Int32Array;
}

/** What is done with image features in the same program. */
interface ImageHead<R extends ProgramResult> {
  /** Tells programs with other heads apart. */
  readonly key: string;
  build(features: Tensor<'float32'>): R;
}

function asLinear(projection: Linear | Weight<'matrix'> | undefined): Linear | undefined {
  return projection instanceof Weight ? { weight: projection } : projection;
}

/** In float32 whatever the encoder's dtype: a few rows, and logits are differences of their products. */
function project(features: Tensor<Float>, projection: Linear | undefined): Tensor<'float32'> {
  const x = toFloat32(features);
  return projection ? linear(x, projection.weight, { bias: projection.bias }) : x;
}

function checkScale(logitScale: number): number {
  if (typeof logitScale !== 'number' || !Number.isFinite(Math.fround(Math.exp(logitScale)))) {
    throw new WarpsightError(
      'ERR_CONFIG',
      `logit_scale is ${logitScale}: exp(logit_scale) must be a finite float32; a trained one is about ln 100 = 4.6`,
    );
  }
  return logitScale;
}

function checkBias(logitBias: number | undefined): number | undefined {
  if (logitBias === undefined || Number.isFinite(logitBias)) return logitBias;
  throw new WarpsightError('ERR_CONFIG', `logit_bias is ${logitBias}: it must be a finite number`);
}

/** From JavaScript anything may come. */
function checkParts(composition: ClipComposition): ClipComposition {
  const given = typeof composition === 'object' && composition !== null ? composition : {};
  for (const name of ['visionEncoder', 'textEncoder'] as const) {
    const part = name in given ? composition[name] : undefined;
    if (typeof part === 'object' && part !== null && typeof part.forward === 'function') continue;
    throw new WarpsightError(
      'ERR_ARGUMENT',
      `CLIP: ${name} must be an encoder with forward(): it is ${part === null ? 'null' : typeof part}`,
    );
  }
  return composition;
}

function endMark({ eosTokenId, vocabularySize }: { eosTokenId: number; vocabularySize: number }): number {
  return eosTokenId === 2 ? vocabularySize - 1 : eosTokenId;
}

/** Both values; where one fails the other is disposed. */
async function both(
  a: Promise<Tensor<'float32'>>,
  b: Promise<Tensor<'float32'>>,
): Promise<[Tensor<'float32'>, Tensor<'float32'>]> {
  const [first, second] = await Promise.allSettled([a, b]);
  if (first.status === 'fulfilled' && second.status === 'fulfilled') return [first.value, second.value];
  if (first.status === 'fulfilled') first.value.dispose();
  if (second.status === 'fulfilled') second.value.dispose();
  throw first.status === 'rejected' ? first.reason : (second as PromiseRejectedResult).reason;
}

/** SigLIP checkpoints, by the same class: sigmoid scores, attention pooling, padded texts. */
export { CLIP as SigLIP };

/** @internal The k best of classes [C, d], unit rows of the model's dtype, for each image's features [n, d]. */
export function bestClasses(
  features: Tensor<'float32'>,
  classes: Tensor<Float>,
  logitScale: number,
  { k, logitBias }: { readonly k: number; readonly logitBias?: number | undefined },
): { scores: Tensor<'float32'>; indices: Tensor<'int32'> } {
  const unit = classes.dtype === 'float32'; // 16 bits round the length
  const x = unit ? features : cast(l2Normalize(features), classes.dtype);
  return zeroShotHead(x, classes, logitScale, { k, unit, sigmoid: logitBias !== undefined, bias: logitBias ?? 0 });
}
