import { WarpsightError } from '../errors';

/** Int32 numbers per segment in `TextBatchPlan.segments`. */
export const kSegmentFields = 6;

/**
 * How a batch of texts is laid out for a text tower: T rows of tokens, computed as S segments that attend apart from each other.
 *
 * A segment is [qStart, qCount, kStart, kCount, prefixStart, prefixCount], all in rows. Its queries are the rows qStart …
 * qStart + qCount − 1; they attend to the prefix rows and to the segment's own rows kStart … kStart + kCount − 1. In a causal
 * tower query i sees the whole prefix and the own rows 0 … i + kCount − qCount; in a bidirectional one it sees all of them.
 */
export interface TextBatchPlan {
  /** [T] the token of each row */
  readonly ids: Int32Array;
  /** [T] the row of the positional embedding that is added to it */
  readonly positions: Int32Array;
  /** [S, 6] */
  readonly segments: Int32Array;
  /** [B] the row that stands for text b: its end mark, or the last position where texts are padded */
  readonly lastRows: Int32Array;
  /** [B, 6] segments for the last layer, where only the rows `lastRows`, gathered to rows 0 … B − 1, are queries: qStart b, qCount 1 */
  readonly lastSegments: Int32Array;
  /** The most queries, and keys with the prefix, of one segment. */
  readonly maxQueries: number;
  readonly maxKeys: number;
}

/**
 * Lays texts out for a causal tower, without padding. Equal texts are computed once; with `sharePrefix` the tokens that all
 * texts begin with (`a photo of a`) are too. Each text keeps its last token as a row of its own.
 *
 * @param rows B texts, each cut after its end mark: what stands behind it can't reach it
 * @param options.sharePrefix false lays out each text by itself, twice if it is there twice
 * @throws {WarpsightError} ERR_ARGUMENT if there is no text, or an empty one
 */
export function planTextBatch(rows: readonly Int32Array[], options: { readonly sharePrefix: boolean }): TextBatchPlan {
  requireTexts('planTextBatch', rows);
  const { unique, indexOf } = options.sharePrefix ? uniqueRows(rows) : { unique: rows, indexOf: rows.map((_, b) => b) };
  const prefix = options.sharePrefix && unique.length > 1 ? commonPrefix(unique) : 0;

  const layout = new Layout(unique.reduce((sum, row) => sum + row.length - prefix, prefix));
  if (prefix > 0) layout.add(unique[0]!.subarray(0, prefix), 0, 0);
  const starts = unique.map((row) => layout.add(row.subarray(prefix), prefix, prefix));
  return layout.finish(indexOf.map((u) => [starts[u]!, unique[u]!.length - prefix, prefix]));
}

/**
 * Lays texts out for a bidirectional tower that was trained with its padding, as SigLIP's: every text is padded to
 * `contextLength`, all its positions are computed and attend to each other, and the last one is pooled, a pad mostly. Equal
 * texts are computed once.
 *
 * @throws {WarpsightError} ERR_ARGUMENT if there is no text, or one longer than `contextLength`
 */
export function planPaddedBatch(
  rows: readonly Int32Array[],
  options: { readonly contextLength: number; readonly padTokenId: number },
): TextBatchPlan {
  const { contextLength, padTokenId } = options;
  requireTexts('planPaddedBatch', rows);
  rows.forEach((row, b) => {
    if (row.length <= contextLength) return;
    throw new WarpsightError(
      'ERR_ARGUMENT',
      `planPaddedBatch: a text may have ${contextLength} tokens, text ${b} has ${row.length}`,
    );
  });
  const { unique, indexOf } = uniqueRows(rows);
  const layout = new Layout(unique.length * contextLength);
  const starts = unique.map((row) => {
    const padded = new Int32Array(contextLength).fill(padTokenId);
    padded.set(row);
    return layout.add(padded, 0, 0);
  });
  return layout.finish(indexOf.map((u) => [starts[u]!, contextLength, 0]));
}

/**
 * The index of the token whose row stands for the text in CLIP.
 *
 * A CLIP config with `eos_token_id` 2 is an old one whose number means nothing: there it is the largest id, the first of equal
 * ones. Otherwise it is the first token with that id.
 *
 * @throws {WarpsightError} ERR_TOKENIZER if there is no end mark: row 0, the start mark, says nothing about the text
 * @see transformers `modeling_clip.py`, CLIPTextTransformer.forward
 */
export function endOfTextIndex(ids: ArrayLike<number>, eosTokenId: number): number {
  let index = -1;
  if (eosTokenId === 2) {
    for (let i = 0; i < ids.length; i++) if (index < 0 || ids[i]! > ids[index]!) index = i;
    if (index > 0) return index;
    throw new WarpsightError('ERR_TOKENIZER', `a text must have an end mark, the largest id, behind its start: ${listOf(ids)}`);
  }
  for (let i = 0; i < ids.length && index < 0; i++) if (ids[i] === eosTokenId) index = i;
  if (index >= 0) return index;
  throw new WarpsightError('ERR_TOKENIZER', `a text must have its end mark, id ${eosTokenId}, among its tokens: ${listOf(ids)}`);
}

/** Rows and segments as they are added. */
class Layout {
  readonly #ids: Int32Array;
  readonly #positions: Int32Array;
  readonly #segments: number[] = [];
  #rows = 0;
  #maxQueries = 0;
  #maxKeys = 0;

  constructor(rows: number) {
    this.#ids = new Int32Array(rows);
    this.#positions = new Int32Array(rows);
  }

  /** Adds a segment that attends to itself and to `prefix` rows at the start; returns its first row. */
  add(ids: Int32Array, firstPosition: number, prefix: number): number {
    const start = this.#rows;
    this.#ids.set(ids, start);
    for (let i = 0; i < ids.length; i++) this.#positions[start + i] = firstPosition + i;
    this.#segments.push(start, ids.length, start, ids.length, 0, prefix);
    this.#rows += ids.length;
    this.#maxQueries = Math.max(this.#maxQueries, ids.length);
    this.#maxKeys = Math.max(this.#maxKeys, ids.length + prefix);
    return start;
  }

  /** @param texts for each text its segment's first row, its rows, and its rows in the prefix */
  finish(texts: readonly (readonly [start: number, count: number, prefix: number])[]): TextBatchPlan {
    return {
      ids: this.#ids,
      positions: this.#positions,
      segments: Int32Array.from(this.#segments),
      lastRows: Int32Array.from(texts, ([start, count]) => start + count - 1),
      lastSegments: Int32Array.from(texts.flatMap(([start, count, prefix], b) => [b, 1, start, count, 0, prefix])),
      maxQueries: this.#maxQueries,
      maxKeys: this.#maxKeys,
    };
  }
}

/** The different rows in the order of their first appearance, and for each row its index there. */
function uniqueRows(rows: readonly Int32Array[]): {
  readonly unique: readonly Int32Array[];
  readonly indexOf: readonly number[];
} {
  const seen = new Map<string, number>();
  const unique: Int32Array[] = [];
  const indexOf = rows.map((row) => {
    const key = row.join();
    const known = seen.get(key);
    if (known !== undefined) return known;
    seen.set(key, unique.length);
    return unique.push(row) - 1;
  });
  return { unique, indexOf };
}

/** The number of tokens that all rows begin with, and that leaves each row one. */
function commonPrefix(rows: readonly Int32Array[]): number {
  const first = rows[0]!;
  let length = first.length - 1;
  for (const row of rows) {
    length = Math.min(length, row.length - 1);
    for (let i = 0; i < length; i++) if (row[i] !== first[i]) length = i;
  }
  return length;
}

function requireTexts(op: string, rows: readonly Int32Array[]): void {
  if (rows.length === 0) throw new WarpsightError('ERR_ARGUMENT', `${op}: there must be at least one text`);
  const empty = rows.findIndex((row) => row.length === 0);
  if (empty >= 0) throw new WarpsightError('ERR_ARGUMENT', `${op}: text ${empty} has no tokens`);
}

function listOf(ids: ArrayLike<number>): string {
  const shown = Array.from({ length: Math.min(ids.length, 8) }, (_, i) => ids[i]);
  return `[${shown.join(', ')}${ids.length > 8 ? `, … ${ids.length} in all` : ''}]`;
}
