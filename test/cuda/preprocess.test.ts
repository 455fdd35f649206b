// Every golden of fixtures/preprocess through the device's two passes: PIL's integer arithmetic, bit for bit.
import { expect } from 'chai';
import { ImageProcessor } from '../../lib/preprocess/image-processor';
import { configOf, difference, kIdentityLut, readGoldens, resizerOn, toBytes } from '../preprocess/image-reference';
import { needsFixtures } from '../support/fixtures';
import { kDevice, provesKernels } from './evidence';

const goldens = readGoldens();
const resize = resizerOn(kDevice);

describe('pictures on CUDA against PIL', () => {
  before(function () {
    needsFixtures(this);
  });
  provesKernels('float32', ['resizeHorizontal', 'resizeVertical']);

  for (const picture of goldens?.pictures ?? []) {
    for (const kind of picture.tensors) {
      const config = configOf(kind);
      if (config === undefined || goldens === undefined) continue;
      it(`${kind} of ${picture.name} is PIL's`, async () => {
        const { shape, bytes } = goldens.tensor(`${kind}.${picture.name}`);
        const processor = new ImageProcessor({ ...config, image_mean: goldens.mean, image_std: goldens.std });
        const plan = await processor.prepare([picture.path]);
        if (kind === 'pixel_values96') {
          const expected = new Float32Array(Uint8Array.from(bytes).buffer);
          const actual = await resize(plan, processor.lut);
          for (let i = 0; i < expected.length; i++)
            expect(actual[i], `value ${i}`).to.be.closeTo(expected[i]!, 2 ** -22 * Math.max(1, Math.abs(expected[i]!)));
        } else {
          const actual = toBytes(await resize(plan, kIdentityLut), shape[0]!, shape[1]!);
          expect(difference(actual, bytes)).to.equal(undefined);
        }
      });
    }
  }

  it('a batch gives each picture what it gives alone', async () => {
    if (goldens === undefined) return;
    const processor = new ImageProcessor({ image_processor_type: 'CLIPImageProcessor', size: 224, crop_size: 224 });
    const pictures = goldens.pictures.filter(({ tensors }) => tensors.includes('hf224')).slice(0, 5);
    const plan = await processor.prepare(pictures.map((picture) => picture.path));
    const all = await resize(plan, kIdentityLut);
    pictures.forEach((picture, i) => {
      const actual = toBytes(all.subarray(i * 3 * 224 * 224, (i + 1) * 3 * 224 * 224), 224, 224);
      expect(difference(actual, goldens.tensor(`hf224.${picture.name}`).bytes), picture.name).to.equal(undefined);
    });
  });
});
