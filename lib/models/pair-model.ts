import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import type { ImageProcessor } from '../preprocess/image-processor';
import type { Tokenizer } from '../preprocess/tokenizer';
import type { Weight } from '../weight';
import { type ProgramCache, programCache } from './encode-program';
import { ImageRunner } from './image-runner';
import { type TextInput, unpaddedRows } from './token-rows';
import type { TextConfig } from './tower-config';

/** A model as it comes from a folder. */
export interface LoadedPairModel<Config> {
  readonly config: Config;
  readonly weights: readonly Weight[];
  readonly device: string;
  /** Of the activations. */
  readonly dtype: Float;
  readonly imageProcessor: ImageProcessor | undefined;
  readonly tokenizer: Tokenizer | undefined;
}

type PictureOptions = Pick<ImageRunner['options'], 'imageSize' | 'leastSide' | 'rowsOf'>;

/** What models that read images and texts together have in common. */
export abstract class PairModel<Config extends { readonly text: TextConfig }> {
  readonly device: string;
  readonly dtype: Float;
  readonly config: Config;
  readonly tokenizer: Tokenizer | undefined;
  readonly imageProcessor: ImageProcessor | undefined;
  protected readonly programs: ProgramCache;
  protected readonly images: ImageRunner;
  readonly #weights: readonly Weight[];
  #disposed = false;

  /** @param mostPrograms as many sizes as are used in turn */
  protected constructor(loaded: LoadedPairModel<Config>, pictures: PictureOptions, mostPrograms: number) {
    const { config, weights, device, dtype, imageProcessor, tokenizer } = loaded;
    this.config = config;
    this.device = device;
    this.dtype = dtype;
    this.tokenizer = tokenizer;
    this.imageProcessor = imageProcessor;
    this.#weights = weights;
    this.programs = programCache(mostPrograms);
    this.images = new ImageRunner({ ...pictures, device, imageProcessor, programs: this.programs });
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

  /** The ids of each text without the pads behind it. @param padTokenId where the tokenizer names none */
  protected async tokenRows(texts: TextInput, padTokenId: number, signal: AbortSignal | undefined): Promise<Int32Array[]> {
    this.alive();
    const { contextLength, vocabularySize } = this.config.text;
    const { tokenizer } = this;
    const reader = { tokenizer, contextLength, vocabularySize, padTokenId: tokenizer?.padTokenId ?? padTokenId };
    const rows = await unpaddedRows(texts, reader, signal);
    this.alive();
    return rows;
  }

  protected alive(): void {
    if (this.#disposed) throw new WarpsightError('ERR_DISPOSED', 'the model was used after dispose()');
  }
}
