import { BPE, Tokenizer as LibraryTokenizer, type Model, Unigram } from '@huggingface/tokenizers';
import { WarpsightError } from '../errors';
import { keyAt, mergeKey, TableMap } from './tokenizer-table';
import type { TokenizerTables } from './tokenizer-tables';

/** A text is read up to here, in UTF-16 units; where nothing is cut, a longer one is refused. */
export const kLongestText = 1_048_576;

/** A text that will be cut is read in prefixes: so many UTF-16 units at first, for each id that is kept; then more, if need be. */
const kUnitsPerId = 8;

/** A prefix is long enough when it gives this many tokens more than are kept: what follows it doesn't reach back that far. */
const kMargin = 20;

/** WordPiece takes a longer word as unknown, one token; its beginning alone could be as many pieces. */
const kLongestWord = 100;

/** A run of white space; `\s` without U+FEFF, which is none in Unicode. */
const kSpaces = /[\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]{2,}/g;

/** Stands for a text while looking at what the post-processor puts around it. */
const kSlot = '\u0000text';

/** A text as ids; `truncated` says that ids were left out. */
export interface Encoding {
  readonly ids: number[];
  readonly truncated: boolean;
}

/**
 * The tokenizer library at work on shared tables: it is constructed with an empty vocabulary and then given maps that look into
 * the tables, so that construction takes well under a millisecond on any thread.
 */
export class TokenizerEngine {
  readonly #tables: TokenizerTables;
  readonly #library: LibraryTokenizer;
  /** The ids that the post-processor puts before and after a text. */
  readonly #before: readonly number[];
  readonly #after: readonly number[];
  /** The library's list of tokens by id; filled as ids are decoded. */
  readonly #tokenById: string[];

  /** @throws {WarpsightError} ERR_TOKENIZER if the library doesn't know a part of the tokenizer */
  constructor(tables: TokenizerTables) {
    this.#tables = tables;
    const { library, tokenById, frame } = assemble(tables);
    this.#library = library;
    this.#tokenById = tokenById;
    const slot = frame.indexOf(kSlot);
    const idOf = (token: string): number => {
      const id = library.token_to_id(token);
      if (id === undefined) throw this.#error(`the post-processor adds "${token}", which is not in the vocabulary`);
      return id;
    };
    this.#before = frame.slice(0, slot).map(idOf);
    this.#after = frame.slice(slot + 1).map(idOf);
  }

  /** The number of ids that every text has around its own: 2 for CLIP. */
  get frameLength(): number {
    return this.#before.length + this.#after.length;
  }

  /**
   * @param maxLength ids kept at most, those around the text included; the text's tail is left out, what stands behind it stays
   * @throws {WarpsightError} ERR_ARGUMENT if nothing is to be cut and the text is longer than 1,048,576 UTF-16 units
   */
  encode(text: string, maxLength: number): Encoding {
    const room = maxLength - this.frameLength;
    const content = this.#content(text, room);
    const truncated = content.length > room;
    return { ids: [...this.#before, ...(truncated ? content.slice(0, room) : content), ...this.#after], truncated };
  }

  /** @throws {WarpsightError} ERR_ARGUMENT for an id that no token has */
  decode(ids: readonly number[], skipSpecialTokens: boolean): string {
    if (ids.length === 0) return '';
    const { tokens, tokenOfId } = this.#tables;
    for (const id of ids) {
      const index = tokenOfId[id] ?? -1;
      if (index < 0) {
        throw new WarpsightError('ERR_ARGUMENT', `decode: ${id} is not an id of this vocabulary, 0 to ${tokenOfId.length - 1}`);
      }
      this.#tokenById[id] ??= keyAt(tokens, index);
    }
    return this.#library.decode([...ids], { skip_special_tokens: skipSpecialTokens });
  }

  /**
   * The ids of the text alone, complete up to `room` + 1 of them.
   *
   * A long text is read in growing prefixes. Words are encoded apart from each other, so a prefix gives the ids of the whole up
   * to its last word: exact as soon as any border of words lies between the last id that is kept and the end of the prefix. In
   * one word without such a border the end of the prefix would have to change a token that stands 20 tokens before it.
   */
  #content(text: string, room: number): number[] {
    if (room === Number.POSITIVE_INFINITY) {
      if (text.length <= kLongestText) return this.#idsOf(text);
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `encode: a text may have ${kLongestText} UTF-16 units, this one has ${text.length}`,
      );
    }
    const end = Math.min(text.length, kLongestText);
    const wanted = room + 1 + kMargin + (this.#tables.model.kind === 'wordpiece' ? kLongestWord : 0);
    for (let prefix = kUnitsPerId * wanted; ; ) {
      const ids = this.#idsOf(text.slice(0, Math.min(prefix, end)));
      if (prefix >= end || ids.length >= wanted) return ids;
      prefix *= Math.min(4, (1.1 * wanted) / Math.max(1, ids.length)); // as many as at this rate give enough
    }
  }

  #idsOf(text: string): number[] {
    // A lone surrogate is no character; as in an encoder to UTF-8 it becomes U+FFFD.
    let prepared = text.replace(/\p{Surrogate}/gu, '\uFFFD');
    const { collapsesSpace, prepare } = this.#tables;
    if (collapsesSpace) prepared = prepared.replace(kSpaces, ' ');
    if (prepare.lowercase) prepared = prepared.toLowerCase();
    // As `canonicalize_text` of transformers' SigLIP tokenizer; the marks are Python's `string.punctuation`.
    if (prepare.dropPunctuation)
      prepared = prepared
        .replace(/[!-/:-@[-`{-~]+/g, '')
        .replace(/\s+/g, ' ')
        .trim();
    const { ids, tokens } = this.#library.encode(prepared, { add_special_tokens: false });
    return ids.map((id, i) => {
      if (id === undefined) throw this.#error(`"${tokens[i]}" has no id, and there is no token for the unknown`);
      return id;
    });
  }

  #error(message: string): WarpsightError {
    return new WarpsightError('ERR_TOKENIZER', `tokenizer "${this.#tables.name}": ${message}`);
  }
}

interface Assembled {
  readonly library: LibraryTokenizer;
  readonly tokenById: string[];
  /** What the post-processor makes of the one token `kSlot`. */
  readonly frame: readonly string[];
}

function assemble(tables: TokenizerTables): Assembled {
  try {
    const library = new LibraryTokenizer(
      {
        added_tokens: tables.addedTokens,
        normalizer: tables.normalizer,
        pre_tokenizer: tables.preTokenizer,
        post_processor: tables.postProcessor,
        decoder: tables.decoder,
        model: emptyModel(tables),
      },
      tables.config,
    );
    const tokenById = library.model.vocab;
    fillModel(library.model, tables);
    const frame = library.post_processor?.([kSlot], null, true).tokens ?? [kSlot];
    if (!frame.includes(kSlot)) throw new Error('the post-processor drops the text');
    return { library, tokenById, frame };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new WarpsightError('ERR_TOKENIZER', `tokenizer "${tables.name}": ${reason}`, { cause: error });
  }
}

function emptyModel({ model }: TokenizerTables): object {
  switch (model.kind) {
    case 'bpe':
      return { ...model.rest, type: 'BPE', vocab: {}, merges: [] };
    case 'wordpiece':
      return { ...model.rest, type: 'WordPiece', vocab: {} };
    case 'unigram':
      return { ...model.rest, type: 'Unigram', vocab: [[model.unknown, 0]], unk_id: 0 };
  }
}

function fillModel(target: Model, { tokens, model }: TokenizerTables): void {
  const ids = new TableMap(tokens);
  target.tokens_to_ids = ids;
  const unknownId = model.unknown === undefined ? undefined : ids.get(model.unknown);
  if (unknownId === undefined) delete target.unk_token_id;
  else target.unk_token_id = unknownId;
  if (model.kind === 'bpe' && target instanceof BPE) {
    const ranks = new TableMap(model.merges);
    target.add_node = (queue, node) => {
      const rank = ranks.get(mergeKey(node.token, node.next.token));
      if (rank === undefined) return;
      node.score = rank + node.bias;
      queue.push(node);
    };
  }
  if (model.kind === 'unigram' && target instanceof Unigram && unknownId !== undefined) {
    target.populate_nodes = (lattice) => {
      for (let start = 0; start < lattice.chars.length; start++) {
        const longest = Math.min(model.longestPiece, lattice.chars.length - start);
        let piece = '';
        let covered = false;
        for (let length = 1; length <= longest; length++) {
          piece += lattice.chars[start + length - 1];
          const id = ids.get(piece);
          const score = id === undefined ? Number.NaN : model.scores[id]!;
          if (id === undefined || Number.isNaN(score)) continue; // NaN: an added token, which is no piece
          lattice.insert(start, length, score, id);
          covered ||= length === 1;
        }
        if (!covered) lattice.insert(start, 1, model.unknownScore, unknownId);
      }
    };
  }
}
