import { WeightLoader } from '../checkpoint/weight-loader';
import { byteSize, type Float, type Quantization } from '../dtype';
import { WarpsightError } from '../errors';
import { type ChatMessage, ChatTemplate, checkMessages } from '../generate/chat-template';
import { endIdsOf } from '../generate/decoding';
import { Generation } from '../generate/generation';
import { type GenerateOptions, generateSettings } from '../generate/options';
import { decoderOf, promptIds, promptText } from '../generate/prompt';
import type { Tokenizer } from '../preprocess/tokenizer';
import type { Tensor } from '../tensor';
import type { Weight } from '../weight';
import type { LoadOptions } from './clip';
import { checkTokenIds, LanguageModel } from './language-model';
import { type LlamaConfig, parseLlamaConfig } from './llama-config';
import { checkLlamaTensors, kTokens, llamaNaming, llamaParts, llamaTensors } from './llama-tensors';
import { checkTokenizer, chooseDtype, chooseQuantization, tokenizerOf, withCheckpoint } from './loading';

const kDefaultCacheTokens = 4096;

export interface GenerativeLoadOptions extends LoadOptions {
  /** Tokens of all generations together whose keys and values are kept. By default the context length, 4096 at most. */
  readonly cacheTokens?: number;
}

export interface LlamaGenerateOptions extends GenerateOptions {
  /** Used as it stands, behind the tokenizer's start mark. */
  readonly prompt?: string;
  /** Goes through the checkpoint's chat template, in place of `prompt`. */
  readonly messages?: readonly ChatMessage[];
  /** Already tokenised, in place of `prompt`. */
  readonly inputIds?: readonly number[] | Int32Array;
}

/**
 * A Llama by itself.
 *
 * @see Touvron et al. 2023
 */
export class Llama {
  readonly device: string;
  readonly config: LlamaConfig;
  readonly tokenizer: Tokenizer | undefined;
  /** What `messages` go through; undefined where the checkpoint has none. */
  readonly chatTemplate: ChatTemplate | undefined;
  readonly #model: LanguageModel;
  readonly #weights: readonly Weight[];
  readonly #endIds: ReadonlySet<number>;
  #disposed = false;

  private constructor(
    model: LanguageModel,
    readonly dtype: Float,
    readonly quantization: Quantization,
    weights: readonly Weight[],
    tokenizer: Tokenizer | undefined,
    chatTemplate: ChatTemplate | undefined,
    endIds: ReadonlySet<number>,
  ) {
    this.#model = model;
    this.#weights = weights;
    this.chatTemplate = chatTemplate;
    this.#endIds = endIds;
    this.device = model.device;
    this.config = model.config;
    this.tokenizer = tokenizer;
  }

  /**
   * Loads a Llama checkpoint in Hugging Face format.
   *
   * @throws {WarpsightError} ERR_CHECKPOINT, ERR_CONFIG, ERR_TOKENIZER, ERR_DEVICE, ERR_OUT_OF_MEMORY, ERR_ABORTED
   */
  static async fromPretrained(folderOrHubId: string | URL, options: GenerativeLoadOptions = {}): Promise<Llama> {
    const { signal, dtype = 'auto', onProgress } = options;
    return withCheckpoint('Llama.fromPretrained', folderOrHubId, options, llamaNaming, async ({ checkpoint, folder, device }) => {
      const config = parseLlamaConfig(checkpoint.config);
      checkLlamaTensors(checkpoint.tensors, llamaTensors(config), config);
      const { tokenizer, chatTemplate, endIds } = await textOf(folder, config, signal);
      const stored = checkpoint.tensors.get(kTokens)?.stored.dtype;
      const quantization = chooseQuantization(options.quantization, device);
      const loader = new WeightLoader(checkpoint, device, chooseDtype(dtype, device, stored), quantization);
      const parts = llamaParts(config, loader);
      await loader.load({ signal, onProgress, besides: cacheBytes(config, loader.activations, options.cacheTokens) });
      const model = new LanguageModel(config, parts, device, cacheTokens(options.cacheTokens, config));
      const weights = [...loader.weights, parts.frequencies];
      return new Llama(model, loader.compute, quantization, weights, tokenizer, chatTemplate, endIds);
    });
  }

  /**
   * @returns logits of every position [1, length, vocabulary]; the caller disposes them
   * @throws {WarpsightError} ERR_ARGUMENT, ERR_DISPOSED
   */
  async forward({ inputIds }: { readonly inputIds: readonly number[] | Int32Array }): Promise<Tensor<'float32'>> {
    this.#alive();
    const ids = checkTokenIds(inputIds, this.config.vocabularySize);
    checkLength(ids.length, this.config);
    const logits = this.#model.forward(ids);
    const result = logits.reshape([1, ids.length, this.config.vocabularySize]);
    logits.dispose();
    return result;
  }

  /**
   * Answers a prompt.
   *
   * @throws {WarpsightError} ERR_ARGUMENT at once for options that can't be; everything later rejects `result`
   */
  generate(options: LlamaGenerateOptions): Generation {
    this.#alive();
    const settings = generateSettings(options);
    const { prompt, messages, inputIds } = options;
    if ([prompt, messages, inputIds].filter((given) => given !== undefined).length !== 1) {
      throw new WarpsightError('ERR_ARGUMENT', 'generate: give prompt, messages or inputIds');
    }
    if (messages) checkMessages(messages);
    const { tokenizer, config } = this;
    const { vocabularySize } = config;
    const given = inputIds && checkTokenIds(inputIds, vocabularySize);
    const reader = { tokenizer, chatTemplate: this.chatTemplate, vocabularySize };
    const { signal } = settings;
    const read = async (): Promise<Int32Array> =>
      given ?? promptIds(prompt ?? (await promptText(messages!, reader, { parts: false, signal })), reader, signal);
    return new Generation(
      async () => ({ ids: await read() }),
      () => {
        this.#alive();
        return { model: this.#model, decode: decoderOf(this.tokenizer), endIds: this.#endIds };
      },
      settings,
    );
  }

  /** Bytes on the device of weights, and of the cache once something is generated. */
  memoryUsage(): { readonly device: string; readonly weights: number; readonly cache: number } {
    this.#alive();
    const weights = this.#weights.reduce((sum, weight) => sum + weight.info.bytes, 0);
    return { device: this.device, weights, cache: this.#model.cacheBytes };
  }

  /** Lets go of weights, cache and programs; generations under way reject with ERR_DISPOSED. Safe again. */
  dispose(): void {
    this.#disposed = true;
    this.#model.dispose();
    for (const weight of this.#weights) weight.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #alive(): void {
    if (this.#disposed) throw new WarpsightError('ERR_DISPOSED', 'the model was used after dispose()');
  }
}

/** @throws {WarpsightError} ERR_ARGUMENT */
export function checkLength(length: number, { contextLength }: LlamaConfig): void {
  if (length <= contextLength) return;
  throw new WarpsightError('ERR_ARGUMENT', `${length} tokens are more than the model's context of ${contextLength}`);
}

/** Bytes of the cache of keys and values. */
export function cacheBytes(config: LlamaConfig, dtype: Float, asked: number | undefined): number {
  const { layers, kvHeads, headWidth } = config;
  return layers * cacheTokens(asked, config) * 2 * kvHeads * headWidth * byteSize(dtype);
}

/** What a language model's checkpoint says beside its weights. */
export async function textOf(
  folder: string,
  config: LlamaConfig,
  signal: AbortSignal | undefined,
): Promise<{ tokenizer: Tokenizer | undefined; chatTemplate: ChatTemplate | undefined; endIds: ReadonlySet<number> }> {
  const [tokenizer, chatTemplate] = await Promise.all([tokenizerOf(folder, signal), ChatTemplate.fromPretrained(folder)]);
  checkTokenizer(tokenizer, config.vocabularySize, folder);
  return { tokenizer, chatTemplate, endIds: await endIdsOf(folder, config.eosTokenIds, tokenizer) };
}

/** @throws {WarpsightError} ERR_ARGUMENT */
export function cacheTokens(asked: number | undefined, { contextLength }: LlamaConfig): number {
  if (asked === undefined) return Math.min(contextLength, kDefaultCacheTokens);
  if (Number.isSafeInteger(asked) && asked >= 1) return asked;
  throw new WarpsightError('ERR_ARGUMENT', `cacheTokens must be a whole number of at least 1: it is ${String(asked)}`);
}
