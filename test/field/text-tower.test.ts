// ../shared/reference/field-cases.md, section A: tokenizer and text tower.
import { expect } from 'chai';
import { CLIP, Tokenizer, ZeroShotClassifier } from '../../lib';
import {
  clipWithoutJson,
  gemmaJson,
  kClipFolder,
  needs,
  removeTemporaryFolders,
  siglipJson,
} from '../preprocess/tokenizer-reference';
import { expectError } from '../support/errors';
import { expectClose, maxRel, normal, seeded } from '../support/numbers';
import { ClipReference, logits } from './clip-reference';
import { type Files, kLetterMarks, kLetterTokenizer, ModelFolders, randomTensors, tinyClip, tinySiglip } from './model-folder';

const kTolerance = 1e-5; // relative to the largest value; float32 sums over 32 numbers are at about 1e-7

const folders = new ModelFolders();
after(removeTemporaryFolders);

async function textRows(clip: CLIP, inputIds: readonly (readonly number[])[]): Promise<Float32Array[]> {
  using features = await clip.encodeText({ inputIds });
  return features.rows();
}

describe("F03: the row that is read is the end mark's, wherever larger ids stand, and never row 0 for want of one", () => {
  const cases: readonly [ids: number[], first98: number, largest: number][] = [
    [[97, 5, 98, 99, 7], 2, 3],
    [[97, 5, 98, 98, 98], 2, 2],
    [[97, 99, 5, 98], 3, 1],
    [[97, 98], 1, 1],
    [[97, 5, 6, 98, 0, 0, 0], 3, 3],
    [[97, 99, 99, 98, 98, 99], 3, 1],
    [[97, ...Array.from({ length: 14 }, (_, i) => i), 98], 15, 15],
  ];

  for (const [eos, pooledOf, rule] of [
    [98, (entry: (typeof cases)[number]) => entry[1], 'the first one with that id'],
    [2, (entry: (typeof cases)[number]) => entry[2], 'that of the largest id'],
  ] as const) {
    describe(`eos_token_id ${eos}: ${rule}`, () => {
      const config = tinyClip({ text: { eos_token_id: eos } });
      const tensors = randomTensors(config);
      let clip: CLIP;
      before(async () => {
        clip = await CLIP.fromPretrained(folders.model(config, { tensors }), { device: 'cpu' });
      });
      after(() => clip?.dispose());

      it('one by one and in a batch', async () => {
        const reference = new ClipReference(config, tensors);
        const batch = await textRows(
          clip,
          cases.map(([ids]) => ids),
        );
        for (const [i, entry] of cases.entries()) {
          const expected = reference.text(entry[0], pooledOf(entry));
          expectClose(batch[i]!, expected, kTolerance, `[${entry[0]}]`);
          const [alone] = await textRows(clip, [entry[0]]);
          expect(maxRel(alone!, batch[i]!), `[${entry[0]}] alone`).to.equal(0);
        }
      });

      it('what stands behind it changes nothing, not a bit', async () => {
        const [plain] = await textRows(clip, [[97, 5, 6, 98]]);
        const random = seeded(3);
        for (let n = 0; n < 20; n++) {
          const behind = Array.from({ length: Math.floor(random() * 12) }, () => Math.floor(random() * (eos === 2 ? 98 : 100)));
          const [row] = await textRows(clip, [[97, 5, 6, 98, ...behind]]);
          expect(maxRel(row!, plain!), `[${behind}]`).to.equal(0);
        }
      });

      it('a row without one is an error, in a batch as well, and the next call works', async () => {
        const none = eos === 2 ? [99, 5, 6] : [97, 5, 6];
        const message =
          eos === 2
            ? 'a text must have an end mark, the largest id, behind its start: [99, 5, 6]'
            : 'a text must have its end mark, id 98, among its tokens: [97, 5, 6]';
        await expectError(() => clip.encodeText({ inputIds: [none] }), 'ERR_TOKENIZER', message);
        await expectError(() => clip.encodeText({ inputIds: [[97, 98], none] }), 'ERR_TOKENIZER', message);
        const full = Array.from({ length: 16 }, (_, i) => 50 - i);
        await expectError(() => clip.encodeText({ inputIds: [full] }), 'ERR_TOKENIZER', /, … 16 in all\]$/);
        expect(await textRows(clip, [[97, 98]])).to.have.length(1);
      });
    });
  }

  it('a token that was added above the end mark is not taken for it', async () => {
    const added = { 'added_tokens.json': { '<new>': kLetterMarks.size, '<newer>': kLetterMarks.size + 1 } };
    const size = kLetterMarks.size + 2;
    for (const [eos, pooled] of [
      [kLetterMarks.end, 4],
      [2, 3],
    ] as const) {
      const config = tinyClip({ text: { vocab_size: size, eos_token_id: eos } });
      const tensors = randomTensors(config);
      using clip = await CLIP.fromPretrained(folders.model(config, { tensors, files: { ...kLetterTokenizer, ...added } }), {
        device: 'cpu',
      });
      expect(clip.tokenizer!.encode('a <new><newer>')).to.deep.equal([52, 26, 54, 55, 53]);
      using features = await clip.encodeText('a <new><newer>');
      expectClose(await features.read(), new ClipReference(config, tensors).text([52, 26, 54, 55, 53], pooled), kTolerance);
    }
  });

  it('an end mark that the vocabulary does not have is refused when the model is loaded', async () => {
    const config = tinyClip({ text: { eos_token_id: 100 } });
    await expectError(
      () =>
        CLIP.fromPretrained(folders.make({ 'config.json': config, 'model.safetensors': new Uint8Array() }), { device: 'cpu' }),
      'ERR_CHECKPOINT', // the file is looked at first
    );
    const folder = folders.model(tinyClip(), { files: { 'config.json': config } });
    await expectError(
      () => CLIP.fromPretrained(folder, { device: 'cpu' }),
      'ERR_CONFIG',
      'config.json: text_config.eos_token_id must be 2, or below vocab_size, 100: it is 100',
    );
  });

  it('MetaCLIP 2, where 2 is a true id, is refused with that id and read with another', async () => {
    const of = (eos: number) => tinyClip({ top: { model_type: 'metaclip_2' }, text: { eos_token_id: eos } });
    const refused = folders.model(tinyClip(), { files: { 'config.json': of(2) } });
    await expectError(() => CLIP.fromPretrained(refused, { device: 'cpu' }), 'ERR_CONFIG', /metaclip_2 with eos_token_id 2/);
    using clip = await CLIP.fromPretrained(folders.model(of(3)), { device: 'cpu' });
    const expected = new ClipReference(of(3), randomTensors(of(3))).text([97, 99, 3, 98], 2);
    expectClose((await textRows(clip, [[97, 99, 3, 98]]))[0]!, expected, kTolerance);
  });
});

describe('F06: a SigLIP text is always padded to its full length, and each label is judged by itself', () => {
  const files = {
    'tokenizer.json': siglipJson(),
    'tokenizer_config.json': { tokenizer_class: 'SiglipTokenizer', eos_token: '</s>', pad_token: '</s>', unk_token: '<unk>' },
  };
  const config = tinySiglip({ text: { vocab_size: 400, max_position_embeddings: 24 } });
  const tensors = randomTensors(config);
  const image = { pixels: normal(2 * 3 * 16 * 16, 5), shape: [2, 3, 16, 16] };
  const labels = ['cat', 'dog', 'a very long label of many more words'];
  let clip: CLIP;
  before(async () => {
    clip = await CLIP.fromPretrained(folders.model(config, { tensors, files }), { device: 'cpu' });
  });
  after(() => clip?.dispose());

  it('a label alone, beside a long one and with its padding given is the same, and equals the reference', async () => {
    const reference = new ClipReference(config, tensors);
    using alone = await clip.encodeText('cat');
    using beside = await clip.encodeText(labels);
    const expected = labels.map((label) => reference.text(clip.tokenizer!.encode(label)));
    expect(maxRel(await alone.read(), (await beside.rows())[0]!)).to.equal(0);
    for (const [i, row] of (await beside.rows()).entries()) expectClose(row, expected[i]!, kTolerance, labels[i]);
    const ids = clip.tokenizer!.encode('cat');
    const padded = [...ids, ...Array<number>(24 - ids.length).fill(1)];
    expect(maxRel((await textRows(clip, [padded]))[0]!, await alone.read())).to.equal(0);
  });

  it('scores are sigmoids of exp(scale)·cos + bias: another label changes none', async () => {
    const reference = new ClipReference(config, tensors);
    const images = reference.images(image.pixels);
    for (const count of [1, 2, 3]) {
      const classes = labels.slice(0, count);
      using classifier = new ZeroShotClassifier(clip, classes, { template: '{}' });
      const texts = classes.map((label) => reference.text(clip.tokenizer!.encode(label)));
      const expected = logits(images, texts, 2.6592, -1.5).map((row) => row.map((logit) => 1 / (1 + Math.exp(-logit))));
      const results = await classifier.classify([image]);
      results.forEach(({ scores }, i) => {
        for (const { index, score } of scores) expect(score).to.be.closeTo(expected[i]![index]!, 1e-6);
      });
    }
  });

  it("pads with its tokenizer's pad token where that is another than the config's, as for SigLIP 2", async () => {
    const gemma = {
      'tokenizer.json': gemmaJson(),
      'tokenizer_config.json': { tokenizer_class: 'GemmaTokenizer', eos_token: '<eos>', pad_token: '<pad>' },
    };
    for (const stated of [{}, { pad_token_id: 1 }]) {
      const two = tinySiglip({ text: { vocab_size: 1000, max_position_embeddings: 12, ...stated } });
      const weights = randomTensors(two);
      using model = await CLIP.fromPretrained(folders.model(two, { tensors: weights, files: gemma }), { device: 'cpu' });
      expect(model.tokenizer!.padTokenId).to.equal(0);
      const ids = model.tokenizer!.encode('a cat');
      using features = await model.encodeText('a cat');
      const expected = new ClipReference(
        tinySiglip({ text: { vocab_size: 1000, max_position_embeddings: 12, pad_token_id: 0 } }),
        weights,
      );
      expectClose(await features.read(), expected.text(ids), kTolerance);
    }
    using bare = await CLIP.fromPretrained(folders.model(config, { tensors }), { device: 'cpu' }); // no tokenizer: the config's, 1
    expectClose((await textRows(bare, [[7, 8]]))[0]!, new ClipReference(config, tensors).text([7, 8, 1, 1]), kTolerance);
  });
});

describe('F12: a text over the length is cut in front of its end mark, which stays and is the row that is read', () => {
  for (const [form, folderOf] of [
    ['tokenizer.json', () => kClipFolder],
    ['vocab.json + merges.txt', clipWithoutJson],
  ] as const) {
    it(`74 to 77, 100 and 100,000 content tokens, from ${form}`, async function () {
      needs(this, kClipFolder);
      const tokenizer = await Tokenizer.fromPretrained(folderOf());
      const counts = [74, 75, 76, 77, 100, 100_000];
      const { ids, truncated } = await tokenizer.encodeBatch(counts.map((n) => 'a '.repeat(n)));
      for (const [i, n] of counts.entries()) {
        expect([...ids[i]!], String(n)).to.deep.equal([49406, ...Array<number>(Math.min(n, 75)).fill(320), 49407]);
        expect(truncated[i], String(n)).to.equal(n > 75);
      }
    });
  }

  const config = tinyClip({ text: { vocab_size: kLetterMarks.size, eos_token_id: kLetterMarks.end } });
  const tensors = randomTensors(config);
  let clip: CLIP;
  before(async () => {
    clip = await CLIP.fromPretrained(folders.model(config, { tensors, files: kLetterTokenizer }), { device: 'cpu' });
  });
  after(() => clip?.dispose());

  it("the model's own length counts, and the features are those of the cut text", async () => {
    const reference = new ClipReference(config, tensors);
    for (const length of [13, 14, 15, 300]) {
      const ids = [kLetterMarks.start, ...Array<number>(Math.min(length, 14)).fill(26), kLetterMarks.end];
      using features = await clip.encodeText('a '.repeat(length));
      expectClose(await features.read(), reference.text(ids), kTolerance, `${length} tokens`);
    }
  });

  it("a template counts: the label's tail falls off, and labels that differ only there score the same", async () => {
    const classes = ['aaaaaaaaab', 'aaaaaaaaac', 'z'];
    using classifier = new ZeroShotClassifier(clip, classes, { template: 'a photo {}' }); // 6 tokens, then 8 of the label's 10
    const image = { pixels: normal(3 * 16 * 16, 5), shape: [1, 3, 16, 16] };
    const { scores } = await classifier.classify(image);
    const of = (index: number) => scores.find((entry) => entry.index === index)!.score;
    expect(of(0)).to.equal(of(1));
    const reference = new ClipReference(config, tensors);
    const cut = [kLetterMarks.start, 26, 15, 7, 14, 19, 40, ...Array<number>(8).fill(0), kLetterMarks.end];
    using features = await clip.encodeText('a photo aaaaaaaaab');
    expectClose(await features.read(), reference.text(cut), kTolerance);
  });

  it('ids that are too long are an error that says so', async () => {
    await expectError(
      () => clip.encodeText({ inputIds: [[52, ...Array<number>(15).fill(1), 53]] }),
      'ERR_ARGUMENT',
      'text 0 has 17 tokens, the model reads at most 16',
    );
  });
});

describe("F20: ids are those of CLIP's own byte-pair encoding, from either form of its files", () => {
  const golden: Readonly<Record<string, number[]>> = {
    'a photo of a fox': [320, 1125, 539, 320, 3240],
    "You should've done this": [592, 1535, 1200, 1700, 589],
    résumé: [29106, 7054, 4166],
  };
  for (const [form, folderOf] of [
    ['tokenizer.json', () => kClipFolder],
    ['vocab.json + merges.txt', clipWithoutJson],
  ] as const) {
    it(`contractions, accents, digits, case, space and both normal forms, from ${form}`, async function () {
      needs(this, kClipFolder);
      const tokenizer = await Tokenizer.fromPretrained(folderOf());
      for (const [text, ids] of Object.entries(golden)) {
        const whole = [49406, ...ids, 49407];
        const same = [text, text.normalize('NFD'), text.toUpperCase(), ` ${text}\n`, text.replaceAll(' ', '\u00a0\t')];
        for (const variant of same) expect(tokenizer.encode(variant), JSON.stringify(variant)).to.deep.equal(whole);
      }
      const digits = tokenizer.encode('0 1 2 3 4 5 6 7 8 9').slice(1, -1);
      expect(digits).to.have.length(10);
      expect(tokenizer.encode('1234567890').slice(1, -1)).to.deep.equal([...digits.slice(1), digits[0]]);
    });
  }
});

describe('F28: SigLIP reads neither case nor punctuation, SigLIP 2 no case; the last position is pooled though it is a pad', () => {
  const models: readonly (readonly [name: string, files: Files, dropsPunctuation: boolean])[] = [
    [
      'SigLIP',
      {
        'tokenizer.json': siglipJson(),
        'tokenizer_config.json': { tokenizer_class: 'SiglipTokenizer', eos_token: '</s>', pad_token: '</s>' },
      },
      true,
    ],
    [
      'SigLIP 2',
      {
        'tokenizer.json': gemmaJson(),
        'tokenizer_config.json': { tokenizer_class: 'GemmaTokenizer', eos_token: '<eos>', pad_token: '<pad>' },
      },
      false,
    ],
  ];
  for (const [name, files, dropsPunctuation] of models) {
    it(name, async () => {
      const config = tinySiglip({ text: { vocab_size: 1000, max_position_embeddings: 64 } });
      const tensors = randomTensors(config);
      using clip = await CLIP.fromPretrained(folders.model(config, { tensors, files }), { device: 'cpu' });
      const rows = async (texts: string[]) => {
        using features = await clip.encodeText(texts);
        return features.rows();
      };
      const [cat, upper, marked] = await rows(['a cat', 'A CAT', 'A Cat!']);
      expect(maxRel(upper!, cat!)).to.equal(0);
      expect(maxRel(marked!, cat!) === 0).to.equal(dropsPunctuation);
      const pad = clip.tokenizer!.padTokenId;
      const reference = new ClipReference(
        tinySiglip({ text: { vocab_size: 1000, max_position_embeddings: 64, pad_token_id: pad } }),
        tensors,
      );
      for (const words of [1, 62, 63, 64, 65, 200]) {
        const text = 'cat '.repeat(words);
        const ids = clip.tokenizer!.encode(text);
        expect(ids.length, `${words} words`).to.be.at.most(64);
        const [row] = await rows([text]);
        expectClose(row!, reference.text(ids, 63), kTolerance, `${words} words`);
      }
    });
  }
});
