// ../shared/reference/field-cases.md, section E: what scores are made of.
import { expect } from 'chai';
import { CLIP, ZeroShotClassifier } from '../../lib';
import { expectError } from '../support/errors';
import { softmax } from '../support/float64';
import { expectClose, normal } from '../support/numbers';
import { ClipReference, logits } from './clip-reference';
import {
  kLetterMarks,
  kLetterTokenizer,
  ModelFolders,
  randomTensors,
  type StoredDType,
  tinyClip,
  tinySiglip,
} from './model-folder';

const folders = new ModelFolders();
const kPixels = normal(3 * 3 * 16 * 16, 5);
const kImages = { pixels: kPixels, shape: [3, 3, 16, 16] };

describe('F27: logits are exp(logit_scale)·cos, with the scale that is stored', () => {
  const config = tinyClip({ text: { vocab_size: kLetterMarks.size, eos_token_id: kLetterMarks.end } });
  const labels = ['cat', 'dog', 'a rocket', 'zebra', 'cup'];

  function scaled(value: number, shape: readonly number[], dtype: StoredDType): string {
    const tensors = randomTensors(config, { dtype });
    tensors.set('logit_scale', { shape, values: Float32Array.of(value) });
    return folders.model(config, { tensors, dtype, files: kLetterTokenizer });
  }

  for (const dtype of ['F32', 'F16', 'BF16'] as const) {
    for (const shape of [[], [1]]) {
      it(`0, 4.04297 and 4.6052 as ${dtype} [${shape}]: the order is the same, the confidence is not`, async () => {
        const reference = new ClipReference(config, randomTensors(config, { dtype }));
        const images = reference.images(kPixels);
        const orders: number[][] = [];
        for (const stored of [0, 4.04297, 4.6052]) {
          using clip = await CLIP.fromPretrained(scaled(stored, shape, dtype), { device: 'cpu' });
          expect(clip.logitScale).to.be.closeTo(stored, { F32: 1e-6, F16: 2e-3, BF16: 2e-2 }[dtype]);
          const texts = labels.map((label) => reference.text(clip.tokenizer!.encode(label)));
          const expected = logits(images, texts, clip.logitScale);
          const out = await clip.forward(kImages, labels);
          const flat = expected.flat();
          expectClose(await out.logitsPerImage.read(), flat, 1e-5, 'logitsPerImage');
          const transposed = labels.flatMap((_, t) => expected.map((row) => row[t]!));
          expectClose(await out.logitsPerText.read(), transposed, 1e-5, 'logitsPerText');
          expect([out.logitsPerImage.shape, out.logitsPerText.shape]).to.deep.equal([
            [3, 5],
            [5, 3],
          ]);
          out.dispose();

          using classifier = new ZeroShotClassifier(clip, labels, { template: '{}' });
          const results = await classifier.classify([kImages]);
          results.forEach(({ scores }, i) => {
            const wanted = softmax(expected[i]!);
            for (const { index, score } of scores) expect(score).to.be.closeTo(wanted[index]!, 1e-5);
          });
          orders.push(results.flatMap(({ scores }) => scores.map(({ index }) => index)));
        }
        expect(orders[1]).to.deep.equal(orders[0]);
        expect(orders[2]).to.deep.equal(orders[0]);
      });
    }
  }

  it('4.6052 is a factor of 100, 4.04297 of 56.995', async () => {
    for (const [stored, factor] of [
      [4.6052, 100.003],
      [4.04297, 56.995],
    ] as const) {
      using clip = await CLIP.fromPretrained(scaled(stored, [], 'F32'), { device: 'cpu' });
      const [cosines] = await clip.similarity(kImages, labels);
      const out = await clip.forward(kImages, labels);
      const [row] = await out.logitsPerImage.rows();
      row!.forEach((logit, i) => {
        expect(logit / cosines![i]!).to.be.closeTo(factor, 0.002);
      });
      out.dispose();
    }
  });

  for (const value of [100, 89, Number.NaN, Number.POSITIVE_INFINITY]) {
    it(`${value} is an error that names logit_scale, and the next model loads`, async () => {
      await expectError(
        () => CLIP.fromPretrained(scaled(value, [], 'F32'), { device: 'cpu' }),
        'ERR_CONFIG',
        `logit_scale is ${value}: exp(logit_scale) must be a finite float32; a trained one is about ln 100 = 4.6`,
      );
      using clip = await CLIP.fromPretrained(scaled(1, [], 'F32'), { device: 'cpu' });
      expect(clip.logitScale).to.equal(1);
    });
  }

  it('-1000 is a factor of 0: every class scores the same, no NaN', async () => {
    using clip = await CLIP.fromPretrained(scaled(-1000, [1], 'F32'), { device: 'cpu' });
    using classifier = new ZeroShotClassifier(clip, labels);
    const { scores } = await classifier.classify(kImages);
    expect(scores.map(({ score }) => score)).to.deep.equal(labels.map(() => Math.fround(0.2)));
    expect(scores.map(({ index }) => index)).to.deep.equal([0, 1, 2, 3, 4]);
  });

  it("SigLIP's bias counts, and one that is no number is an error", async () => {
    const siglip = tinySiglip();
    const tensors = randomTensors(siglip);
    const reference = new ClipReference(siglip, tensors);
    const ids = [
      [5, 6, 7],
      [9, 8],
    ];
    for (const bias of [0, -16.5, 3]) {
      tensors.set('logit_bias', { shape: [1], values: Float32Array.of(bias) });
      using clip = await CLIP.fromPretrained(folders.model(siglip, { tensors }), { device: 'cpu' });
      const out = await clip.forward(kImages, { inputIds: ids });
      const expected = logits(
        reference.images(kPixels),
        ids.map((row) => reference.text(row)),
        Math.fround(2.6592),
        bias,
      );
      expectClose(await out.logitsPerImage.read(), expected.flat(), 1e-5);
      out.dispose();
    }
    tensors.set('logit_bias', { shape: [1], values: Float32Array.of(Number.NaN) });
    await expectError(
      () => CLIP.fromPretrained(folders.model(siglip, { tensors }), { device: 'cpu' }),
      'ERR_CONFIG',
      'logit_bias is NaN: it must be a finite number',
    );
  });
});
