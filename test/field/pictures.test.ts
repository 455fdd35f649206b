// ../shared/reference/field-cases.md, section B: pictures, from file to the model's pixels. More of each kind is in test/preprocess.
import { expect } from 'chai';
import sharp from 'sharp';
import { type ImageInput, ImageProcessor, type RawPixels } from '../../lib';
import { difference } from '../preprocess/image-reference';
import { seeded } from '../support/numbers';

/** Levels stay levels, and nothing is cut. */
const kPlain = { do_rescale: false, do_normalize: false, do_center_crop: false };

/** [height][width][3] levels of pictures that keep their size, or are resized to `size`. */
async function levels(inputs: readonly ImageInput[], config: object): Promise<number[][][][]> {
  using pixels = await new ImageProcessor({ ...kPlain, ...config }).preprocess(inputs);
  const [n, , h, w] = pixels.shape as [number, number, number, number];
  const values = await pixels.read();
  return Array.from({ length: n }, (_, i) =>
    Array.from({ length: h }, (_, y) =>
      Array.from({ length: w }, (_, x) => [0, 1, 2].map((c) => values[((i * 3 + c) * h + y) * w + x]!)),
    ),
  );
}

const kAsItIs = { do_resize: false };

/** Colours that say where they are. */
function placed(width: number, height: number): RawPixels {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const [y, x, c] = [Math.floor(i / 3 / width), Math.floor(i / 3) % width, i % 3];
    return [10 + 20 * x, 10 + 20 * y, 100 + 3 * (x + y)][c]!;
  });
  return { data, width, height, channels: 3 };
}

function toSharp({ data, width, height, channels }: RawPixels): sharp.Sharp {
  return sharp(data, { raw: { width, height, channels } });
}

describe('F02: `resample` decides the filter, which widens when a picture shrinks', () => {
  type Filter = { readonly support: number; readonly at: (x: number) => number };
  const sinc = (x: number) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  const cubic = (a: number) => (x: number) => {
    const t = Math.abs(x);
    if (t < 1) return (a + 2) * t ** 3 - (a + 3) * t ** 2 + 1;
    return t < 2 ? a * t ** 3 - 5 * a * t ** 2 + 8 * a * t - 4 * a : 0;
  };
  const filters: readonly (readonly [code: number, Filter])[] = [
    [1, { support: 3, at: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) }],
    [2, { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) }],
    [3, { support: 2, at: cubic(-0.5) }],
  ];

  function resize(line: readonly number[], length: number, { support, at }: Filter): number[] {
    const scale = line.length / length;
    const wide = Math.max(1, scale);
    return Array.from({ length }, (_, i) => {
      const weights = line.map((_, x) => {
        const offset = x + 0.5 - (i + 0.5) * scale;
        return Math.abs(offset) < support * wide ? at(offset / wide) : 0;
      });
      const total = weights.reduce((a, b) => a + b, 0);
      const value = line.reduce((sum, level, x) => sum + (level * weights[x]!) / total, 0);
      return Math.min(255, Math.max(0, value));
    });
  }

  const random = seeded(7);
  const lines = {
    'a checker of period 3': Array.from({ length: 96 }, (_, x) => (x % 3 === 0 ? 255 : 0)),
    'a ramp': Array.from({ length: 96 }, (_, x) => Math.round((x * 255) / 95)),
    noise: Array.from({ length: 96 }, () => Math.floor(random() * 256)),
  };
  const picture = (line: readonly number[], height: number): RawPixels => ({
    data: Uint8Array.from(Array.from({ length: height }, () => line).flat()),
    width: line.length,
    height,
    channels: 1,
  });

  for (const [what, line] of Object.entries(lines)) {
    it(`${what}: shrunk, enlarged, across and down, by each code`, async () => {
      for (const [resample, filter] of filters) {
        for (const length of [32, 41, 96, 192]) {
          const expected = resize(line, length, filter);
          const across = await levels([picture(line, 5)], { size: { height: 5, width: length }, resample });
          expected.forEach((value, x) => {
            expect(across[0]![2]![x]![0], `code ${resample}, ${length}, at ${x}`).to.be.closeTo(value, 0.501);
          });
          const tall: RawPixels = { ...picture(line, 1), width: 1, height: 96 };
          const down = await levels([tall], { size: { height: length, width: 1 }, resample });
          expect(down[0]!.map((row) => row[0]![0])).to.deep.equal(across[0]![2]!.map((pixel) => pixel[0]));
        }
      }
    });
  }

  it('0 takes the nearest; a missing code is the default of the class', async () => {
    const line = lines['a checker of period 3'];
    const nearest = await levels([picture(line, 1)], { size: { height: 1, width: 32 }, resample: 0 });
    expect(nearest[0]![0]!.map((pixel) => pixel[0])).to.deep.equal(Array.from({ length: 32 }, (_, i) => line[3 * i + 1]));
    for (const [image_processor_type, code] of [
      ['CLIPImageProcessor', 3],
      ['CLIPFeatureExtractor', 3],
      ['SiglipImageProcessor', 3],
      ['ViTImageProcessor', 2],
      [undefined, 3],
    ] as const) {
      for (const given of [{}, { resample: null }]) {
        const [implied] = await levels([picture(lines.noise, 1)], {
          image_processor_type,
          size: { height: 1, width: 32 },
          ...given,
        });
        const [stated] = await levels([picture(lines.noise, 1)], { size: { height: 1, width: 32 }, resample: code });
        expect(implied, String(image_processor_type)).to.deep.equal(stated);
      }
    }
  });
});

describe('F10: a picture that was stored turned is upright before its width and height count', () => {
  // Where the upright pixel (x, y) of w x h lies in what is stored. source: EXIF 2.3, tag 274: what the stored row 0 and column 0 are
  const places: Readonly<Record<number, (x: number, y: number, w: number, h: number) => [x: number, y: number]>> = {
    1: (x, y) => [x, y],
    2: (x, y, w) => [w - 1 - x, y],
    3: (x, y, w, h) => [w - 1 - x, h - 1 - y],
    4: (x, y, _w, h) => [x, h - 1 - y],
    5: (x, y) => [y, x],
    6: (x, y, w) => [y, w - 1 - x],
    7: (x, y, w, h) => [h - 1 - y, w - 1 - x],
    8: (x, y, _w, h) => [h - 1 - y, x],
  };

  function turned(orientation: number, upright: RawPixels): RawPixels {
    const { width: w, height: h } = upright;
    const [width, height] = orientation >= 5 ? [h, w] : [w, h];
    const data = new Uint8Array(w * h * 3);
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        const [sx, sy] = places[orientation]!(x, y, w, h);
        data.set(upright.data.subarray((y * w + x) * 3, (y * w + x + 1) * 3), (sy * width + sx) * 3);
      }
    }
    return { data, width, height, channels: 3 };
  }

  for (const [width, height] of [
    [5, 3],
    [3, 5],
    [1, 4],
  ] as const) {
    it(`${width} x ${height}, all eight ways, in PNG, WebP and TIFF: one tensor`, async () => {
      const upright = placed(width, height);
      const files: Buffer[] = [];
      for (let orientation = 1; orientation <= 8; orientation++) {
        const picture = () => toSharp(turned(orientation, upright)).withMetadata({ orientation });
        files.push(
          await picture().png().toBuffer(),
          await picture().webp({ lossless: true }).toBuffer(),
          await picture().tiff({ compression: 'lzw' }).toBuffer(),
        );
      }
      const config = { size: 6, resample: 3 }; // the shorter edge: a size decided before turning would be another
      const processor = new ImageProcessor({ ...kPlain, ...config });
      using pixels = await processor.preprocess(files, { allowAllFormats: true });
      using wanted = await processor.preprocess(upright);
      const expected = await wanted.read();
      const values = await pixels.read();
      expect(pixels.shape.slice(1)).to.deep.equal(wanted.shape.slice(1));
      for (let i = 0; i < files.length; i++) {
        const one = values.subarray(i * expected.length, (i + 1) * expected.length);
        expect(difference(one, expected), `orientation ${1 + Math.floor(i / 3)}, file ${i % 3}`).to.equal(undefined);
      }
    });
  }
});

describe('F11: alpha is dropped and the stored colour stays, wherever the alpha is', () => {
  const kRed = [200, 10, 30] as const;

  it('a fully transparent red picture is red: RGBA, raw and encoded; grey with alpha; a palette with transparency', async () => {
    const rgba = { data: new Uint8Array(4 * 6).map((_, i) => [...kRed, 0][i % 4]!), width: 3, height: 2, channels: 4 } as const;
    const greyAlpha = { data: new Uint8Array(2 * 6).map((_, i) => [77, 0][i % 2]!), width: 3, height: 2, channels: 2 } as const;
    const files = [
      rgba,
      await toSharp(rgba).png().toBuffer(),
      await toSharp(rgba).webp({ lossless: true, exact: true }).toBuffer(),
    ];
    const found = await levels(files, kAsItIs);
    for (const picture of found) for (const pixel of picture.flat()) expect(pixel).to.deep.equal(kRed);
    const grey = await levels([greyAlpha, await toSharp(greyAlpha).png().toBuffer()], kAsItIs);
    for (const picture of grey) for (const pixel of picture.flat()) expect(pixel).to.deep.equal([77, 77, 77]);
  });

  it('a background is taken where one is asked for', async () => {
    const half = { data: Uint8Array.of(200, 10, 30, 0), width: 1, height: 1, channels: 4 } as const;
    using pixels = await new ImageProcessor({ ...kPlain, ...kAsItIs }).preprocess(half, { background: [0, 255, 9] });
    expect([...(await pixels.read())]).to.deep.equal([0, 255, 9]);
  });
});

describe('F35: a picture is rows of columns of channels, however small, and its cost is bounded', () => {
  it('1 x 1, 1 x 5000, 5000 x 1, 3 x 3, 3 x 4 and 4 x 3, raw in each number of channels, encoded and all in one batch', async () => {
    const inputs: ImageInput[] = [];
    for (const [width, height] of [
      [1, 1],
      [1, 5000],
      [5000, 1],
      [3, 3],
      [3, 4],
      [4, 3],
    ] as const) {
      for (const channels of [1, 2, 3, 4] as const) {
        const raw = { data: new Uint8Array(width * height * channels).fill(77), width, height, channels };
        inputs.push(raw, await toSharp(raw).png().toBuffer());
      }
    }
    using pixels = await new ImageProcessor({ size: 224, crop_size: 224, ...kPlain, do_center_crop: true }).preprocess(inputs);
    expect(pixels.shape).to.deep.equal([48, 3, 224, 224]);
    expect((await pixels.read()).every((value) => value === 77)).to.equal(true);
  });

  it('rows and columns are not mixed up where a picture has 3 or 4 of them', async () => {
    for (const [width, height] of [
      [3, 3],
      [3, 4],
      [4, 3],
      [2, 3],
      [3, 2],
    ] as const) {
      const picture = placed(width, height);
      const [raw, encoded] = await levels([picture, await toSharp(picture).png().toBuffer()], kAsItIs);
      const expected = Array.from({ length: height }, (_, y) =>
        Array.from({ length: width }, (_, x) => [10 + 20 * x, 10 + 20 * y, 100 + 3 * (x + y)]),
      );
      expect(raw).to.deep.equal(expected);
      expect(encoded).to.deep.equal(expected);
    }
  });
});

describe('F37: levels are those of PIL: 16 bits keep the high byte, CMYK is arithmetic, profiles are not applied', () => {
  it('a ramp of 16 bits has its 256 levels', async () => {
    const ramp = Uint16Array.from({ length: 256 * 4 }, (_, i) => Math.floor(i / 4) * 256 + [0, 1, 128, 255][i % 4]!);
    const file = await sharp(ramp, { raw: { width: 1024, height: 1, channels: 1 } })
      .toColourspace('grey16')
      .png()
      .toBuffer();
    const [[row]] = (await levels([file], kAsItIs)) as [number[][][]];
    expect(row!.map((pixel) => pixel[0])).to.deep.equal(Array.from(ramp, (level) => level >> 8));
  });

  it('a colour tagged with Display P3 stays what it is', async () => {
    const red = { data: Uint8Array.of(255, 0, 0), width: 1, height: 1, channels: 3 } as const;
    const tagged = sharp(red.data, { raw: { width: 1, height: 1, channels: 3 } }).withIccProfile('p3', { attach: true });
    const file = await tagged.png().toBuffer();
    const stored = await sharp(file, { ignoreIcc: true }).raw().toBuffer(); // what the writer made of it
    expect((await sharp(file).metadata()).icc).to.not.equal(undefined);
    expect((await levels([file], kAsItIs))[0]![0]![0]).to.deep.equal([...stored.subarray(0, 3)]);
  });

  it('full black of CMYK is black', async () => {
    const file = await sharp({ create: { width: 8, height: 8, channels: 3, background: '#000' } })
      .toColourspace('cmyk')
      .jpeg({ quality: 100 })
      .toBuffer();
    const [picture] = await levels([file], kAsItIs);
    for (const pixel of picture!.flat()) for (const level of pixel) expect(level).to.be.at.most(2);
  });
});
