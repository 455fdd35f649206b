import { join } from 'node:path';
import { WarpsightError } from '../errors';
import { kWordPieceDefaults, parseBert, separatingRareHan } from './tokenizer-bert';
import { buildStringTable, mergeKey } from './tokenizer-table';
import type { AddedToken, Json, ModelTables, Preparation, TokenizerTables } from './tokenizer-tables';

/** Ids index arrays; no tokenizer has a tenth of this. */
const kLargestId = 2 ** 24 - 1;
/** What is left of a tokenizer.json without its vocabulary is copied to other threads. */
const kLargestRest = 4 * 2 ** 20;
/** A length from here on means that nobody has set one; transformers writes 1e30. */
const kNoMaximum = 1e6;

/** The tokenizer of CLIP, whose vocab.json and merges.txt hold only the vocabulary: the rest of its tokenizer.json. */
const kClip = {
  normalizer: {
    type: 'Sequence',
    normalizers: [{ type: 'NFC' }, { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' }, { type: 'Lowercase' }],
  },
  preTokenizer: {
    type: 'Sequence',
    pretokenizers: [
      {
        type: 'Split',
        pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
        behavior: 'Removed',
        invert: true,
      },
      { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    ],
  },
  decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
  startMark: '<|startoftext|>',
  endMark: '<|endoftext|>',
  endOfWord: '</w>',
  maxLength: 77,
} as const;

/** The files of a tokenizer, parsed as JSON; undefined where there is none. */
export interface TokenizerFiles {
  readonly tokenizer: Json | undefined;
  readonly vocab: Json | undefined;
  /** merges.txt as it is */
  readonly merges: string | undefined;
  /** vocab.txt as it is */
  readonly vocabText: string | undefined;
  readonly tokenizerConfig: Json | undefined;
  readonly specialTokens: Json | undefined;
  readonly addedTokens: Json | undefined;
  /** config.json, for the kind of model and its length */
  readonly model: Json | undefined;
}

/**
 * @param folder where the files are, for messages
 * @throws {WarpsightError} ERR_TOKENIZER with the file and the place in it
 */
export function parseTokenizer(folder: string, files: TokenizerFiles): TokenizerTables {
  const config = files.tokenizerConfig ?? {};
  const modelConfig = files.model ?? {};
  const special = (role: string): string | undefined => tokenName(config[role]) ?? tokenName(files.specialTokens?.[role]);

  const file = join(folder, 'tokenizer.json');
  const parts = partsOf(folder, files, special);

  const added = new Map<string, AddedToken>();
  const add = (token: AddedToken): void => {
    if (!added.has(token.content)) added.set(token.content, token);
  };
  parts.addedTokens.forEach(add);
  for (const [id, token] of Object.entries(object(config.added_tokens_decoder ?? {}, folder, 'added_tokens_decoder'))) {
    add(parseAddedToken({ ...object(token, folder, `added_tokens_decoder["${id}"]`), id: Number(id) }, folder));
  }
  for (const [content, id] of Object.entries(files.addedTokens ?? {})) add(parseAddedToken({ content, id }, folder));

  const ids = new Map(parts.vocabulary);
  for (const { content, id } of added.values()) ids.set(content, id);
  if (ids.size === 0) throw tokenizerError(folder, 'its vocabulary is empty');
  let largestId = 0;
  for (const id of ids.values()) largestId = Math.max(largestId, id);
  const tokenOfId = new Int32Array(new SharedArrayBuffer((largestId + 1) * 4)).fill(-1);
  let index = 0;
  for (const id of ids.values()) tokenOfId[id] = index++;

  const isClip = parts.endOfWord === kClip.endOfWord;
  const isBert = parts.model.kind === 'wordpiece';
  const isSiglip = /^siglip2?$/.test(String(modelConfig.model_type)) || /^Siglip/.test(String(config.tokenizer_class));
  const idOf = (role: string, otherwise?: string): number | undefined => {
    const name = special(role) ?? otherwise;
    return name === undefined ? undefined : ids.get(name);
  };
  const eosTokenId = idOf('eos_token', isClip ? kClip.endMark : undefined);
  if (isClip && eosTokenId === undefined) {
    throw tokenizerError(folder, `the end mark "${special('eos_token') ?? kClip.endMark}" is not in the vocabulary`);
  }
  const prepare = preparationOf(config, isSiglip);
  const tables: TokenizerTables = {
    name: folder,
    tokens: buildStringTable(ids),
    tokenOfId,
    model: parts.model,
    addedTokens: [...added.values()],
    normalizer: separatingRareHan(withoutCharsmap(parts.normalizer)),
    preTokenizer: parts.preTokenizer,
    postProcessor: parts.postProcessor,
    decoder: parts.decoder,
    config: libraryConfig(config),
    prepare,
    collapsesSpace: isClip || prepare.dropPunctuation,
    cuts: isClip || isSiglip || parts.truncation !== undefined,
    modelMaxLength: maxLengthOf(config, modelConfig, isClip, isSiglip, parts.truncation),
    vocabularySize: ids.size,
    bosTokenId: idOf('bos_token', isClip ? kClip.startMark : undefined),
    eosTokenId,
    padTokenId: idOf('pad_token', isBert ? '[PAD]' : undefined) ?? (isClip || isSiglip ? eosTokenId : undefined),
  };
  const { normalizer, preTokenizer, postProcessor, decoder, addedTokens, model } = tables;
  if (JSON.stringify([normalizer, preTokenizer, postProcessor, decoder, addedTokens, model.rest]).length > kLargestRest) {
    throw tokenizerError(file, `without its vocabulary it may have ${kLargestRest} characters`);
  }
  return tables;
}

/** tokenizer.json; else vocab.json and merges.txt, CLIP's; else vocab.txt, BERT's. */
function partsOf(folder: string, files: TokenizerFiles, special: (role: string) => string | undefined): Parts {
  const { tokenizer, vocab, vocabText, tokenizerConfig = {} } = files;
  if (tokenizer !== undefined) return parseTokenizerJson(tokenizer, join(folder, 'tokenizer.json'));
  if (vocab === undefined && vocabText !== undefined) return parseBert(folder, vocabText, tokenizerConfig, special);
  return parseClip(folder, files, special);
}

/** A tokenizer.json, or what stands for one. */
export interface Parts {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly model: ModelTables;
  readonly endOfWord: string | undefined;
  readonly addedTokens: readonly AddedToken[];
  readonly normalizer: Json | null;
  readonly preTokenizer: Json | null;
  readonly postProcessor: Json | null;
  readonly decoder: Json | null;
  /** The length that the file itself says to cut to. */
  readonly truncation: number | undefined;
}

function parseTokenizerJson(root: Json, file: string): Parts {
  const model = object(root.model, file, 'model');
  const optional = (key: string): Json | null => (root[key] == null ? null : object(root[key], file, key));
  const addedTokens = root.added_tokens ?? [];
  if (!Array.isArray(addedTokens)) throw wrongType(file, 'added_tokens', 'an array', addedTokens);
  const truncation = optional('truncation')?.max_length;
  return {
    ...parseModel(model, file),
    endOfWord: typeof model.end_of_word_suffix === 'string' ? model.end_of_word_suffix : undefined,
    addedTokens: addedTokens.map((token: unknown) => parseAddedToken(object(token, file, 'added_tokens[…]'), file)),
    normalizer: optional('normalizer'),
    preTokenizer: optional('pre_tokenizer'),
    postProcessor: optional('post_processor'),
    decoder: optional('decoder'),
    truncation: truncation === undefined ? undefined : lengthOf(truncation, file, 'truncation.max_length'),
  };
}

function parseModel(model: Json, file: string): { vocabulary: Map<string, number>; model: ModelTables } {
  const { vocab, merges, ...rest } = model;
  const unknown = model.unk_token == null ? undefined : string(model.unk_token, file, 'model.unk_token');
  const type = model.type ?? (Array.isArray(vocab) ? 'Unigram' : merges !== undefined ? 'BPE' : 'WordPiece');
  switch (type) {
    case 'BPE': {
      const vocabulary = parseVocabulary(vocab, file, 'model.vocab');
      if (!Array.isArray(merges)) throw wrongType(file, 'model.merges', 'an array', merges);
      const pairs = merges.map((merge: unknown, i) => parseMerge(merge, file, `model.merges[${i}]`));
      const prefix = typeof model.continuing_subword_prefix === 'string' ? model.continuing_subword_prefix : '';
      return { vocabulary, model: bpeModel(rest, unknown, vocabulary, pairs, prefix, file) };
    }
    case 'WordPiece':
      return parseWordPiece(rest, vocab, file);
    case 'Unigram':
      return parseUnigram(rest, vocab, file);
    default:
      throw tokenizerError(file, `model.type must be BPE, WordPiece or Unigram, it is ${JSON.stringify(type)}`);
  }
}

function parseWordPiece(rest: Json, vocab: unknown, file: string): { vocabulary: Map<string, number>; model: ModelTables } {
  const vocabulary = parseVocabulary(vocab, file, 'model.vocab');
  const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null));
  const filled = { ...kWordPieceDefaults, ...given };
  const unknown = string(filled.unk_token, file, 'model.unk_token');
  if (!vocabulary.has(unknown)) throw tokenizerError(file, `the unknown token "${unknown}" is not in the vocabulary`);
  return { vocabulary, model: { kind: 'wordpiece', rest: filled, unknown } };
}

function bpeModel(
  rest: Json,
  unknown: string | undefined,
  vocabulary: ReadonlyMap<string, number>,
  pairs: readonly (readonly [string, string])[],
  prefix: string,
  file: string,
): ModelTables {
  const ranks = new Map<string, number>();
  pairs.forEach(([left, right], rank) => {
    for (const token of [left, right, left + right.slice(right.startsWith(prefix) ? prefix.length : 0)]) {
      if (!vocabulary.has(token)) {
        throw tokenizerError(
          file,
          `merge ${rank}, "${left} ${right}", needs the token "${token}", which is not in the vocabulary`,
        );
      }
    }
    ranks.set(mergeKey(left, right), rank);
  });
  return { kind: 'bpe', rest, unknown, merges: buildStringTable(ranks) };
}

function parseMerge(merge: unknown, file: string, where: string): readonly [string, string] {
  const pair = typeof merge === 'string' ? merge.split(' ') : merge;
  if (Array.isArray(pair) && pair.length === 2) {
    const [left, right]: readonly unknown[] = pair;
    if (typeof left === 'string' && typeof right === 'string' && left !== '' && right !== '') return [left, right];
  }
  throw tokenizerError(file, `${where} must be two tokens, "a b" or ["a", "b"], it is ${JSON.stringify(merge)}`);
}

function parseUnigram(rest: Json, vocab: unknown, file: string): { vocabulary: Map<string, number>; model: ModelTables } {
  if (!Array.isArray(vocab)) throw wrongType(file, 'model.vocab', 'an array of [piece, score]', vocab);
  const vocabulary = new Map<string, number>();
  const scores = new Float64Array(new SharedArrayBuffer(vocab.length * 8));
  let lowest = Number.POSITIVE_INFINITY;
  let longestPiece = 0;
  vocab.forEach((entry: unknown, id) => {
    const [piece, score]: readonly unknown[] = Array.isArray(entry) ? entry : [];
    if (typeof piece !== 'string' || typeof score !== 'number') {
      throw tokenizerError(file, `model.vocab[${id}] must be [piece, score], it is ${JSON.stringify(entry)}`);
    }
    vocabulary.set(piece, id);
    scores[id] = score;
    lowest = Math.min(lowest, score);
    longestPiece = Math.max(longestPiece, [...piece].length);
  });
  const unknownEntry: unknown = typeof rest.unk_id === 'number' ? vocab[rest.unk_id] : undefined;
  if (!Array.isArray(unknownEntry)) {
    throw tokenizerError(
      file,
      `model.unk_id must be the index of a piece, 0 to ${vocab.length - 1}, it is ${JSON.stringify(rest.unk_id)}`,
    );
  }
  const unknown = string(unknownEntry[0], file, 'the unknown piece');
  const unknownScore = lowest - 10; // what sentencepiece takes
  scores[vocabulary.get(unknown)!] = unknownScore;
  return { vocabulary, model: { kind: 'unigram', rest, unknown, scores, unknownScore, longestPiece } };
}

function parseClip(
  folder: string,
  { vocab, merges, tokenizerConfig }: TokenizerFiles,
  special: (role: string) => string | undefined,
): Parts {
  if (vocab === undefined || merges === undefined) {
    throw tokenizerError(folder, 'there must be a tokenizer.json, or vocab.json and merges.txt, or vocab.txt, in this folder');
  }
  const vocabFile = join(folder, 'vocab.json');
  const vocabulary = parseVocabulary(vocab, vocabFile, 'the file');
  const className = tokenizerConfig?.tokenizer_class;
  const hasWordEnds = [...vocabulary.keys()].some((token) => token.endsWith(kClip.endOfWord));
  if (className === undefined ? !hasWordEnds : !/^CLIPTokenizer(Fast)?$/.test(String(className))) {
    throw tokenizerError(
      folder,
      `vocab.json and merges.txt alone are enough for a CLIPTokenizer; ${String(className ?? 'a vocabulary without </w>')} needs a tokenizer.json`,
    );
  }
  const mergesFile = join(folder, 'merges.txt');
  const lines = merges.split(/\r?\n/);
  if (lines[0]?.startsWith('#version')) lines.shift();
  const pairs = lines.filter((line) => line !== '').map((line) => parseMerge(line, mergesFile, 'each line'));

  const startMark = special('bos_token') ?? kClip.startMark;
  const endMark = special('eos_token') ?? kClip.endMark;
  const unknown = special('unk_token') ?? kClip.endMark;
  const mark = (content: string, normalized: boolean): AddedToken => {
    const id = vocabulary.get(content);
    if (id === undefined) throw tokenizerError(vocabFile, `the mark "${content}" is not in the vocabulary`);
    return { id, content, single_word: false, lstrip: false, rstrip: false, normalized, special: true };
  };
  const start = mark(startMark, true);
  const end = mark(endMark, false);
  const rest = { continuing_subword_prefix: '', end_of_word_suffix: kClip.endOfWord, unk_token: unknown };
  return {
    vocabulary,
    model: bpeModel(rest, unknown, vocabulary, pairs, '', mergesFile),
    endOfWord: kClip.endOfWord,
    addedTokens: [start, end],
    normalizer: kClip.normalizer,
    preTokenizer: kClip.preTokenizer,
    postProcessor: {
      type: 'RobertaProcessing',
      sep: [end.content, end.id],
      cls: [start.content, start.id],
      trim_offsets: false,
      add_prefix_space: false,
    },
    decoder: kClip.decoder,
    truncation: undefined,
  };
}

function parseVocabulary(value: unknown, file: string, where: string): Map<string, number> {
  const vocabulary = new Map<string, number>();
  for (const [token, id] of Object.entries(object(value, file, where))) vocabulary.set(token, parseId(id, file, token));
  return vocabulary;
}

function parseId(id: unknown, file: string, token: string): number {
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id <= kLargestId) return id;
  throw tokenizerError(file, `the id of "${token}" must be an integer from 0 to ${kLargestId}, it is ${JSON.stringify(id)}`);
}

function parseAddedToken(token: Json, file: string): AddedToken {
  const content = string(token.content, file, 'the content of an added token');
  if (content === '') throw tokenizerError(file, 'an added token is empty');
  const special = token.special === true;
  return {
    id: parseId(token.id, file, content),
    content,
    single_word: token.single_word === true,
    lstrip: token.lstrip === true,
    rstrip: token.rstrip === true,
    normalized: typeof token.normalized === 'boolean' ? token.normalized : !special,
    special,
  };
}

/** A special token stands in a config as its text, or as an object with it. */
function tokenName(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (typeof value === 'object' && value !== null && 'content' in value && typeof value.content === 'string')
    return value.content;
  return undefined;
}

function libraryConfig(config: Json): Json {
  const { clean_up_tokenization_spaces, additional_special_tokens } = config;
  return {
    ...(typeof clean_up_tokenization_spaces === 'boolean' && { clean_up_tokenization_spaces }),
    ...(Array.isArray(additional_special_tokens) && {
      additional_special_tokens: additional_special_tokens.map(tokenName).filter((name) => name !== undefined),
    }),
  };
}

/**
 * SigLIP's tokenizer lower-cases and drops punctuation, SigLIP 2's lower-cases, in Python code. Done here even where the
 * normaliser of a tokenizer.json does it too: twice is the same as once.
 */
function preparationOf(config: Json, isSiglip: boolean): Preparation {
  const first = isSiglip && !/^Siglip2|^Gemma/.test(String(config.tokenizer_class));
  return { lowercase: isSiglip && !(first && config.do_lower_case === false), dropPunctuation: first };
}

function maxLengthOf(
  config: Json,
  modelConfig: Json,
  isClip: boolean,
  isSiglip: boolean,
  truncation: number | undefined,
): number {
  const lengths = [truncation, config.model_max_length];
  if (isClip || isSiglip) {
    for (const text of [modelConfig, modelConfig.text_config, modelConfig.text_config_dict]) {
      if (typeof text === 'object' && text !== null && 'max_position_embeddings' in text)
        lengths[2] = text.max_position_embeddings;
    }
  }
  const known = lengths.filter((n): n is number => typeof n === 'number' && Number.isInteger(n) && n > 0 && n < kNoMaximum);
  if (known.length > 0) return Math.min(...known);
  return isClip ? kClip.maxLength : isSiglip ? 64 : Number.POSITIVE_INFINITY;
}

/** The library doesn't read the compiled character map (a megabyte in some files); it does what all known ones do. */
function withoutCharsmap(normalizer: Json | null): Json | null {
  if (normalizer === null) return null;
  const normalizers: unknown = normalizer.normalizers;
  return {
    ...normalizer,
    ...('precompiled_charsmap' in normalizer && { precompiled_charsmap: null }),
    ...(Array.isArray(normalizers) && {
      normalizers: normalizers.map((inner: unknown) => (isObject(inner) ? withoutCharsmap(inner) : inner)),
    }),
  };
}

function lengthOf(value: unknown, file: string, where: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value > 0) return value;
  throw wrongType(file, where, 'a positive integer', value);
}

function string(value: unknown, file: string, where: string): string {
  if (typeof value === 'string') return value;
  throw wrongType(file, where, 'a string', value);
}

export function object(value: unknown, file: string, where: string): Json {
  if (isObject(value)) return value;
  throw wrongType(file, where, 'an object', value);
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function wrongType(file: string, where: string, expected: string, value: unknown): WarpsightError {
  const given = value === null ? 'null' : Array.isArray(value) ? 'an array' : typeof value;
  return tokenizerError(file, `${where} must be ${expected}, it is ${given === 'undefined' ? 'missing' : given}`);
}

export function tokenizerError(file: string, message: string, cause?: unknown): WarpsightError {
  return new WarpsightError('ERR_TOKENIZER', `tokenizer "${file}": ${message}`, cause === undefined ? undefined : { cause });
}
