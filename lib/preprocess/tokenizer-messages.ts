import type { ErrorCode } from '../errors';
import type { TokenizerTables } from './tokenizer-tables';

/** What the worker is asked; each request gets one reply with its number. */
export type Request =
  | { readonly request: number; readonly kind: 'load'; readonly folder: string }
  | {
      readonly request: number;
      readonly kind: 'encode';
      readonly tokenizer: number;
      /** Present the first time that this worker is asked about this tokenizer. */
      readonly tables: TokenizerTables | undefined;
      readonly texts: readonly string[];
      readonly maxLength: number;
    }
  | { readonly request: number; readonly kind: 'release'; readonly tokenizer: number };

export interface LoadReply {
  readonly request: number;
  readonly kind: 'loaded';
  readonly tables: TokenizerTables;
  /** Ids that every text has around its own. */
  readonly frameLength: number;
}

export interface EncodeReply {
  readonly request: number;
  readonly kind: 'encoded';
  /** The ids of all texts, one after the other. */
  readonly ids: Int32Array<ArrayBuffer>;
  /** [texts + 1], text i has ids[ends[i] … ends[i + 1]] */
  readonly ends: Int32Array<ArrayBuffer>;
  /** [texts], 1 where ids were left out */
  readonly truncated: Uint8Array<ArrayBuffer>;
}

export interface ErrorReply {
  readonly request: number;
  readonly kind: 'error';
  readonly code: ErrorCode;
  readonly message: string;
}

export type Reply = LoadReply | EncodeReply | ErrorReply;
