import { join } from 'node:path';
import { expect } from 'chai';
import { type DeviceName, type Float, ViLT } from '../../lib';
import { fixtures, needsFixtures, readFixture } from '../support/fixtures';
import { expectClose, minCosine } from '../support/numbers';
import { idRows, unpaddedPixels } from './pair-inputs';

/** What the fixtures' README allows. */
export const kCosine: Readonly<Record<Float, number>> = { float32: 0.99999, float16: 0.9999, bfloat16: 0.999 };

export const kViltFixtures = ['vilt-tiny-retrieval', 'vilt-tiny-vqa'] as const;

/** A ViLT of the fixtures, on one device in one dtype. */
export function describeViltGolden(
  folder: (typeof kViltFixtures)[number],
  { device, dtype }: { device: DeviceName; dtype: Float },
): void {
  describe(`ViLT: ${folder} on ${device} in ${dtype}`, () => {
    let vilt: ViLT;

    before(async function () {
      needsFixtures(this);
      vilt = await ViLT.fromPretrained(join(fixtures, folder, 'checkpoint'), { device, dtype });
      expect([vilt.device, vilt.dtype]).to.deep.equal([device, dtype]);
    });
    after(() => vilt?.dispose());

    const expected = (name: string) => readFixture(folder, 'expected').get(name)!;
    const expectNear = (actual: Float32Array, data: ArrayLike<number>, width: number, name: string) => {
      expect(minCosine(actual, data, width), `${name}: cosine`).to.be.at.least(kCosine[dtype]);
      if (dtype === 'float32') expectClose(actual, data, 1e-4, name);
    };

    it('gives the logits and pooled rows of the reference, pictures of several sizes in one call', async () => {
      const { logits, pooled, dispose } = await vilt.forward(unpaddedPixels(folder), { inputIds: idRows(folder) });
      expect(logits.shape).to.deep.equal(expected('scores').shape);
      expect(pooled.shape).to.deep.equal(expected('pooler_output').shape);
      const [n, outputs] = logits.shape as [number, number];
      // A score has no direction: the cosine is over the batch.
      expectNear(await logits.read(), expected('scores').data, outputs === 1 ? n : outputs, 'scores');
      expectNear(await pooled.read(), expected('pooler_output').data, pooled.shape[1]!, 'pooler_output');
      dispose();
    });

    if (folder === 'vilt-tiny-retrieval') {
      it('scores every image with every text: the diagonal is the reference’s', async () => {
        const scores = await vilt.score(unpaddedPixels(folder), { inputIds: idRows(folder) });
        expect(scores.map((row) => row.length)).to.deep.equal([3, 3, 3]);
        const diagonal = Float32Array.from(scores, (row, i) => row[i]!);
        expectNear(diagonal, expected('scores').data, 3, 'scores');
      });
    } else {
      it('answers with the labels of the config, the best first', async () => {
        const [image] = unpaddedPixels(folder);
        const answers = await vilt.answer(image!, { inputIds: [idRows(folder)[0]!] }, { topK: 23 });
        const logits = [...expected('scores').data.subarray(0, 23)];
        const order = logits.map((_, i) => i).sort((a, b) => logits[b]! - logits[a]!);
        expect(answers[0]).to.include({ index: order[0], label: `answer ${order[0]}` });
        expect(answers.map(({ score }) => score)).to.deep.equal(answers.map(({ score }) => score).sort((a, b) => b - a));
        const scores = Float32Array.from(logits, (_, i) => answers.find(({ index }) => index === i)!.score);
        expectClose(
          scores,
          logits.map((logit) => 1 / (1 + Math.exp(-logit))),
          dtype === 'float32' ? 1e-4 : 2e-2,
          'scores',
        );
      });
    }
  });
}
