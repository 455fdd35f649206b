import { WarpsightError } from '../errors';
import type { Tokenizer } from '../preprocess/tokenizer';

/** Already tokenised: rows of any length, end mark included, padding allowed. */
export interface TokenIds {
  readonly inputIds: readonly (readonly number[] | Int32Array)[];
}

export type TextInput = string | readonly string[] | TokenIds;

/** What a model reads texts with. */
export interface TextReader {
  /** For strings; without it only ids are taken. */
  readonly tokenizer: Tokenizer | undefined;
  /** Strings are cut to so many tokens, their marks included. */
  readonly contextLength: number;
  readonly vocabularySize: number;
}

/**
 * The ids of each text.
 *
 * @throws {WarpsightError} ERR_ARGUMENT, ERR_TOKENIZER for strings where there is no tokenizer, ERR_ABORTED
 */
export async function tokenRows(texts: TextInput, reader: TextReader, signal: AbortSignal | undefined): Promise<Int32Array[]> {
  const { tokenizer, contextLength, vocabularySize } = reader;
  if (isTokenIds(texts)) {
    if (!Array.isArray(texts.inputIds)) throw new WarpsightError('ERR_ARGUMENT', 'inputIds must be an array of arrays of ids');
    return texts.inputIds.map((row, i) => checkIds(row, i, vocabularySize));
  }
  const list = typeof texts === 'string' ? [texts] : texts;
  if (!Array.isArray(list))
    throw new WarpsightError(
      'ERR_ARGUMENT',
      `texts must be a string, an array of strings, or { inputIds }: it is ${typeof texts}`,
    );
  if (!tokenizer) throw new WarpsightError('ERR_TOKENIZER', 'this model has no tokenizer files: pass { inputIds }');
  const batch = await tokenizer.encodeBatch(list, { maxLength: contextLength, ...(signal && { signal }) });
  return batch.ids;
}

/**
 * The same without the pads behind each text, for encoders that don't see them.
 *
 * @throws {WarpsightError} as tokenRows; ERR_ARGUMENT also for a text of pads alone, or of more tokens than the model reads
 */
export async function unpaddedRows(
  texts: TextInput,
  reader: TextReader & { readonly padTokenId: number },
  signal: AbortSignal | undefined,
): Promise<Int32Array[]> {
  const { padTokenId, contextLength } = reader;
  return (await tokenRows(texts, reader, signal)).map((row, i) => {
    const length = row.findLastIndex((id) => id !== padTokenId) + 1;
    if (length === 0) throw new WarpsightError('ERR_ARGUMENT', `text ${i} has no tokens but pads (id ${padTokenId})`);
    if (length > contextLength) {
      throw new WarpsightError('ERR_ARGUMENT', `text ${i} has ${length} tokens, the model reads at most ${contextLength}`);
    }
    return row.subarray(0, length);
  });
}

function isTokenIds(texts: TextInput): texts is TokenIds {
  return typeof texts === 'object' && texts !== null && 'inputIds' in texts;
}

function checkIds(row: readonly number[] | Int32Array, index: number, vocabularySize: number): Int32Array {
  const ids = Array.isArray(row) || ArrayBuffer.isView(row) ? (row as readonly number[]) : [];
  if (ids.length === 0) throw new WarpsightError('ERR_ARGUMENT', `inputIds[${index}] must be an array of at least one id`);
  for (const id of ids) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabularySize) {
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `inputIds[${index}] holds ${id}: ids are whole numbers from 0 to ${vocabularySize - 1}`,
      );
    }
  }
  return Int32Array.from(ids);
}
