// The judge is judged: our float64 CLIP and SigLIP against the fixtures, which openai/CLIP's own code and torch made.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { fixtures, needsFixtures, readFixture, readSafetensors } from '../support/fixtures';
import { erf } from '../support/float64';
import { expectClose } from '../support/numbers';
import { ClipReference } from './clip-reference';
import type { Json, Tensors } from './model-folder';

describe('the float64 reference', () => {
  for (const folder of ['clip-tiny-quickgelu', 'siglip-tiny']) {
    it(`gives the features of ${folder}`, function () {
      needsFixtures(this);
      const checkpoint = join(fixtures, folder, 'checkpoint');
      const config = JSON.parse(readFileSync(join(checkpoint, 'config.json'), 'utf8')) as Json;
      const tensors: Tensors = new Map(
        [...readSafetensors(join(checkpoint, 'model.safetensors'))].map(([name, { shape, data }]) => [
          name,
          { shape, values: Float32Array.from(data) },
        ]),
      );
      const reference = new ClipReference(config, tensors);
      const inputs = readFixture(folder, 'inputs');
      const expected = readFixture(folder, 'expected');
      const pixels = inputs.get('pixel_values')!.data;
      const image = reference.images(pixels.subarray(0, 3 * 32 * 32));
      const width = image[0]!.length;
      expectClose(image[0]!, expected.get('image_features')!.data.subarray(0, width), 1e-6, 'image');
      const { data, shape } = inputs.get('input_ids')!;
      const ids = [...data.subarray(0, shape[1])].map(Number);
      const used = folder === 'siglip-tiny' ? ids : ids.slice(0, ids.indexOf(49407) + 1);
      expectClose(reference.text(used), expected.get('text_features')!.data.subarray(0, width), 1e-6, 'text');
    });
  }

  it('knows erf', () => {
    expect(erf(1)).to.be.closeTo(0.8427007929497149, 1e-15);
    expect(erf(-0.5)).to.be.closeTo(-0.5204998778130465, 1e-15);
    expect(erf(3)).to.be.closeTo(0.9999779095030014, 1e-13);
  });
});
