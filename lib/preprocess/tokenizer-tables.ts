import type { StringTable } from './tokenizer-table';

/** An entry of `added_tokens`: matched in the text before, or after (`normalized`), the normaliser runs. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly single_word: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
  readonly special: boolean;
}

/** A JSON object whose fields only the tokenizer library reads. */
export type Json = Readonly<Record<string, unknown>>;

/** The model of a tokenizer.json without its vocabulary, which is in `TokenizerTables.tokens`. */
export type ModelTables =
  | { readonly kind: 'bpe'; readonly rest: Json; readonly unknown: string | undefined; readonly merges: StringTable }
  | { readonly kind: 'wordpiece'; readonly rest: Json; readonly unknown: string | undefined }
  | {
      readonly kind: 'unigram';
      readonly rest: Json;
      readonly unknown: string;
      /** [largest id + 1], log probability by id */
      readonly scores: Float64Array;
      /** Score of a character that no piece covers. */
      readonly unknownScore: number;
      /** The longest piece, in code points. */
      readonly longestPiece: number;
    };

/** What is done to a text before the tokenizer.json sees it, where a checkpoint leaves that to its Python class. */
export interface Preparation {
  readonly lowercase: boolean;
  /** ASCII punctuation goes, white space becomes single spaces, none at the ends. */
  readonly dropPunctuation: boolean;
}

/** Everything about a tokenizer, in a form that threads share: small JSON, and tables in shared memory. */
export interface TokenizerTables {
  /** Names the tokenizer in messages: its folder. */
  readonly name: string;
  readonly tokens: StringTable;
  /** [largest id + 1], index of the id's token in `tokens`, or -1 where no token has the id */
  readonly tokenOfId: Int32Array;
  readonly model: ModelTables;
  readonly addedTokens: readonly AddedToken[];
  readonly normalizer: Json | null;
  readonly preTokenizer: Json | null;
  readonly postProcessor: Json | null;
  readonly decoder: Json | null;
  /** What the library reads of tokenizer_config.json. */
  readonly config: Json;
  readonly prepare: Preparation;
  /** True if a run of white space means the same as one space. */
  readonly collapsesSpace: boolean;
  /** True if a text longer than `modelMaxLength` is cut without being asked, as CLIP's and SigLIP's are. */
  readonly cuts: boolean;
  /** Infinity where no file says. */
  readonly modelMaxLength: number;
  readonly vocabularySize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly padTokenId: number | undefined;
}
