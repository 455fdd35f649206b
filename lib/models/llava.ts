import { WeightLoader } from '../checkpoint/weight-loader';
import type { Float, Quantization } from '../dtype';
import { WarpsightError } from '../errors';
import { type ChatMessage, type ChatTemplate, checkMessages } from '../generate/chat-template';
import { Generation, type Prompt } from '../generate/generation';
import { type GenerateOptions, generateSettings } from '../generate/options';
import { decoderOf, type PromptReader, promptIds, promptText } from '../generate/prompt';
import type { Linear } from '../nn/encoder-layer';
import { type Activation, cast, linear } from '../ops';
import type { ImageProcessor } from '../preprocess/image-processor';
import type { PixelTensor } from '../preprocess/image-source';
import type { Tokenizer } from '../preprocess/tokenizer';
import type { Tensor } from '../tensor';
import type { Weight } from '../weight';
import { programCache, toFloat32 } from './encode-program';
import { type ImageInputs, ImageRunner, joinRows } from './image-runner';
import { checkTokenIds, LanguageModel, type LanguageParts, type SplicedFeatures } from './language-model';
import { cacheBytes, cacheTokens, checkLength, type GenerativeLoadOptions, textOf } from './llama';
import type { LlamaConfig } from './llama-config';
import { checkLlamaTensors, kTokens, llamaNaming, llamaParts, llamaTensors } from './llama-tensors';
import { type LlavaConfig, parseLlavaConfig } from './llava-config';
import { llavaTensors, llavaVisionParts } from './llava-tensors';
import { chooseDtype, chooseQuantization, imageProcessorOf, withCheckpoint } from './loading';
import type { FeatureEncoder } from './vision-encoder';

export interface LlavaGenerateOptions extends GenerateOptions {
  /** Used as it stands, with one `<image>` for each picture. */
  readonly prompt?: string;
  /** Goes through the checkpoint's chat template, in place of `prompt`. */
  readonly messages?: readonly ChatMessage[];
  readonly images?: ImageInputs;
}

/** Features of the vision tower to the language model's width. */
export interface Projector {
  readonly linear1: Linear;
  readonly activation: Activation;
  readonly linear2: Linear;
}

/** What a LLaVA is composed of. */
export interface LlavaComposition {
  readonly visionTower: FeatureEncoder;
  readonly projector: Projector;
  /** The config's sizes; its `tied`, biases and `dtype` say how a file is read and are of no matter here. */
  readonly llm: { readonly config: LlamaConfig; readonly parts: LanguageParts };
  /** Stands for a picture in a prompt. */
  readonly imageTokenId: number;
  /** 'cpu' by default: where the weights are. */
  readonly device?: string | undefined;
  readonly cacheTokens?: number | undefined;
  readonly imageProcessor?: ImageProcessor | undefined;
  readonly tokenizer?: Tokenizer | undefined;
  readonly chatTemplate?: ChatTemplate | undefined;
  readonly endIds?: ReadonlySet<number> | undefined;
  /** What its matrices are kept as; 'none' by default. */
  readonly quantization?: Quantization | undefined;
  /** What the weights are multiplied in, where that is not the dtype of the activations. */
  readonly dtype?: Float | undefined;
  readonly config?: LlavaConfig | undefined;
}

export interface LlavaInputs {
  /** Image marks repeated for each row of features. */
  readonly inputIds: number[];
  /** [1, length, hidden]: what goes into the language model's first layer */
  readonly inputEmbeds: Tensor<'float32'>;
}

/**
 * Pictures and text to text.
 *
 * ```
 * images ─▶ vision tower ─▶ projector ─┐
 *                                      ├─▶ spliced into the token embeddings ─▶ Llama ─▶ text
 * prompt ─▶ tokens ────────────────────┘
 * ```
 *
 * @see Liu et al. 2023, "Visual Instruction Tuning", and 2024, "Improved Baselines"
 */
export class LLaVA {
  readonly device: string;
  readonly dtype: Float;
  readonly quantization: Quantization;
  /** What the checkpoint's config.json says; undefined for a composition of one's own. */
  readonly config: LlavaConfig | undefined;
  readonly tokenizer: Tokenizer | undefined;
  /** What `messages` go through; undefined where the checkpoint has none. */
  readonly chatTemplate: ChatTemplate | undefined;
  readonly #vision: FeatureEncoder;
  readonly #projector: Projector;
  readonly #language: LanguageModel;
  readonly #images: ImageRunner;
  readonly #programs = programCache();
  readonly #imageTokenId: number;
  readonly #endIds: ReadonlySet<number>;
  #weights: readonly Weight[] = [];
  #disposed = false;

  constructor(composition: LlavaComposition) {
    const { visionTower, projector, llm, imageTokenId, device = llm.parts.tokens.device } = composition;
    const widths = [
      projector.linear1.weight.shape[1],
      visionTower.width,
      projector.linear2.weight.shape[0],
      llm.config.hiddenSize,
    ];
    if (widths[0] !== widths[1] || widths[2] !== widths[3]) {
      throw new WarpsightError(
        'ERR_SHAPE',
        `LLaVA: the vision tower gives ${widths[1]} numbers and the language model takes ${widths[3]}; the projector goes from ${widths[0]} to ${widths[2]}`,
      );
    }
    this.device = device;
    this.dtype = composition.dtype ?? llm.parts.dtype;
    this.quantization = composition.quantization ?? 'none';
    this.config = composition.config;
    this.tokenizer = composition.tokenizer;
    this.#vision = visionTower;
    this.#projector = projector;
    this.#imageTokenId = imageTokenId;
    this.chatTemplate = composition.chatTemplate;
    this.#endIds = composition.endIds ?? new Set(llm.config.eosTokenIds);
    this.#language = new LanguageModel(llm.config, llm.parts, device, cacheTokens(composition.cacheTokens, llm.config));
    this.#images = new ImageRunner({
      device,
      imageSize: visionTower.imageSize,
      tokens: visionTower.rowsPerImage,
      rowsOf: (image) => visionTower.rowsOf(image),
      imageProcessor: composition.imageProcessor,
      programs: this.#programs,
    });
  }

  /**
   * Loads a checkpoint in the format of llava-hf/llava-1.5-7b-hf.
   *
   * @throws {WarpsightError} ERR_CHECKPOINT, ERR_CONFIG, ERR_TOKENIZER, ERR_DEVICE, ERR_OUT_OF_MEMORY, ERR_ABORTED
   */
  static async fromPretrained(folderOrHubId: string | URL, options: GenerativeLoadOptions = {}): Promise<LLaVA> {
    const { signal, dtype: asked = 'auto', onProgress } = options;
    return withCheckpoint('LLaVA.fromPretrained', folderOrHubId, options, llamaNaming, async ({ checkpoint, folder, device }) => {
      const config = parseLlavaConfig(checkpoint.config);
      checkLlamaTensors(checkpoint.tensors, [...llavaTensors(config), ...llamaTensors(config.text)], config.text);
      const [imageProcessor, text] = await Promise.all([imageProcessorOf(folder), textOf(folder, config.text, signal)]);
      const stored = checkpoint.tensors.get(kTokens)?.stored.dtype;
      const quantization = chooseQuantization(options.quantization, device);
      const loader = new WeightLoader(checkpoint, device, chooseDtype(asked, device, stored), quantization);
      const parts = { ...llavaVisionParts(config, loader), llm: { config: config.text, parts: llamaParts(config.text, loader) } };
      await loader.load({ signal, onProgress, besides: cacheBytes(config.text, loader.activations, options.cacheTokens) });
      const { imageTokenId } = config;
      const { cacheTokens } = options;
      const kind = { device, dtype: loader.compute, quantization };
      const llava = new LLaVA({ ...parts, ...text, ...kind, imageTokenId, cacheTokens, imageProcessor, config });
      llava.#weights = [...loader.weights, parts.llm.parts.frequencies];
      return llava;
    });
  }

  /**
   * Pictures as the language model sees them.
   *
   * @returns [n, rows of a picture, hidden]; the caller disposes it
   * @throws {WarpsightError} ERR_IMAGE, ERR_SHAPE, ERR_ABORTED, ERR_DISPOSED
   */
  async encodeImage(images: ImageInputs, options: { readonly signal?: AbortSignal } = {}): Promise<Tensor<'float32'>> {
    this.#alive();
    const rows = await this.#encode(images, options.signal);
    const { rowsPerImage } = this.#vision;
    const { hiddenSize } = this.#language.config;
    const result = rows.reshape([rows.shape[0]! / rowsPerImage, rowsPerImage, hiddenSize]);
    rows.dispose();
    return result;
  }

  /**
   * A prompt with its pictures, as the language model reads it.
   *
   * @param prompt with one `<image>` for each picture, or as many as rows of features
   * @throws {WarpsightError} ERR_ARGUMENT if there are more or fewer; as encodeImage
   */
  async prepareInputs(images: ImageInputs | undefined, prompt: string): Promise<LlavaInputs> {
    this.#alive();
    const { ids, spliced } = await this.#prompt(images, await promptIds(prompt, this.#reader, undefined), undefined);
    const embeds = this.#language.embeds(ids, spliced);
    spliced?.features.dispose();
    const inputEmbeds = embeds.reshape([1, ...embeds.shape]);
    embeds.dispose();
    return { inputIds: [...ids], inputEmbeds };
  }

  /**
   * @param input inputIds: image marks repeated for each row of features; pixels: pre-processed, [n, 3, R, R]
   * @returns logits of every position [1, length, vocabulary]
   */
  async forward(input: {
    readonly inputIds: readonly number[] | Int32Array;
    readonly pixels?: PixelTensor;
  }): Promise<Tensor<'float32'>> {
    this.#alive();
    const { config } = this.#language;
    const ids = checkTokenIds(input.inputIds, config.vocabularySize);
    checkLength(ids.length, config);
    const prompt = await this.#prompt(input.pixels, ids, undefined);
    const logits = this.#language.forward(prompt.ids, prompt.spliced);
    prompt.spliced?.features.dispose();
    const result = logits.reshape([1, ...logits.shape]);
    logits.dispose();
    return result;
  }

  /**
   * Answers a question about pictures, or about none.
   *
   * @throws {WarpsightError} ERR_ARGUMENT at once for options that can't be; everything later rejects `result`
   */
  generate(options: LlavaGenerateOptions): Generation {
    this.#alive();
    const settings = generateSettings(options);
    const { prompt, messages, images } = options;
    if ((prompt === undefined) === (messages === undefined)) {
      throw new WarpsightError('ERR_ARGUMENT', 'generate: give prompt or messages');
    }
    if (messages) checkMessages(messages);
    const { signal } = settings;
    return new Generation(
      async () => {
        const text = prompt ?? (await promptText(messages!, this.#reader, { parts: true, signal }));
        return this.#prompt(images, await promptIds(text, this.#reader, signal), signal);
      },
      () => {
        this.#alive();
        return { model: this.#language, decode: decoderOf(this.tokenizer), endIds: this.#endIds };
      },
      settings,
    );
  }

  /** Bytes on the device of weights, and of the cache once something is generated. */
  memoryUsage(): { readonly device: string; readonly weights: number; readonly cache: number } {
    this.#alive();
    const weights = this.#weights.reduce((sum, weight) => sum + weight.info.bytes, 0);
    return { device: this.device, weights, cache: this.#language.cacheBytes };
  }

  /** Lets go of weights, cache and programs; generations under way reject with ERR_DISPOSED. Safe again. */
  dispose(): void {
    this.#disposed = true;
    this.#programs.clear();
    this.#images.dispose();
    this.#language.dispose();
    for (const weight of this.#weights) weight.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** [n·rows, hidden] */
  async #encode(images: ImageInputs, signal: AbortSignal | undefined): Promise<Tensor<'float32'>> {
    const { linear1, activation, linear2 } = this.#projector;
    const build = (pixels: Tensor<'float32'>, rows: Tensor<'int32'>) => {
      const inner = linear(this.#vision.forward(pixels, rows), linear1.weight, { bias: linear1.bias, activation });
      return toFloat32(linear(inner, linear2.weight, { bias: linear2.bias }));
    };
    const parts = await this.#images.run(images, { key: 'project', build }, signal);
    return joinRows(parts, this.#language.config.hiddenSize, this.device);
  }

  get #reader(): PromptReader {
    return {
      tokenizer: this.tokenizer,
      chatTemplate: this.chatTemplate,
      vocabularySize: this.#language.config.vocabularySize,
    };
  }

  /** Image marks repeated for each row of features, and the features that stand in their place. */
  async #prompt(images: ImageInputs | undefined, ids: Int32Array, signal: AbortSignal | undefined): Promise<Prompt> {
    const none = images === undefined || (Array.isArray(images) && images.length === 0);
    const marks = ids.filter((id) => id === this.#imageTokenId).length;
    if (none) {
      if (marks > 0) throw new WarpsightError('ERR_ARGUMENT', `the prompt has ${marks} image marks, no pictures were given`);
      return { ids };
    }
    const rows = await this.#encode(images, signal);
    const { rowsPerImage } = this.#vision;
    const count = rows.shape[0]! / rowsPerImage;
    if (marks !== count && marks !== count * rowsPerImage) {
      rows.dispose();
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `the prompt has ${marks} image marks, ${count} pictures were given: one mark for each is needed, or all ${count * rowsPerImage}`,
      );
    }
    const repeated = marks === count && rowsPerImage > 1 ? repeatMarks(ids, this.#imageTokenId, rowsPerImage) : ids;
    let next = 0;
    const index = repeated.map((id) => (id === this.#imageTokenId ? next++ : -1));
    const { dtype } = this.#language.parts;
    const features: Tensor<Float> = dtype === 'float32' ? rows : cast(rows, dtype);
    if (features !== rows) rows.dispose();
    const spliced: SplicedFeatures = { features, index };
    return { ids: repeated, spliced };
  }

  #alive(): void {
    if (this.#disposed) throw new WarpsightError('ERR_DISPOSED', 'the model was used after dispose()');
  }
}

function repeatMarks(ids: Int32Array, mark: number, times: number): Int32Array {
  return Int32Array.from([...ids].flatMap((id) => (id === mark ? Array<number>(times).fill(mark) : [id])));
}
