import { folderPath } from '../checkpoint/folder-path';
import { abortError, WarpsightError } from '../errors';
import { kLongestText, TokenizerEngine } from './tokenizer-engine';
import { parseTokenizer } from './tokenizer-parse';
import type { TokenizerTables } from './tokenizer-tables';
import { releaseTokenizer, tokenizerThread } from './tokenizer-thread';

/** One message to the worker carries at most so many texts, and UTF-16 units, that packing and unpacking take well below 1 ms. */
const kTextsPerMessage = 1024;
const kUnitsPerMessage = 65_536;

export interface EncodeBatchOptions {
  /** Ids per text at most, start and end marks included. Default: `modelMaxLength` where the model cuts, as CLIP and SigLIP do. */
  readonly maxLength?: number;
  /** Rejects at once; what the worker still computes is dropped. */
  readonly signal?: AbortSignal;
}

export interface TextBatch {
  /** One row for each text, start and end marks included, not padded. Rows may be views of one buffer. */
  readonly ids: Int32Array[];
  /** True where the text was longer than `maxLength` and ids before the end mark were left out. */
  readonly truncated: boolean[];
}

// The library's code is compiled when it first runs, which takes some milliseconds; here that belongs to the start of the program.
new TokenizerEngine(
  parseTokenizer('none', {
    tokenizer: undefined,
    vocab: { a: 0, 'a</w>': 1, 'aa</w>': 2, '<|startoftext|>': 3, '<|endoftext|>': 4 },
    merges: 'a a</w>',
    vocabText: undefined,
    tokenizerConfig: undefined,
    specialTokens: undefined,
    addedTokens: undefined,
    model: undefined,
  }),
).encode('aa', 77);

let lastNumber = 0;
const released = new FinalizationRegistry<number>(releaseTokenizer);

/**
 * Text to ids and back, as the tokenizer.json of a checkpoint says, or CLIP's vocab.json + merges.txt, or BERT's vocab.txt.
 *
 * Files are read and vocabularies built in a worker thread; the tables lie in shared memory, so that `encode` works on the
 * calling thread without a copy of them, and `encodeBatch` in the worker.
 *
 * @example
 * const tokenizer = await Tokenizer.fromPretrained(folder);
 * tokenizer.encode('a photo of a cat'); // [49406, 320, 1125, 539, 320, 2368, 49407]
 */
export class Tokenizer {
  readonly #tables: TokenizerTables;
  readonly #frameLength: number;
  /** Names it to the worker. */
  readonly #number = ++lastNumber;
  #engine: TokenizerEngine | undefined;

  private constructor(tables: TokenizerTables, frameLength: number) {
    this.#tables = tables;
    this.#frameLength = frameLength;
    released.register(this, this.#number);
  }

  /**
   * @param folder path or file: URL of a Hugging Face checkpoint folder
   * @throws {WarpsightError} ERR_TOKENIZER with the file and the place in it, ERR_ABORTED, ERR_ARGUMENT
   */
  static async fromPretrained(folder: string | URL, options: { readonly signal?: AbortSignal } = {}): Promise<Tokenizer> {
    const path = folderPath('Tokenizer.fromPretrained', folder);
    const { tables, frameLength } = await tokenizerThread().load(path, options.signal);
    return new Tokenizer(tables, frameLength);
  }

  /** The number of tokens, the added ones included. */
  get vocabularySize(): number {
    return this.#tables.vocabularySize;
  }

  /** The largest id that `encode` may give: a model needs more than so many rows in its token embedding. */
  get largestId(): number {
    return this.#tables.tokenOfId.length - 1;
  }

  /** Whether a token has this id: a model's vocabulary may be larger, and have holes. */
  hasId(id: number): boolean {
    return (this.#tables.tokenOfId[id] ?? -1) >= 0;
  }

  /** The most ids that the model takes for one text; Infinity where no file says. */
  get modelMaxLength(): number {
    return this.#tables.modelMaxLength;
  }

  get bosTokenId(): number | undefined {
    return this.#tables.bosTokenId;
  }

  get eosTokenId(): number | undefined {
    return this.#tables.eosTokenId;
  }

  get padTokenId(): number | undefined {
    return this.#tables.padTokenId;
  }

  /**
   * One text, on the calling thread: for CLIP and SigLIP never more than a few milliseconds, however long the text. Use
   * `encodeBatch` for many.
   *
   * A text longer than CLIP's or SigLIP's `modelMaxLength` loses its tail; the end mark stays. Other tokenizers cut nothing.
   * A lone surrogate counts as U+FFFD.
   *
   * @returns ids with start and end marks, not padded
   * @throws {WarpsightError} ERR_ARGUMENT if it is no string
   */
  encode(text: string): number[] {
    if (typeof text !== 'string') throw notText('encode: the text', text);
    return this.#use().encode(text, this.#defaultLength()).ids;
  }

  /** @throws {WarpsightError} ERR_ARGUMENT for an id that no token has */
  decode(ids: ArrayLike<number>, options: { readonly skipSpecialTokens?: boolean } = {}): string {
    return this.#use().decode(Array.from(ids), options.skipSpecialTokens ?? true);
  }

  /**
   * Many texts, in the worker; the same ids as `encode` gives for each.
   *
   * @throws {WarpsightError} ERR_ARGUMENT, ERR_ABORTED, ERR_TOKENIZER if the worker dies (the next call starts another)
   */
  async encodeBatch(texts: readonly string[], options: EncodeBatchOptions = {}): Promise<TextBatch> {
    if (!Array.isArray(texts)) throw notText('encodeBatch: texts', texts, 'an array of strings');
    const { maxLength = this.#defaultLength(), signal } = options;
    const least = this.#frameLength;
    if (maxLength !== Number.POSITIVE_INFINITY && !(Number.isInteger(maxLength) && maxLength >= least)) {
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `encodeBatch: maxLength must be an integer of at least ${least}, for start and end marks, it is ${String(maxLength)}`,
      );
    }
    if (signal?.aborted) throw abortError(signal);
    const batch: TextBatch = { ids: [], truncated: [] };
    for (let next = 0; next < texts.length; ) {
      const message = takeTexts(texts, next, maxLength);
      const { ids, ends, truncated } = await tokenizerThread().encode(this.#number, this.#tables, message, maxLength, signal);
      for (let i = 0; i < message.length; i++) {
        batch.ids.push(ids.subarray(ends[i], ends[i + 1]));
        batch.truncated.push(truncated[i] === 1);
      }
      next += message.length;
    }
    return batch;
  }

  #use(): TokenizerEngine {
    this.#engine ??= new TokenizerEngine(this.#tables);
    return this.#engine;
  }

  #defaultLength(): number {
    return this.#tables.cuts ? this.#tables.modelMaxLength : Number.POSITIVE_INFINITY;
  }
}

/** The texts from `first` on that go into one message: one at least. */
function takeTexts(texts: readonly unknown[], first: number, maxLength: number): string[] {
  const taken: string[] = [];
  let units = 0;
  for (let i = first; i < texts.length && taken.length < kTextsPerMessage; i++) {
    const text = texts[i];
    if (typeof text !== 'string') throw notText(`encodeBatch: texts[${i}]`, text);
    const read = maxLength === Number.POSITIVE_INFINITY ? text : text.slice(0, kLongestText);
    units += read.length;
    if (taken.length > 0 && units > kUnitsPerMessage) break;
    taken.push(read);
  }
  return taken;
}

function notText(what: string, value: unknown, expected = 'a string'): WarpsightError {
  const type = typeof value;
  const known =
    value === undefined || value === null || type === 'boolean' ? String(value) : `${type === 'object' ? 'an' : 'a'} ${type}`;
  const given = type === 'string' ? JSON.stringify(value) : known;
  return new WarpsightError('ERR_ARGUMENT', `${what} must be ${expected}, it is ${given}`);
}
