// ImageProcessor.preprocess(): every golden of fixtures/preprocess, batches of any size, and what it refuses.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { counters, ImageProcessor } from '../../lib';
import { expectError } from '../support/errors';
import { needsFixtures } from '../support/fixtures';
import { configOf, difference, readGoldens, toBytes } from './image-reference';

const goldens = readGoldens();

/** Levels stay levels. */
const kPlain = { do_rescale: false, do_normalize: false };

function raw(width: number, height: number, value: number) {
  return { data: new Uint8Array(width * height * 3).fill(value), width, height, channels: 3 } as const;
}

describe('ImageProcessor.preprocess()', () => {
  for (const picture of goldens?.pictures ?? []) {
    it(`gives the pixels of PIL for ${picture.name}, in every size and by every filter`, async function () {
      needsFixtures(this);
      for (const kind of picture.tensors) {
        const config = configOf(kind);
        if (config === undefined || goldens === undefined) continue;
        const golden = goldens.tensor(`${kind}.${picture.name}`);
        const normalised = kind === 'pixel_values96';
        const means = { image_mean: goldens.mean, image_std: goldens.std };
        const processor = new ImageProcessor({ ...config, ...means, ...(normalised ? {} : kPlain) });
        using pixels = await processor.preprocess(picture.path);
        const values = await pixels.read();
        if (normalised) {
          const expected = new Float32Array(Uint8Array.from(golden.bytes).buffer);
          expect(pixels.shape).to.deep.equal([1, 3, 96, 96]);
          for (let i = 0; i < expected.length; i++)
            expect(values[i], `value ${i}`).to.be.closeTo(expected[i]!, 2 ** -22 * Math.max(1, Math.abs(expected[i]!)));
        } else {
          const [height, width] = [golden.shape[0]!, golden.shape[1]!];
          expect(pixels.shape).to.deep.equal([1, 3, height, width]);
          expect(difference(toBytes(values, height, width), golden.bytes), kind).to.equal(undefined);
        }
      }
    });
  }

  it('gives a batch of any sizes in order, one picture or none', async () => {
    const processor = new ImageProcessor({ size: 4, crop_size: { height: 2, width: 3 }, ...kPlain });
    using batch = await processor.preprocess([raw(20, 10, 1), raw(9, 30, 2), raw(1, 1, 3)]);
    expect(batch.shape).to.deep.equal([3, 3, 2, 3]);
    expect(batch.dtype).to.equal('float32');
    expect([...(await batch.read())]).to.deep.equal([1, 2, 3].flatMap((value) => Array<number>(18).fill(value)));
    using one = await processor.preprocess(raw(5, 5, 7));
    expect(one.shape).to.deep.equal([1, 3, 2, 3]);
    using none = await processor.preprocess([]);
    expect(none.shape).to.deep.equal([0, 3, 2, 3]);
    expect(await none.read()).to.have.length(0);
  });

  it('gives more pictures than one run takes as one tensor, and lets their memory go', async () => {
    const processor = new ImageProcessor({ size: 4, crop_size: 4, ...kPlain });
    const values = [30, 31, 32, 33, 34]; // 30 MB each: two to a run
    for (let again = 0; again < 2; again++) {
      using pixels = await processor.preprocess(values.map((value) => raw(4000, 2500, value)));
      expect(pixels.shape).to.deep.equal([5, 3, 4, 4]);
      expect([...(await pixels.read())]).to.deep.equal(values.flatMap((value) => Array<number>(48).fill(value)));
    }
  });

  it('is one native call for a batch', async () => {
    const processor = new ImageProcessor({ size: 4, crop_size: 4 });
    const before = counters().calls;
    using pixels = await processor.preprocess([raw(20, 10, 1), raw(9, 30, 2)]);
    expect(counters().calls - before).to.equal(1);
    await pixels.read();
  });

  it('keeps the proportions where nothing is cut, if all pictures have the same', async () => {
    const processor = new ImageProcessor({ size: 4, do_center_crop: false, ...kPlain });
    using pixels = await processor.preprocess([raw(20, 10, 1), raw(40, 20, 2)]);
    expect(pixels.shape).to.deep.equal([2, 3, 4, 8]);
    await expectError(
      () => processor.preprocess([raw(20, 10, 1), raw(10, 10, 2)]),
      'ERR_IMAGE',
      'pictures of one call must come out in one size: one is 4 x 4, the others 8 x 4',
    );
    await expectError(
      () => processor.preprocess([...Array.from({ length: 2 }, () => raw(4000, 2000, 1)), raw(3000, 3000, 2)]),
      'ERR_IMAGE',
      'pictures of one call must come out in one size: one is 4 x 4, the others 8 x 4',
    );
    await expectError(() => processor.preprocess([]), 'ERR_IMAGE', 'without any picture there is no size: pass at least one');
  });

  it('refuses a picture that becomes a giant one, before anything is allocated for it', async () => {
    const processor = new ImageProcessor({ size: 224, do_center_crop: false });
    await expectError(
      () => processor.preprocess(raw(1, 5000, 1)),
      'ERR_IMAGE',
      'a picture of 1 x 5000 becomes one of 224 x 1120000, which is more than 16777216 pixels: ' +
        'the config sets its shorter edge and cuts nothing',
    );
  });

  it('refuses what it can not take, and goes on', async () => {
    const processor = new ImageProcessor({ size: 4, crop_size: 4, ...kPlain });
    await expectError(() => processor.preprocess([raw(2, 2, 1), 'missing.png']), 'ERR_IMAGE', /"missing.png".*no such file/);
    await expectError(() => processor.preprocess({ ...raw(2, 2, 1), width: 3 }), 'ERR_IMAGE', /3 x 2 x 3 needs 18 bytes/);
    await expectError(() => Reflect.apply(processor.preprocess, processor, [undefined]), 'ERR_IMAGE', /got undefined/);
    const shape = [1, 3, 4, 4] as const;
    await expectError(() => processor.preprocess({ pixels: new Float32Array(48), shape }), 'ERR_IMAGE', /already pre-processed/);
    await expectError(() => processor.preprocess(raw(2, 2, 1), { signal: AbortSignal.abort() }), 'ERR_ABORTED');
    await expectError(() => processor.preprocess(raw(2, 2, 1), { device: 'cuda:999' }), 'ERR_DEVICE');
    await expectError(() => processor.preprocess(raw(3, 3, 1), { limitInputPixels: 8 }), 'ERR_IMAGE', /3 x 3 is 9 pixels/);
    using pixels = await processor.preprocess(raw(2, 2, 5));
    expect([...new Set(await pixels.read())]).to.deep.equal([5]);
  });
});

describe('ImageProcessor.fromPretrained()', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'warpsight-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  it('takes a path or a file: URL, and nothing else', async () => {
    writeFileSync(join(folder, 'preprocessor_config.json'), '{"size": 8, "crop_size": 8}');
    expect((await ImageProcessor.fromPretrained(pathToFileURL(folder))).spec.crop).to.deep.equal({ height: 8, width: 8 });
    for (const given of [undefined, null, 5, {}, '', 'a\0b', new URL('https://example.org/x')]) {
      await expectError(
        () => Reflect.apply(ImageProcessor.fromPretrained, ImageProcessor, [given]),
        'ERR_ARGUMENT',
        /^ImageProcessor\.fromPretrained: the folder must be a path or a file: URL: it is /,
      );
    }
  });

  it('does not wait for a named pipe, and says what a folder or another file is', async function () {
    if (process.platform === 'win32') this.skip();
    const path = join(folder, 'preprocessor_config.json');
    rmSync(path);
    execFileSync('mkfifo', [path]);
    await expectError(() => ImageProcessor.fromPretrained(folder), 'ERR_CONFIG', `${path} is not a regular file`);
    rmSync(path);
    writeFileSync(path, Buffer.from([0x7b, 0xff, 0x7d]));
    await expectError(() => ImageProcessor.fromPretrained(folder), 'ERR_CONFIG', /is not JSON/);
  });
});
