import { expect } from 'chai';
import { Tokenizer } from '../../lib';
import { ModelFolders } from '../field/model-folder';
import { expectError } from '../support/errors';

const kWords = [
  '[PAD]',
  '[unused1]',
  '[UNK]',
  '[CLS]',
  '[SEP]',
  '[MASK]',
  'a',
  'photo',
  'of',
  'cat',
  'the',
  'un',
  '##aff',
  '##able',
  '##s',
];
const kPieces = [
  '##a',
  '##b',
  'x',
  '##x',
  'cafe',
  'e',
  '##e',
  'i',
  '##t',
  '中',
  '国',
  '𠀀',
  '.',
  ',',
  '!',
  '?',
  "'",
  '-',
  '#',
  'A',
  'Cat',
  '1',
  '##2',
];
const kVocabulary = [...kWords, ...kPieces];

const kTokenizerJson = {
  version: '1.0',
  added_tokens: [0, 2, 3, 4, 5].map((id) => ({ id, content: kVocabulary[id], special: true, normalized: false })),
  normalizer: { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true },
  pre_tokenizer: { type: 'BertPreTokenizer' },
  post_processor: {
    type: 'TemplateProcessing',
    single: [
      { SpecialToken: { id: '[CLS]', type_id: 0 } },
      { Sequence: { id: 'A', type_id: 0 } },
      { SpecialToken: { id: '[SEP]', type_id: 0 } },
    ],
    pair: [
      { SpecialToken: { id: '[CLS]', type_id: 0 } },
      { Sequence: { id: 'A', type_id: 0 } },
      { SpecialToken: { id: '[SEP]', type_id: 0 } },
    ],
    special_tokens: {
      '[CLS]': { id: '[CLS]', ids: [3], tokens: ['[CLS]'] },
      '[SEP]': { id: '[SEP]', ids: [4], tokens: ['[SEP]'] },
    },
  },
  decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
  model: { type: 'WordPiece', vocab: Object.fromEntries(kVocabulary.map((token, id) => [token, id])) },
};

/** BERT's published rule, character by character: clean, separate Han, lower-case without accents, split at punctuation; then the longest pieces. */
function plainIds(text: string, lowercase = true): number[] {
  const isPunctuation = (c: string) => /[!-/:-@[-`{-~]|\p{P}/u.test(c);
  let prepared = '';
  for (const c of text) {
    const code = c.codePointAt(0)!;
    if (code === 0 || code === 0xfffd || (/\p{C}/u.test(c) && !/[\t\n\r]/.test(c))) continue;
    const han = /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/u.test(c);
    prepared += /[\t\n\r\p{Zs}]/u.test(c) ? ' ' : han ? ` ${c} ` : c;
  }
  if (lowercase)
    prepared = prepared
      .toLowerCase()
      .normalize('NFD')
      .replace(/\p{Mn}/gu, '');
  const words = [...prepared]
    .map((c) => (isPunctuation(c) ? ` ${c} ` : c))
    .join('')
    .split(' ')
    .filter(Boolean);
  const content = words.flatMap((word) => {
    const letters = [...word];
    const pieces: number[] = [];
    for (let start = 0; start < letters.length; ) {
      let end = letters.length;
      const piece = () => (start > 0 ? '##' : '') + letters.slice(start, end).join('');
      while (end > start && !kVocabulary.includes(piece())) end--;
      if (end === start || letters.length > 100) return [2];
      pieces.push(kVocabulary.indexOf(piece()));
      start = end;
    }
    return pieces;
  });
  return [3, ...content, 4];
}

const kTexts = [
  'A photo of the CAT.',
  'unaffable cats, a photo!',
  '',
  '   \t\n ',
  "it's -- a photo-of #cat?",
  'Café CAFÉ cafe\u0301',
  'a中国b 中 a𠀀b',
  'a\u200bb ab\u0000a \u0007xx',
  '🦙 a 🦙cat',
  'x'.repeat(100),
  'x'.repeat(101),
  'a\u00a0photo\u3000of',
  '12 1',
  'zzz',
  'A cat \ufffd of',
];

describe('BERT’s tokenizer', () => {
  const folders = new ModelFolders();
  const vocabTxt = `${kVocabulary.join('\n')}\n`;
  const config = { tokenizer_class: 'BertTokenizer', do_lower_case: true, model_max_length: 512 };

  it('gives the ids of the published rule, from vocab.txt and from tokenizer.json', async () => {
    for (const files of [
      { 'vocab.txt': vocabTxt, 'tokenizer_config.json': config },
      { 'vocab.txt': vocabTxt.replaceAll('\n', '\r\n') },
      { 'tokenizer.json': kTokenizerJson, 'tokenizer_config.json': config },
      { 'tokenizer.json': kTokenizerJson },
    ]) {
      const tokenizer = await Tokenizer.fromPretrained(folders.make(files));
      for (const text of kTexts) expect(tokenizer.encode(text), JSON.stringify(text.slice(0, 30))).to.deep.equal(plainIds(text));
      expect(tokenizer.padTokenId).to.equal(0);
      expect(tokenizer.vocabularySize).to.equal(kVocabulary.length);
    }
  });

  it('keeps case and accents where the config says so', async () => {
    const files = { 'vocab.txt': vocabTxt, 'tokenizer_config.json': { ...config, do_lower_case: false } };
    const tokenizer = await Tokenizer.fromPretrained(folders.make(files));
    for (const text of ['A Cat', 'Café', 'a cat']) expect(tokenizer.encode(text)).to.deep.equal(plainIds(text, false));
  });

  it('cuts the tail and keeps the end mark, where a word’s beginning would be other pieces too', async () => {
    const tokenizer = await Tokenizer.fromPretrained(folders.make({ 'vocab.txt': vocabTxt }));
    for (const text of ['a photo of '.repeat(100), `${'x'.repeat(150)} cat `.repeat(50), 'xx'.repeat(40)]) {
      const { ids, truncated } = await tokenizer.encodeBatch([text], { maxLength: 40 });
      const whole = plainIds(text);
      expect([...ids[0]!]).to.deep.equal(whole.length > 40 ? [...whole.slice(0, 39), 4] : whole);
      expect(truncated).to.deep.equal([whole.length > 40]);
    }
  });

  it('refuses broken files, and names them', async () => {
    const load = (files: Readonly<Record<string, string | object>>) => Tokenizer.fromPretrained(folders.make(files));
    await expectError(() => load({ 'vocab.txt': '\n' }), 'ERR_TOKENIZER', /vocab\.txt.*holds no token/);
    await expectError(() => load({ 'vocab.txt': 'a\nb' }), 'ERR_TOKENIZER', /vocab\.txt.*"\[UNK\]" is not in the vocabulary/);
    await expectError(() => load({ 'vocab.txt': Buffer.from([0xff, 0xfe, 0x80]) }), 'ERR_TOKENIZER', /vocab\.txt.*can't be read/);
    const other = { 'vocab.txt': vocabTxt, 'tokenizer_config.json': { tokenizer_class: 'T5Tokenizer' } };
    await expectError(() => load(other), 'ERR_TOKENIZER', /T5Tokenizer needs a tokenizer\.json/);
    const flag = { 'vocab.txt': vocabTxt, 'tokenizer_config.json': { do_lower_case: 'yes' } };
    await expectError(() => load(flag), 'ERR_TOKENIZER', /do_lower_case must be true or false/);
    const { model } = kTokenizerJson;
    const unknown = { ...kTokenizerJson, model: { ...model, unk_token: '[NO]' } };
    await expectError(() => load({ 'tokenizer.json': unknown }), 'ERR_TOKENIZER', /"\[NO\]" is not in the vocabulary/);
  });
});
