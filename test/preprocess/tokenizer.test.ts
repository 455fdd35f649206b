import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { Tokenizer } from '../../lib/preprocess/tokenizer';
import { endTokenizerThread } from '../../lib/preprocess/tokenizer-thread';
import {
  clipWithoutJson,
  fixture,
  gemmaJson,
  kClipFolder,
  libraryAlone,
  needs,
  readGoldens,
  removeTemporaryFolders,
  seeded,
  siglipJson,
  temporaryFolder,
} from './tokenizer-reference';

after(async () => {
  removeTemporaryFolders();
  await endTokenizerThread();
});

const kStart = 49406;
const kEnd = 49407;

for (const [form, folderOf] of [
  ['tokenizer.json', () => kClipFolder],
  ['vocab.json + merges.txt', clipWithoutJson],
] as const) {
  describe(`Tokenizer, CLIP from ${form}`, () => {
    let clip: Tokenizer;
    before(async function () {
      needs(this, kClipFolder);
      clip = await Tokenizer.fromPretrained(folderOf());
    });

    it('gives every golden, one by one and as a batch', async function () {
      needs(this, fixture('clip-tokenizer', 'golden.jsonl'));
      const goldens = readGoldens(fixture('clip-tokenizer', 'golden.jsonl'));
      expect(goldens).to.have.length(400);
      for (const { text, ids } of goldens) expect(clip.encode(text), text).to.deep.equal(ids);
      const batch = await clip.encodeBatch(goldens.map(({ text }) => text));
      expect(batch.ids.map((row) => [...row])).to.deep.equal(goldens.map(({ ids }) => ids));
    });

    // The field case: a tokenizer in GPT-2's style, or one that strips accents, gives other ids.
    it('splits words, contractions, digits and accents as CLIP does', () => {
      expect(clip.encode('a photo of a fox')).to.deep.equal([kStart, 320, 1125, 539, 320, 3240, kEnd]);
      expect(clip.encode("You should've done this")).to.deep.equal([kStart, 592, 1535, 1200, 1700, 589, kEnd]);
      expect(clip.encode('résumé')).to.deep.equal([kStart, 29106, 7054, 4166, kEnd]);
      expect(clip.encode('résumé'.normalize('NFD'))).to.deep.equal(clip.encode('résumé'));
      expect(clip.encode('12')).to.deep.equal([kStart, 272, 273, kEnd]);
      expect(clip.encode('A CAT')).to.deep.equal(clip.encode('a cat'));
    });

    it('cuts to 77 ids with the end mark last, and says so', async () => {
      const cut = [kStart, ...new Array<number>(75).fill(320), kEnd];
      expect(clip.encode('a '.repeat(100))).to.deep.equal(cut);
      const texts = [74, 75, 76].map((n) => 'a '.repeat(n));
      const { ids, truncated } = await clip.encodeBatch(texts);
      expect(ids.map((row) => row.length)).to.deep.equal([76, 77, 77]);
      expect(truncated).to.deep.equal([false, false, true]);
      expect([...ids[2]!]).to.deep.equal(cut);
      expect(clip.encode(`a photo of a ${'very '.repeat(90)}long label`).slice(0, 5)).to.deep.equal([
        kStart,
        320,
        1125,
        539,
        320,
      ]);
      const short = await clip.encodeBatch(['a photo of a cat'], { maxLength: 4 });
      expect([...short.ids[0]!]).to.deep.equal([kStart, 320, 1125, kEnd]);
    });

    it('knows its marks and sizes', () => {
      expect(clip.vocabularySize).to.equal(49408);
      expect(clip.largestId).to.equal(49407);
      expect(clip.modelMaxLength).to.equal(77);
      expect([clip.bosTokenId, clip.eosTokenId, clip.padTokenId]).to.deep.equal([kStart, kEnd, kEnd]);
    });

    it('decodes what it encoded', () => {
      expect(clip.decode(clip.encode('A photo of a CAT'))).to.equal('a photo of a cat');
      expect(clip.decode(Int32Array.from(clip.encode('日本語 émeu 😀')))).to.equal('日本語 émeu 😀');
      expect(clip.decode(clip.encode('cat'), { skipSpecialTokens: false })).to.equal('<|startoftext|>cat <|endoftext|>');
      expect(clip.decode([])).to.equal('');
    });
  });
}

describe('Tokenizer, texts of any kind', () => {
  let clip: Tokenizer;
  let alone: ReturnType<typeof libraryAlone>;
  before(async function () {
    needs(this, kClipFolder);
    clip = await Tokenizer.fromPretrained(pathToFileURL(kClipFolder));
    alone = libraryAlone(kClipFolder);
  });

  /** What the reference does: all ids, then 77 of them, the end mark in the last place. */
  const reference = (text: string): (number | undefined)[] => {
    const ids = alone(text);
    return ids.length <= 77 ? ids : [...ids.slice(0, 76), kEnd];
  };

  it('gives the same ids as the library with a vocabulary of its own', () => {
    const random = seeded(7);
    const alphabet = [
      'a',
      'e',
      'n',
      'the',
      'ing',
      'Ph',
      'ß',
      'É',
      'e\u0301',
      'Σ',
      '日',
      '👩🏾‍🚀',
      '1',
      '42',
      "'s",
      "'",
      '!',
      '...',
      ' ',
      '  ',
      '\n',
      '\u00a0',
      '_',
    ];
    for (let n = 0; n < 2000; n++) {
      const text = Array.from({ length: Math.floor(random() * 12) }, () => alphabet[Math.floor(random() * alphabet.length)]).join(
        '',
      );
      expect(clip.encode(text), JSON.stringify(text)).to.deep.equal(reference(text));
    }
  });

  it('cuts long texts as the reference does, though it reads only their start', () => {
    const random = seeded(11);
    const letters = (n: number, from: string): string =>
      Array.from({ length: n }, () => from[Math.floor(random() * from.length)]).join('');
    const texts = [
      'a '.repeat(20_000),
      'the quick brown fox '.repeat(2_000),
      'a'.repeat(9_000),
      '!'.repeat(9_000),
      'ha'.repeat(5_000),
      `${' '.repeat(30_000)}cat${'\u00a0\t'.repeat(3_000)}dog`,
      '日本語のテキスト、'.repeat(2_000),
      '😂'.repeat(4_000),
      '1'.repeat(5_000),
      'e\u0301'.repeat(5_000),
      'Σ'.repeat(5_000),
      '\0'.repeat(5_000),
      ...['ab', 'abc', 'haeu', 'etaoin', 'abcdefghijklmnopqrstuvwxyz', '.!?', 'aA1 ,'].flatMap((from) =>
        [900, 1_500, 6_000].map((n) => letters(n, from)),
      ),
    ];
    for (const text of texts) expect(clip.encode(text), text.slice(0, 40)).to.deep.equal(reference(text));
  });

  it('takes a lone surrogate for U+FFFD, and NUL as it is', () => {
    expect(clip.encode('a \ud800 b')).to.deep.equal(clip.encode('a \ufffd b'));
    expect(clip.encode('\udc00')).to.deep.equal(clip.encode('\ufffd'));
    expect(clip.encode('a\0b')).to.deep.equal(reference('a\0b'));
  });

  it('encodes a batch of thousands of texts in order', async () => {
    const texts = Array.from({ length: 3_000 }, (_, i) => (i % 500 === 3 ? 'word '.repeat(20_000) : `a photo of number ${i}`));
    const { ids, truncated } = await clip.encodeBatch(texts);
    expect(ids).to.have.length(3_000);
    for (const i of [0, 1, 3, 255, 256, 503, 1_024, 2_999]) {
      expect([...ids[i]!], texts[i]!.slice(0, 40)).to.deep.equal(clip.encode(texts[i]!));
      expect(truncated[i]).to.equal(i % 500 === 3);
    }
    expect(await clip.encodeBatch([])).to.deep.equal({ ids: [], truncated: [] });
  });

  it('refuses what is no text, and lengths without room for the marks', async () => {
    const message = async (run: () => unknown): Promise<string> => {
      try {
        await run();
      } catch (error) {
        expect(error).to.have.property('code', 'ERR_ARGUMENT');
        return error instanceof Error ? error.message : '';
      }
      return 'nothing was thrown';
    };
    expect(await message(() => Reflect.apply(clip.encode, clip, [5]))).to.equal(
      'encode: the text must be a string, it is a number',
    );
    expect(await message(() => Reflect.apply(clip.encode, clip, [null]))).to.equal(
      'encode: the text must be a string, it is null',
    );
    expect(await message(() => Reflect.apply(clip.encodeBatch, clip, ['cat']))).to.equal(
      'encodeBatch: texts must be an array of strings, it is "cat"',
    );
    expect(await message(() => Reflect.apply(clip.encodeBatch, clip, [['a', undefined]]))).to.equal(
      'encodeBatch: texts[1] must be a string, it is undefined',
    );
    expect(await message(() => clip.encodeBatch(['a'], { maxLength: 1 }))).to.equal(
      'encodeBatch: maxLength must be an integer of at least 2, for start and end marks, it is 1',
    );
    expect(await message(() => clip.encodeBatch(['a'], { maxLength: 2.5 }))).to.match(/it is 2\.5$/);
    expect(await message(() => clip.decode([49408]))).to.equal('decode: 49408 is not an id of this vocabulary, 0 to 49407');
    expect(await message(() => clip.decode([-1]))).to.match(/^decode: -1 is not an id/);
    expect(await message(() => clip.decode([0.5]))).to.match(/^decode: 0.5 is not an id/);
    expect(await message(() => Tokenizer.fromPretrained(''))).to.equal(
      'Tokenizer.fromPretrained: the folder must be a path or a file: URL: it is ""',
    );
  });
});

describe('Tokenizer, SigLIP', () => {
  const config = {
    tokenizer_class: 'SiglipTokenizer',
    do_lower_case: true,
    eos_token: '</s>',
    pad_token: { content: '</s>' },
    unk_token: '<unk>',
    model_max_length: 64,
  };

  it('lower-cases and drops punctuation where its normaliser does not', async () => {
    const tokenizer = await Tokenizer.fromPretrained(
      temporaryFolder({ 'tokenizer.json': siglipJson(), 'tokenizer_config.json': config }),
    );
    const cat = tokenizer.encode('a cat');
    expect(tokenizer.decode(cat)).to.equal('a cat');
    expect(cat.at(-1)).to.equal(1);
    for (const text of ['A CAT!', ' a  cat. ', '"A Cat"', 'a\n(cat)?']) expect(tokenizer.encode(text), text).to.deep.equal(cat);
    expect(tokenizer.encode('')).to.deep.equal([1]);
    expect(tokenizer.encode('a\ud800cat')).to.deep.equal(tokenizer.encode('a\ufffdcat'));
    expect([tokenizer.padTokenId, tokenizer.eosTokenId, tokenizer.bosTokenId]).to.deep.equal([1, 1, undefined]);
    expect(tokenizer.modelMaxLength).to.equal(64);
  });

  it('cuts to 64 with </s> last: 63 and 64 words', async () => {
    const tokenizer = await Tokenizer.fromPretrained(
      temporaryFolder({ 'tokenizer.json': siglipJson(), 'tokenizer_config.json': config }),
    );
    const { ids, truncated } = await tokenizer.encodeBatch([63, 64, 9_000].map((n) => 'cat '.repeat(n)));
    expect(ids.map((row) => row.length)).to.deep.equal([64, 64, 64]);
    expect(ids.map((row) => row.at(-1))).to.deep.equal([1, 1, 1]);
    expect(truncated).to.deep.equal([false, true, true]);
  });

  it('finds the same pieces as the library with a vocabulary of its own', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': siglipJson(), 'tokenizer_config.json': { model_max_length: 1e30 } });
    const tokenizer = await Tokenizer.fromPretrained(folder);
    expect(tokenizer.modelMaxLength).to.equal(Number.POSITIVE_INFINITY);
    const alone = libraryAlone(folder);
    const random = seeded(3);
    for (let n = 0; n < 500; n++) {
      const text = Array.from({ length: Math.floor(random() * 30) }, () => 'catdogsof  xé'[Math.floor(random() * 13)]).join('');
      expect(tokenizer.encode(text), JSON.stringify(text)).to.deep.equal(alone(text));
    }
  });

  it('SigLIP 2: a vocabulary of Gemma, where only case folds', async () => {
    const files = {
      'tokenizer.json': gemmaJson(),
      'tokenizer_config.json': {
        tokenizer_class: 'GemmaTokenizer',
        eos_token: '<eos>',
        pad_token: '<pad>',
        model_max_length: 1e30,
      },
      'config.json': { model_type: 'siglip', text_config: { max_position_embeddings: 64 } },
    };
    const tokenizer = await Tokenizer.fromPretrained(temporaryFolder(files));
    expect(tokenizer.encode('A CAT')).to.deep.equal(tokenizer.encode('a cat'));
    expect(tokenizer.encode('a cat!')).to.not.deep.equal(tokenizer.encode('a cat'));
    expect(tokenizer.decode(tokenizer.encode('a cat!'))).to.equal('a cat!');
    expect(tokenizer.encode('ü').slice(0, 2)).to.deep.equal([4 + 0xc3, 4 + 0xbc]);
    expect(tokenizer.encode('a '.repeat(100))).to.have.length(64);
    expect([tokenizer.padTokenId, tokenizer.eosTokenId, tokenizer.modelMaxLength]).to.deep.equal([0, 1, 64]);
  });
});

describe('Tokenizer, Llama', () => {
  for (const name of ['llava-tiny', 'llava-tiny-gqa-f16', 'llava-tiny-gqa-bf16']) {
    it(`gives every golden of ${name}, and the text back`, async function () {
      needs(this, fixture(name, 'tokenizer.golden.jsonl'));
      const tokenizer = await Tokenizer.fromPretrained(fixture(name, 'checkpoint'));
      for (const { text, ids, decoded } of readGoldens(fixture(name, 'tokenizer.golden.jsonl'))) {
        expect(tokenizer.encode(text), text).to.deep.equal(ids);
        if (decoded !== undefined) expect(tokenizer.decode(ids)).to.equal(decoded);
      }
    });
  }

  it('cuts nothing unless it is asked to', async function () {
    needs(this, fixture('llava-tiny'));
    const tokenizer = await Tokenizer.fromPretrained(fixture('llava-tiny', 'checkpoint'));
    expect(tokenizer.encode('word '.repeat(3_000)).length).to.be.greaterThan(tokenizer.modelMaxLength);
    const { ids, truncated } = await tokenizer.encodeBatch(['word '.repeat(3_000)], { maxLength: 10 });
    expect([...ids[0]!]).to.deep.equal(tokenizer.encode('word '.repeat(3_000)).slice(0, 10));
    expect(truncated).to.deep.equal([true]);
    expect(() => tokenizer.encode('x'.repeat(1_048_577))).to.throw(
      'encode: a text may have 1048576 UTF-16 units, this one has 1048577',
    );
  });
});
