import { join } from 'node:path';
import { expect } from 'chai';
import { BlipImageTextMatching, type DeviceName, type Float, type PixelTensor } from '../../lib';
import { fixtures, needsFixtures, readFixture } from '../support/fixtures';
import { expectClose, minCosine } from '../support/numbers';
import { fixtureInput, idRows } from './pair-inputs';
import { kCosine } from './vilt-golden';

const kFolder = 'blip-tiny-itm';

/** The BLIP of the fixtures, on one device in one dtype. */
export function describeBlipGolden({ device, dtype }: { device: DeviceName; dtype: Float }): void {
  describe(`BLIP: ${kFolder} on ${device} in ${dtype}`, () => {
    let blip: BlipImageTextMatching;

    before(async function () {
      needsFixtures(this);
      blip = await BlipImageTextMatching.fromPretrained(join(fixtures, kFolder, 'checkpoint'), { device, dtype });
      expect([blip.device, blip.dtype]).to.deep.equal([device, dtype]);
    });
    after(() => blip?.dispose());

    const expected = (name: string) => readFixture(kFolder, 'expected').get(name)!;
    const pixels = (): PixelTensor => {
      const { data, shape } = fixtureInput(kFolder, 'pixel_values');
      return { pixels: data as Float32Array, shape: shape as [number, number, number, number] };
    };
    const texts = () => ({ inputIds: idRows(kFolder) });
    const expectNear = async (
      actual: { read(): Promise<Float32Array>; shape: readonly number[] },
      name: string,
      width?: number,
    ) => {
      const { data, shape } = expected(name);
      expect(actual.shape, name).to.deep.equal(shape);
      const numbers = await actual.read();
      expect(minCosine(numbers, data, width ?? shape.at(-1)!), `${name}: cosine`).to.be.at.least(kCosine[dtype]);
      if (dtype === 'float32') expectClose(numbers, data, 1e-4, name);
    };

    it('gives the features of pictures', async () => {
      const features = await blip.imageFeatures(pixels());
      await expectNear(features, 'vision.last_hidden_state');
      features.dispose();
    });

    it('gives the matching logits, cosines and embeddings of the reference, every image with every text', async () => {
      const output = await blip.forward(pixels(), texts());
      await expectNear(output.imageEmbeds, 'image_embeds');
      await expectNear(output.textEmbeds, 'text_embeds');
      await expectNear(output.itcCosine, 'itc_cosine');
      await expectNear(output.itmLogits, 'itm_logits', 12);
      output.dispose();
    });

    it('gives the probability of a match, from pictures and from features of them that were kept', async () => {
      const features = await blip.imageFeatures(pixels());
      for (const images of [pixels(), features]) {
        const probabilities = Float32Array.from((await blip.match(images, texts())).flat());
        const { data } = expected('itm_probability');
        expectClose(probabilities, data, dtype === 'float32' ? 1e-4 : 2e-2, 'itm_probability');
      }
      features.dispose();
    });

    it('embeds for retrieval', async () => {
      const image = await blip.encodeImage(pixels(), { normalize: true });
      const text = await blip.encodeText(texts(), { normalize: true });
      await expectNear(image, 'image_embeds');
      await expectNear(text, 'text_embeds');
      for (const tensor of [image, text]) tensor.dispose();
    });
  });
}
