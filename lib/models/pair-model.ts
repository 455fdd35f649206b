import type { Float, Quantization } from '../dtype';
import { WarpsightError } from '../errors';
import type { ImageProcessor } from '../preprocess/image-processor';
import type { Tokenizer } from '../preprocess/tokenizer';
import { Tensor } from '../tensor';
import type { Weight } from '../weight';
import { type ProgramCache, programCache } from './encode-program';
import { type ImageInputs, ImageRunner } from './image-runner';
import { type TextInput, unpaddedRows } from './token-rows';
import type { TextConfig, VisionConfig } from './tower-config';

/** A model as it comes from a folder. */
export interface LoadedPairModel<Config> {
  readonly config: Config;
  readonly weights: readonly Weight[];
  readonly device: string;
  /** That is multiplied in. */
  readonly dtype: Float;
  readonly quantization: Quantization;
  readonly imageProcessor: ImageProcessor | undefined;
  readonly tokenizer: Tokenizer | undefined;
}

type PictureOptions = Pick<ImageRunner['options'], 'imageSize' | 'leastSide' | 'tokens' | 'rowsOf'>;

interface PairConfig {
  readonly vision: VisionConfig;
  /** padTokenId: where the tokenizer names none */
  readonly text: TextConfig & { readonly padTokenId: number };
}

/** What models that read images and texts together have in common. */
export abstract class PairModel<Config extends PairConfig> {
  readonly device: string;
  readonly dtype: Float;
  readonly quantization: Quantization;
  readonly config: Config;
  readonly tokenizer: Tokenizer | undefined;
  readonly imageProcessor: ImageProcessor | undefined;
  protected readonly programs: ProgramCache;
  protected readonly images: ImageRunner;
  readonly #weights: readonly Weight[];
  #disposed = false;

  /** @param mostPrograms as many sizes as are used in turn */
  protected constructor(loaded: LoadedPairModel<Config>, pictures: PictureOptions, mostPrograms: number) {
    const { config, weights, device, dtype, quantization, imageProcessor, tokenizer } = loaded;
    this.config = config;
    this.device = device;
    this.dtype = dtype;
    this.quantization = quantization;
    this.tokenizer = tokenizer;
    this.imageProcessor = imageProcessor;
    this.#weights = weights;
    this.programs = programCache(mostPrograms);
    this.images = new ImageRunner({ ...pictures, device, imageProcessor, programs: this.programs });
  }

  /** As many images as texts, if the model takes pairs. */
  abstract forward(images: ImageInputs, texts: TextInput): Promise<{ dispose(): void }>;

  /** Runs forward once, with pictures of the model's own size. */
  protected async warm(images: number, texts: number): Promise<void> {
    const { imageSize } = this.config.vision;
    const pixels = new Float32Array(images * 3 * imageSize ** 2);
    const id = this.#padTokenId === 0 ? 1 : 0;
    const inputIds = Array.from({ length: texts }, () => [id]);
    const output = await this.forward({ pixels, shape: [images, 3, imageSize, imageSize] }, { inputIds });
    const tensors = Object.values(output).filter((value) => value instanceof Tensor);
    await Promise.all(tensors.map((tensor) => tensor.read()));
    output.dispose();
  }

  /** Bytes on the device that this model's weights take; weights shared with other models count in each. */
  memoryUsage(): { readonly device: string; readonly weights: number } {
    this.alive();
    return { device: this.device, weights: this.#weights.reduce((sum, weight) => sum + weight.info.bytes, 0) };
  }

  /** Lets go of weights and programs; work in flight ends first. Safe again. */
  dispose(): void {
    this.#disposed = true;
    this.programs.clear();
    this.images.dispose();
    for (const weight of this.#weights) weight.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The ids of each text without the pads behind it. */
  protected async tokenRows(texts: TextInput, signal: AbortSignal | undefined): Promise<Int32Array[]> {
    this.alive();
    const { contextLength, vocabularySize } = this.config.text;
    const reader = { tokenizer: this.tokenizer, contextLength, vocabularySize, padTokenId: this.#padTokenId };
    const rows = await unpaddedRows(texts, reader, signal);
    this.alive();
    return rows;
  }

  get #padTokenId(): number {
    return this.tokenizer?.padTokenId ?? this.config.text.padTokenId;
  }

  protected alive(): void {
    if (this.#disposed) throw new WarpsightError('ERR_DISPOSED', 'the model was used after dispose()');
  }
}
