import { join } from 'node:path';
import { expect } from 'chai';
import { CLIP, ZeroShotClassifier } from '../lib';
import { expectError } from './support/errors';
import { data, fixtures, needsFixtures, readFixture } from './support/fixtures';
import { expectClose } from './support/numbers';

describe('ZeroShotClassifier', () => {
  let clip: CLIP;
  let pixels: { pixels: Float32Array; shape: [number, number, number, number] };

  before(async function () {
    needsFixtures(this);
    clip = await CLIP.fromPretrained(join(fixtures, 'clip-tiny-quickgelu', 'checkpoint'), { device: 'cpu' });
    const { data: numbers, shape } = readFixture('clip-tiny-quickgelu', 'inputs').get('pixel_values')!;
    pixels = { pixels: numbers as Float32Array, shape: shape as [number, number, number, number] };
  });
  after(() => clip?.dispose());

  /** softmax of forward()'s logits, by picture, in class order */
  async function expected(prompts: readonly string[]): Promise<number[][]> {
    const out = await clip.forward(pixels, prompts);
    const rows = await out.logitsPerImage.rows();
    out.dispose();
    return rows.map((row) => {
      const most = Math.max(...row);
      const exps = [...row].map((logit) => Math.exp(logit - most));
      const sum = exps.reduce((a, b) => a + b, 0);
      return exps.map((value) => value / sum);
    });
  }

  it("gives the softmax of forward()'s logits, sorted", async () => {
    const labels = ['cat', 'dog', 'rocket', 'cup of coffee'];
    const classifier = new ZeroShotClassifier(clip, labels);
    await classifier.ready;
    const results = await classifier.classify([pixels]);
    const scores = await expected(labels.map((label) => `a photo of a ${label}`));
    expect(results.length).to.equal(3);
    results.forEach((result, i) => {
      expect(result.scores.map(({ score }) => score)).to.deep.equal(
        [...result.scores].map(({ score }) => score).sort((a, b) => b - a),
      );
      const inOrder = labels.map((label) => result.scores.find((entry) => entry.label === label)!.score);
      expectClose(inOrder, scores[i]!, 1e-5);
      expect(result.label).to.equal(labels[result.index]);
      expect(result.score).to.equal(result.scores[0]!.score);
    });
    classifier.dispose();
  });

  it('classifies one picture of a file, and cuts the list at topK', async () => {
    const classifier = new ZeroShotClassifier(clip, ['cat', 'dog', 'rocket'], { template: 'a {}' });
    const result = await classifier.classify(join(data, 'pictures', 'chelsea.png'), { topK: 2 });
    expect(result.scores.length).to.equal(2);
    expect(result.label).to.be.oneOf(['cat', 'dog', 'rocket']);
    const all = await classifier.classify(join(data, 'pictures', 'chelsea.png'), { topK: 99 });
    expect(all.scores.length).to.equal(3);
    expect(all.scores.reduce((sum, { score }) => sum + score, 0)).to.be.closeTo(1, 1e-5);
  });

  it('ensembles templates: normalise, average, normalise', async () => {
    const labels = ['cat', 'dog'];
    const templates = ['a photo of a {}', 'a drawing of a {}', 'the {}'];
    const classifier = new ZeroShotClassifier(clip, labels, { template: templates });
    const [first] = await classifier.classify([pixels]);

    const unit = (row: ArrayLike<number>) => {
      const length = Math.hypot(...Array.from(row));
      return Array.from(row, (value) => value / length);
    };
    const classes: number[][] = [];
    for (const label of labels) {
      const rows = await (await clip.encodeText(templates.map((template) => template.replace('{}', label)))).rows();
      const units = rows.map(unit);
      classes.push(unit(units[0]!.map((_, d) => units.reduce((sum, row) => sum + row[d]!, 0) / units.length)));
    }
    const image = unit((await (await clip.encodeImage(pixels)).rows())[0]!);
    const logits = classes.map((row) => Math.exp(clip.logitScale) * row.reduce((sum, value, d) => sum + value * image[d]!, 0));
    const exps = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
    const scores = exps.map((value) => value / exps.reduce((a, b) => a + b, 0));
    const inOrder = labels.map((label) => first!.scores.find((entry) => entry.label === label)!.score);
    expectClose(inOrder, scores, 1e-4);
  });

  it('takes a function as template, and labels literally', async () => {
    const seen: string[] = [];
    const classifier = new ZeroShotClassifier(clip, ['$&', 'a$$b'], {
      template: (label) => {
        seen.push(label);
        return [`a ${label}`, `the ${label}`];
      },
    });
    await classifier.ready;
    expect(seen).to.deep.equal(['$&', 'a$$b']);
    const plain = new ZeroShotClassifier(clip, ['$&', 'cat']);
    const scores = await expected(['a photo of a $&', 'a photo of a cat']);
    const [result] = await plain.classify([pixels]);
    expect(result!.scores.find(({ label }) => label === '$&')!.score).to.be.closeTo(scores[0]![0]!, 1e-5);
  });

  it("SigLIP: each class by itself; another label changes no class's score", async function () {
    needsFixtures(this);
    const siglip = await CLIP.fromPretrained(join(fixtures, 'siglip-tiny', 'checkpoint'), { device: 'cpu' });
    const { data: ids, shape } = readFixture('siglip-tiny', 'inputs').get('input_ids')!;
    const input = readFixture('siglip-tiny', 'inputs').get('pixel_values')!;
    const rows = Array.from({ length: shape[0]! }, (_, i) => [...ids.subarray(i * shape[1]!, (i + 1) * shape[1]!)]);
    const image = { pixels: input.data as Float32Array, shape: input.shape as [number, number, number, number] };
    const classes = await siglip.encodeText({ inputIds: rows }, { normalize: true });
    const ranked = await siglip.rankClasses(image, classes, 'test', rows.length);
    const probs = readFixture('siglip-tiny', 'expected').get('probs')!.data;
    const m = rows.length;
    ranked.forEach(({ scores, indices }, i) => {
      indices.forEach((index, place) => {
        expect(scores[place]).to.be.closeTo(probs[i * m + index]!, 1e-4 * Math.max(...probs));
      });
    });
    siglip.dispose();
  });

  it('refuses what makes no sense, with a sentence', async () => {
    await expectError(() => new ZeroShotClassifier(clip, []), 'ERR_ARGUMENT', 'ZeroShotClassifier: at least one class is needed');
    await expectError(
      () => new ZeroShotClassifier(clip, ['a', 'b', 'a']),
      'ERR_ARGUMENT',
      'ZeroShotClassifier: the class "a" is there twice',
    );
    await expectError(() => new ZeroShotClassifier(clip, ['a'], { template: 'no place' }), 'ERR_ARGUMENT', /needs '{}'/);
    await expectError(() => new ZeroShotClassifier(clip, ['a'], { template: [] }), 'ERR_ARGUMENT');
    const classifier = new ZeroShotClassifier(clip, ['a']);
    await expectError(
      () => classifier.classify('x.png', { topK: 0 }),
      'ERR_ARGUMENT',
      'topK must be a whole number from 1 on: it is 0',
    );
    await expectError(() => classifier.classify('does-not-exist.png'), 'ERR_IMAGE');
    classifier.dispose();
    await expectError(() => classifier.classify(pixels), 'ERR_DISPOSED');
    expect(await new ZeroShotClassifier(clip, ['a']).classify([])).to.deep.equal([]);
  });

  it('stops when its signal fires', async () => {
    const classifier = new ZeroShotClassifier(clip, ['a', 'b']);
    await expectError(() => classifier.classify(pixels, { signal: AbortSignal.abort() }), 'ERR_ABORTED');
  });
});
