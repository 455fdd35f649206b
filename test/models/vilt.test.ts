import { expect } from 'chai';
import { ImageProcessor, ViLT } from '../../lib';
import { placementOf } from '../../lib/preprocess/image-processor';
import { type Json, ModelFolders } from '../field/model-folder';
import { expectError } from '../support/errors';
import { picture, pixelsOf, tinyVilt, viltWeights } from './pair-shapes';
import { describeViltGolden, kViltFixtures } from './vilt-golden';

for (const folder of kViltFixtures) describeViltGolden(folder, { device: 'cpu', dtype: 'float32' });

describe('ViLT', () => {
  const folders = new ModelFolders();
  const config = tinyVilt();
  const load = (fields: Json = {}, answers?: number, tensors = viltWeights({ ...config, ...fields }, answers)) =>
    ViLT.fromPretrained(folders.model({ ...config, ...fields }, { tensors }), { device: 'cpu' });
  const image = pixelsOf(picture(24, 24));
  const text = { inputIds: [[5, 7, 9]] };

  it('refuses a call that needs the other head, and names both', async () => {
    using scores = await load();
    await expectError(() => scores.answer(image, text), 'ERR_CONFIG', /answer: it needs a question-answering head.*retrieval/);
    using answers = await load({}, 3);
    await expectError(() => answers.score(image, text), 'ERR_CONFIG', /score: it needs a retrieval head.*question-answering/);
    expect((await answers.answer(image, text)).map(({ label }) => label).sort()).to.deep.equal(['LABEL_0', 'LABEL_1', 'LABEL_2']);
    await expectError(() => answers.answer(image, text, { topK: 0 }), 'ERR_ARGUMENT', /topK/);
  });

  it('refuses what is no pair, no text, too long, too small or of another shape', async () => {
    using vilt = await load();
    await expectError(() => vilt.forward([image, image], text), 'ERR_ARGUMENT', /2 images and 1 texts were given/);
    await expectError(() => vilt.forward(image, { inputIds: [[0, 0]] }), 'ERR_ARGUMENT', /no tokens but pads/);
    await expectError(() => vilt.forward(image, { inputIds: [Array(25).fill(3)] }), 'ERR_ARGUMENT', /25 tokens, .* at most 24/);
    await expectError(() => vilt.forward(image, { inputIds: [[90]] }), 'ERR_ARGUMENT', /0 to 89/);
    await expectError(() => vilt.forward(image, 'a cat'), 'ERR_TOKENIZER', /no tokenizer files/);
    await expectError(() => vilt.forward(pixelsOf(picture(7, 24)), text), 'ERR_SHAPE', /at least 8 x 8/);
    await vilt.warmup({ batch: 2 });
    expect(await vilt.score([], text)).to.deep.equal([]);
    const padded = await vilt.score(image, { inputIds: [[5, 7, 9, 0, 0]] });
    expect(padded).to.deep.equal(await vilt.score(image, text));
    vilt.dispose();
    await expectError(() => vilt.forward(image, text), 'ERR_DISPOSED');
  });

  it('refuses other models and tasks, and tensors that are not what the config says', async () => {
    await expectError(() => load({ architectures: ['ViltForMaskedLM'] }), 'ERR_CONFIG', /fills masks/);
    await expectError(() => load({ model_type: 'clip' }), 'ERR_CONFIG', /model_type must be one of vilt/);
    await expectError(() => load({ id2label: { one: 'yes' } }), 'ERR_CONFIG', /id2label/);
    const tensors = viltWeights(config);
    const without = new Map(tensors);
    without.delete('rank_output.weight');
    await expectError(() => load({}, undefined, without), 'ERR_CHECKPOINT', /no head/);
    await expectError(() => load({ num_hidden_layers: 1 }, undefined, tensors), 'ERR_CHECKPOINT', /the encoder has 1 layers/);
    await expectError(() => load({ image_size: 32 }, undefined, tensors), 'ERR_CHECKPOINT', /position_embeddings/);
  });

  it('aborts, and gives each pair of many what it gets alone', async () => {
    using vilt = await load();
    const sizes = [picture(24, 24, 1), picture(16, 40, 2), picture(24, 24, 3), picture(40, 16, 4)].map(pixelsOf);
    const texts = { inputIds: [[5, 7, 9], [11], [3, 4], [8, 8, 8, 8]] };
    const together = await vilt.score(sizes, texts);
    for (const [i, one] of sizes.entries())
      for (const [j, ids] of texts.inputIds.entries()) {
        const [[alone]] = (await vilt.score(one, { inputIds: [ids] })) as [[number]];
        expect(together[i]![j]).to.be.closeTo(alone, 1e-5);
      }
    await expectError(() => vilt.score(sizes, texts, { signal: AbortSignal.abort() }), 'ERR_ABORTED');
  });

  it('resizes pictures as the processor of ViLT does', async () => {
    const processor = new ImageProcessor({ image_processor_type: 'ViltImageProcessor' });
    const sizeOf = (width: number, height: number) => {
      const { resizedHeight, resizedWidth } = placementOf(processor.spec, { width, height });
      return [resizedHeight, resizedWidth];
    };
    // by transformers' rule: scale 384 / 480 = 0.8; 640 · 0.8 = 512
    expect(sizeOf(640, 480)).to.deep.equal([384, 512]);
    expect(sizeOf(480, 640)).to.deep.equal([512, 384]);
    // 384 / 100 · 1000 = 3840 > 639: 639 / 3840 of both, 639 and 63.9 + 0.5, down to multiples of 32
    expect(sizeOf(1000, 100)).to.deep.equal([64, 608]);
    expect(sizeOf(5000, 1)).to.deep.equal([32, 608]);
    expect(sizeOf(400, 391)).to.deep.equal([384, 384]);
  });
});
