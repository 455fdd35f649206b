// Every golden of fixtures/preprocess, made with PIL: decoded bytes by their hash, resized pictures value by value.
import { createHash } from 'node:crypto';
import { expect } from 'chai';
import { ImageProcessor } from '../../lib/preprocess/image-processor';
import { decodeImage } from '../../lib/preprocess/image-source';
import { configOf, difference, kIdentityLut, kResizers, readGoldens, toBytes } from './image-reference';

const goldens = readGoldens();

describe('pictures against PIL', () => {
  before(function () {
    if (goldens !== undefined) return;
    console.log('      skipped: no fixtures (WARPSIGHT_FIXTURES)');
    this.skip();
  });

  it('has goldens of 28 pictures', () => {
    expect(goldens?.pictures).to.have.length(28);
  });

  for (const picture of goldens?.pictures ?? []) {
    it(`decodeImage() gives PIL's bytes for ${picture.name}`, async () => {
      const { data, width, height } = await decodeImage(picture.path);
      expect([width, height]).to.deep.equal([picture.width, picture.height]);
      expect(createHash('sha256').update(data).digest('hex')).to.equal(picture.rgbSha256);
    });

    for (const kind of picture.tensors) {
      const config = configOf(kind);
      if (config === undefined || goldens === undefined) continue;
      for (const [name, resize] of kResizers) {
        it(`${kind} of ${picture.name} is PIL's, by ${name}`, async () => {
          const { shape, bytes } = goldens.tensor(`${kind}.${picture.name}`);
          const processor = new ImageProcessor({ ...config, image_mean: goldens.mean, image_std: goldens.std });
          const plan = await processor.prepare([picture.path]);
          if (kind === 'pixel_values96') {
            const expected = new Float32Array(Uint8Array.from(bytes).buffer);
            const actual = await resize(plan, processor.lut);
            for (let i = 0; i < expected.length; i++) {
              expect(actual[i], `value ${i}`).to.be.closeTo(expected[i]!, 2 ** -22 * Math.max(1, Math.abs(expected[i]!)));
            }
          } else {
            const [height, width] = [shape[0]!, shape[1]!];
            const actual = toBytes(await resize(plan, kIdentityLut), height, width);
            expect(difference(actual, bytes)).to.equal(undefined);
          }
        });
      }
    }
  }

  for (const [name, resize] of kResizers) {
    it(`a batch of all pictures gives each what it gives alone, by ${name}`, async () => {
      if (goldens === undefined) return;
      const processor = new ImageProcessor({ image_processor_type: 'CLIPImageProcessor', size: 224, crop_size: 224 });
      const plan = await processor.prepare(goldens.pictures.map((picture) => picture.path));
      const all = await resize(plan, kIdentityLut);
      goldens.pictures.forEach((picture, i) => {
        const actual = toBytes(all.subarray(i * 3 * 224 * 224, (i + 1) * 3 * 224 * 224), 224, 224);
        expect(difference(actual, goldens.tensor(`hf224.${picture.name}`).bytes), picture.name).to.equal(undefined);
      });
    });
  }
});
