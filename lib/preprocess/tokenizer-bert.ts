import { join } from 'node:path';
import { type Parts, tokenizerError } from './tokenizer-parse';
import type { AddedToken, Json } from './tokenizer-tables';

/** What the names of the marks are, where no file says. */
const kMarks = { unk_token: '[UNK]', cls_token: '[CLS]', sep_token: '[SEP]', pad_token: '[PAD]', mask_token: '[MASK]' } as const;

/** Of a WordPiece model, where its file doesn't say. */
export const kWordPieceDefaults = {
  unk_token: kMarks.unk_token,
  continuing_subword_prefix: '##',
  max_input_chars_per_word: 100,
} as const;

/** Chinese characters outside the basic plane, which BERT puts spaces around; the library sees their halves. */
const kRareHan = '[\\u{20000}-\\u{2A6DF}\\u{2A700}-\\u{2CEAF}\\u{2F800}-\\u{2FA1F}]';

/**
 * BERT's tokenizer from vocab.txt alone: a token on each line, its id the line's number.
 *
 * @param special the mark of a role, as the config files name it
 * @throws {WarpsightError} ERR_TOKENIZER
 * @see Devlin et al. 2019; google-research/bert `tokenization.py`
 */
export function parseBert(folder: string, text: string, config: Json, special: (role: string) => string | undefined): Parts {
  const file = join(folder, 'vocab.txt');
  const className = config.tokenizer_class;
  if (className !== undefined && !/^(Distil)?Bert(Tokenizer|TokenizerFast)$/.test(String(className))) {
    throw tokenizerError(folder, `vocab.txt alone is enough for a BertTokenizer; ${String(className)} needs a tokenizer.json`);
  }
  const vocabulary = new Map<string, number>();
  text.split(/\r?\n/).forEach((token, id) => {
    if (token !== '') vocabulary.set(token, id);
  });
  if (vocabulary.size === 0) throw tokenizerError(file, 'it holds no token');
  const mark = (role: keyof typeof kMarks): AddedToken | undefined => {
    const content = special(role) ?? kMarks[role];
    const id = vocabulary.get(content);
    return id === undefined
      ? undefined
      : { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  };
  const needed = (role: keyof typeof kMarks): AddedToken => {
    const found = mark(role);
    if (found) return found;
    throw tokenizerError(file, `the mark "${special(role) ?? kMarks[role]}" is not in the vocabulary`);
  };
  const [unknown, start, end] = [needed('unk_token'), needed('cls_token'), needed('sep_token')];
  const framed = ({ content }: AddedToken) => ({ SpecialToken: { id: content, type_id: 0 } });
  const flag = (name: string, otherwise: boolean): boolean => {
    const value = config[name] ?? otherwise;
    if (typeof value === 'boolean') return value;
    throw tokenizerError(join(folder, 'tokenizer_config.json'), `${name} must be true or false, it is ${JSON.stringify(value)}`);
  };
  return {
    vocabulary,
    model: { kind: 'wordpiece', rest: { ...kWordPieceDefaults, unk_token: unknown.content }, unknown: unknown.content },
    endOfWord: undefined,
    addedTokens: [mark('pad_token'), unknown, start, end, mark('mask_token')].filter((token) => token !== undefined),
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: flag('tokenize_chinese_chars', true),
      strip_accents: config.strip_accents == null ? null : flag('strip_accents', true),
      lowercase: flag('do_lower_case', true),
    },
    preTokenizer: { type: 'BertPreTokenizer' },
    postProcessor: {
      type: 'TemplateProcessing',
      single: [framed(start), { Sequence: { id: 'A', type_id: 0 } }, framed(end)],
      pair: [framed(start), { Sequence: { id: 'A', type_id: 0 } }, framed(end), { Sequence: { id: 'B', type_id: 1 } }],
      special_tokens: Object.fromEntries(
        [start, end].map(({ content, id }) => [content, { id: content, ids: [id], tokens: [content] }]),
      ),
    },
    decoder: { type: 'WordPiece', prefix: kWordPieceDefaults.continuing_subword_prefix, cleanup: true },
    truncation: undefined,
  };
}

/** The normaliser with spaces around rare Chinese characters in front of it, where it is one of BERT's that separates them. */
export function separatingRareHan(normalizer: Json | null): Json | null {
  if (normalizer?.type !== 'BertNormalizer' || normalizer.handle_chinese_chars === false) return normalizer;
  return {
    type: 'Sequence',
    normalizers: [{ type: 'Replace', pattern: { Regex: kRareHan }, content: ' $& ' }, normalizer],
  };
}
