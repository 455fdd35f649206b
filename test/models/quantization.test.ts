import { join } from 'node:path';
import { expect } from 'chai';
import { CLIP, LLaVA, Llama, ops, Tensor, Weight } from '../../lib';
import { expectError } from '../support/errors';
import { fixtures, needsFixtures, readFixture, readMeta } from '../support/fixtures';
import { minCosine, normal } from '../support/numbers';
import { kClipFixtures } from './golden';
import { kLlamaFixtures } from './llama-golden';
import { kLlavaFixtures } from './llava-golden';

/** What int8 promises, against independent references. */
const kCosine = 0.995;
const int8 = { device: 'cpu', quantization: 'int8' } as const;

/** @param width of what is compared as one vector: a row by default */
function expectNear(actual: Float32Array, folder: string, name: string, width?: number): void {
  const { data, shape } = readFixture(folder, 'expected').get(name)!;
  expect(actual).to.have.length(data.length);
  expect(minCosine(actual, data, width ?? shape.at(-1)!), `${folder} ${name}: cosine`).to.be.at.least(kCosine);
}

describe("quantization: 'int8'", () => {
  before(function () {
    needsFixtures(this);
  });

  for (const folder of kClipFixtures) {
    it(`${folder}: features, embeddings and logits are near the reference's, beside a model that is not quantised`, async () => {
      const checkpoint = join(fixtures, folder, 'checkpoint');
      using plain = await CLIP.fromPretrained(checkpoint, { device: 'cpu' });
      using clip = await CLIP.fromPretrained(checkpoint, int8);
      expect([clip.quantization, clip.dtype, plain.quantization]).to.deep.equal(['int8', 'float32', 'none']);
      expect(clip.memoryUsage().weights).to.be.below(plain.memoryUsage().weights);
      const inputs = readFixture(folder, 'inputs');
      const { data: pixels, shape } = inputs.get('pixel_values')!;
      const { data: ids, shape: idShape } = inputs.get('input_ids')!;
      const width = idShape[1]!;
      const images = { pixels: pixels as Float32Array, shape: shape as [number, number, number, number] };
      const texts = { inputIds: Array.from({ length: idShape[0]! }, (_, i) => [...ids.subarray(i * width, (i + 1) * width)]) };
      using imageFeatures = await clip.encodeImage(images);
      using textFeatures = await clip.encodeText(texts);
      expectNear(await imageFeatures.read(), folder, 'image_features');
      expectNear(await textFeatures.read(), folder, 'text_features');
      const out = await clip.forward(images, texts);
      expectNear(await out.imageEmbeds.read(), folder, 'image_embeds');
      expectNear(await out.textEmbeds.read(), folder, 'text_embeds');
      const pairs = shape[0]! * idShape[0]!; // a row of logits is three numbers: too few for a cosine
      expectNear(await out.logitsPerImage.read(), folder, 'logits_per_image', pairs);
      expectNear(await out.logitsPerText.read(), folder, 'logits_per_text', pairs);
      out.dispose();
      using unquantised = await plain.encodeImage(images);
      expect(
        minCosine(await unquantised.read(), readFixture(folder, 'expected').get('image_features')!.data, clip.projectionDim),
      ).to.be.above(0.99999);
    });
  }

  for (const folder of kLlamaFixtures) {
    it(`${folder}: logits are near the reference's, and generate() takes the largest of them`, async () => {
      using llama = await Llama.fromPretrained(join(fixtures, folder, 'checkpoint'), { ...int8, cacheTokens: 256 });
      expect([llama.quantization, llama.dtype]).to.deep.equal(['int8', 'float32']);
      const { cases } = readMeta<{ readonly cases: Readonly<Record<string, unknown>> }>(folder);
      for (const name of Object.keys(cases)) {
        const inputIds = readFixture(folder, 'inputs').get(`${name}.input_ids`)!.data as Int32Array;
        using logits = await llama.forward({ inputIds });
        expectNear(await logits.read(), folder, `${name}.logits`);
        const [last] = (await logits.reshape([inputIds.length, llama.config.vocabularySize]).rows()).slice(-1);
        const { tokens } = await llama.generate({ inputIds, maxNewTokens: 1 }).result;
        expect(tokens).to.deep.equal([last!.indexOf(Math.max(...last!))]);
      }
    });
  }

  for (const [folder, checkpoint] of kLlavaFixtures) {
    it(`${folder}/${checkpoint}: image features and logits are near the reference's`, async () => {
      using llava = await LLaVA.fromPretrained(join(fixtures, folder, checkpoint), { ...int8, cacheTokens: 256 });
      expect(llava.quantization).to.equal('int8');
      const { cases } = readMeta<{ readonly cases: Readonly<Record<string, unknown>> }>(folder);
      for (const name of Object.keys(cases)) {
        const inputs = readFixture(folder, 'inputs');
        const inputIds = inputs.get(`${name}.input_ids`)!.data as Int32Array;
        const found = inputs.get(`${name}.pixel_values`);
        const pixels = found && { pixels: found.data as Float32Array, shape: found.shape as [number, number, number, number] };
        if (pixels) {
          using features = await llava.encodeImage(pixels);
          expectNear(await features.read(), folder, `${name}.image_features`);
        }
        using logits = await llava.forward({ inputIds, ...(pixels && { pixels }) });
        const values = await logits.read();
        expectNear(values, folder, `${name}.logits`, values.length); // single rows of these tiny random models go down to 0.984
      }
    });
  }

  it('takes a quarter of the memory, and a little for the scales', () => {
    const [N, K] = [512, 768];
    using weight = Weight.matrix(normal(N * K, 1), [N, K], { quantization: 'int8' });
    expect(weight.info).to.deep.equal({ dtype: 'int8', bytes: N * (K + 8) });
  });

  it('is an option of Weight.matrix, whose products are near those of the numbers', async () => {
    const [M, N, K] = [50, 96, 130];
    const numbers = normal(N * K, 2, K ** -0.5);
    using x = Tensor.from(normal(M * K, 3), [M, K]);
    using plain = Weight.matrix(numbers, [N, K]);
    using quantised = Weight.matrix(numbers, [N, K], { quantization: 'int8' });
    using expected = ops.linear(x, plain);
    using actual = ops.linear(x, quantised);
    expect(minCosine(await actual.read(), await expected.read(), N)).to.be.within(0.999, 0.999999);
  });

  it('of something else is refused, by models and by weights', async () => {
    const wrong = 'int4' as 'int8';
    const message = "quantization must be 'none' or 'int8': it is \"int4\"";
    await expectError(() => CLIP.fromPretrained(undefined, { quantization: wrong }), 'ERR_CONFIG', message);
    await expectError(
      () => Weight.matrix(new Float32Array(6), [2, 3], { quantization: wrong }),
      'ERR_DTYPE',
      'unknown quantization "int4"',
    );
    await expectError(
      () => Weight.matrix(new Float32Array(65537), [1, 65537], { quantization: 'int8' }),
      'ERR_SHAPE',
      'an int8 weight has at most 65536 columns, so that no sum overflows: it is [1, 65537]',
    );
  });
});
