// Folders with tokenizers, the goldens they are judged by, and the tokenizer library by itself, without our tables.
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';

const root = resolve(__dirname, '..', '..', '..');
const fixtures = process.env.WARPSIGHT_FIXTURES ?? resolve(root, '..', 'shared', 'fixtures');
const data = process.env.WARPSIGHT_DATA ?? resolve(root, '..', 'shared', 'data');

export const kClipFolder = join(data, 'clip-tokenizer');

/** Says why, and skips, where a file that a test needs is not there. */
export function needs(context: Mocha.Context, path: string): void {
  if (existsSync(path)) return;
  console.log(`      skipped: there is no ${path} (WARPSIGHT_FIXTURES, WARPSIGHT_DATA)`);
  context.skip();
}

export interface Golden {
  readonly text: string;
  readonly ids: readonly number[];
  readonly decoded?: string;
}

export function fixture(...path: string[]): string {
  return join(fixtures, ...path);
}

export function readGoldens(file: string): Golden[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line): Golden => JSON.parse(line));
}

/** A folder that is gone after the test, with these files: objects are written as JSON. */
export function temporaryFolder(files: Readonly<Record<string, string | object>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'warpsight-tokenizer-'));
  temporary.push(folder);
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return folder;
}

export function removeTemporaryFolders(): void {
  for (const folder of temporary.splice(0)) rmSync(folder, { recursive: true });
}

const temporary: string[] = [];

/** The CLIP tokenizer without its tokenizer.json. */
export function clipWithoutJson(): string {
  const folder = temporaryFolder({});
  for (const name of ['vocab.json', 'merges.txt', 'tokenizer_config.json', 'special_tokens_map.json']) {
    copyFileSync(join(kClipFolder, name), join(folder, name));
  }
  return folder;
}

/** All ids that the library gives on its own, nothing cut. */
export function libraryAlone(folder: string): (text: string) => (number | undefined)[] {
  const json = (name: string): object => JSON.parse(readFileSync(join(folder, name), 'utf8'));
  const library = new LibraryTokenizer(json('tokenizer.json'), json('tokenizer_config.json'));
  return (text) => library.encode(text, { add_special_tokens: true }).ids;
}

/** Numbers from 0 to below 1, the same ones each time. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A SigLIP-like tokenizer.json: Unigram pieces over lower-case words, an end mark, no start mark. */
export function siglipJson(): object {
  const pieces = [
    '</s>',
    '<unk>',
    '▁a',
    '▁cat',
    '▁',
    'c',
    'a',
    't',
    '▁dog',
    'd',
    'o',
    'g',
    'at',
    '▁photo',
    'of',
    '▁of',
    's',
    "'",
  ];
  const vocab = pieces.map((piece, i): [string, number] => [piece, i < 2 ? 0 : -1 - i * 0.37 - (piece.length === 1 ? 6 : 0)]);
  vocab.push(['xa', -26]); // the least likely: what is unknown must still be less
  vocab.splice(0, 2, ['<pad>', 0], ['</s>', 0], ['<unk>', 0]);
  return {
    added_tokens: [
      { id: 1, content: '</s>', special: true, normalized: false },
      { id: 2, content: '<unk>', special: true, normalized: false },
    ],
    normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAA' },
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ Sequence: { id: 'A', type_id: 0 } }, { SpecialToken: { id: '</s>', type_id: 0 } }],
      pair: [],
      special_tokens: { '</s>': { id: '</s>', ids: [1], tokens: ['</s>'] } },
    },
    decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' },
    model: { type: 'Unigram', unk_id: 2, vocab },
  };
}

/** A Gemma-like tokenizer.json, as SigLIP 2 has: BPE over whole texts with bytes to fall back on. */
export function gemmaJson(): object {
  const tokens = ['<pad>', '<eos>', '<bos>', '<unk>', ...Array.from({ length: 256 }, (_, b) => byteToken(b))];
  tokens.push('▁', 'a', 'c', 't', 'C', 'A', 'T', '!', 'ca', 'cat', '▁cat', '▁a', 'd', 'o', 'g', 'do', 'dog', '▁dog');
  return {
    added_tokens: tokens.slice(0, 4).map((content, id) => ({ id, content, special: true, normalized: false })),
    normalizer: { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ Sequence: { id: 'A', type_id: 0 } }, { SpecialToken: { id: '<eos>', type_id: 0 } }],
      pair: [],
      special_tokens: { '<eos>': { id: '<eos>', ids: [1], tokens: ['<eos>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }],
    },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [
        ['c', 'a'],
        ['ca', 't'],
        ['▁', 'cat'],
        ['▁', 'a'],
        ['d', 'o'],
        ['do', 'g'],
        ['▁', 'dog'],
      ],
    },
  };
}

function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}
