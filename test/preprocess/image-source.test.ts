import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { runInNewContext } from 'node:vm';
import { deflateSync } from 'node:zlib';
import { expect } from 'chai';
import sharp from 'sharp';
import { WarpsightError } from '../../lib/errors';
import { inDecodeSlot, kDecodeSlots } from '../../lib/preprocess/image-slots';
import {
  type DecodeOptions,
  decodeImage,
  expandToSquare,
  type ImageInput,
  isPixelTensor,
} from '../../lib/preprocess/image-source';
import { difference } from './image-reference';

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function noise(length: number, seed = 1): Buffer {
  const random = seeded(seed);
  return Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)));
}

/** A PNG of these rows (without filter bytes) and extra chunks. */
function png(
  width: number,
  depth: number,
  colourType: number,
  rows: Buffer[],
  extra: [type: string, data: Buffer][] = [],
): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const framed = Buffer.alloc(body.length + 8);
    framed.writeUInt32BE(data.length, 0);
    body.copy(framed, 4);
    framed.writeUInt32BE(crc32(body), body.length + 4);
    return framed;
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(rows.length, 4);
  header[8] = depth;
  header[9] = colourType;
  const filtered = Buffer.concat(rows.flatMap((row) => [Buffer.of(0), row]));
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', header),
    ...extra.map(([type, data]) => chunk(type, data)),
    chunk('IDAT', deflateSync(filtered)),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function rowsOf(rgb: Buffer, width: number): Buffer[] {
  return Array.from({ length: rgb.length / width / 3 }, (_, y) => rgb.subarray(y * width * 3, (y + 1) * width * 3));
}

function crc32(data: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** A GIF of 4 colours; the code table is cleared so often that codes keep 3 bits. */
function gif(options: {
  canvas: [number, number];
  frame: [number, number, number, number];
  indices: number[];
  transparent?: number;
}): Buffer {
  const { canvas, frame, indices, transparent } = options;
  const bits: number[] = [];
  const put = (code: number) => bits.push(code & 1, (code >> 1) & 1, code >> 2);
  indices.forEach((index, i) => {
    if (i % 2 === 0) put(4);
    put(index);
  });
  put(5);
  const data = Buffer.alloc(Math.ceil(bits.length / 8));
  bits.forEach((bit, i) => {
    data[i >> 3]! |= bit << (i & 7);
  });
  const u16 = (...values: number[]) => values.flatMap((v) => [v & 255, v >> 8]);
  return Buffer.from([
    ...Buffer.from('GIF89a'),
    ...u16(...canvas),
    0xf1,
    0,
    0,
    ...[10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200], // the colours
    ...(transparent === undefined ? [] : [0x21, 0xf9, 4, 1, 0, 0, transparent, 0]),
    0x2c,
    ...u16(...frame),
    0,
    2,
    data.length,
    ...data,
    0,
    0x3b,
  ]);
}

/** What EXIF orientation o means: where the upright pixel (x, y) of w x h is stored. */
function stored(o: number, x: number, y: number, w: number, h: number): [number, number] {
  const [fx, fy] = [w - 1 - x, h - 1 - y];
  const places: [number, number][] = [
    [x, y],
    [fx, y],
    [fx, fy],
    [x, fy],
    [y, x],
    [fy, x],
    [fy, fx],
    [y, fx],
  ];
  // 6: turn the stored picture a quarter to the right to see it upright, so its first column, read upwards, is the upright first row
  const turned: Record<number, [number, number]> = { 6: [y, fx], 8: [fy, x], 7: [fy, fx] };
  return turned[o] ?? places[o - 1]!;
}

async function failure(work: Promise<unknown>): Promise<WarpsightError> {
  const error = await work.then(
    () => expect.fail('must be refused'),
    (e: unknown) => e,
  );
  if (error instanceof WarpsightError) return error;
  throw error;
}

async function refuses(input: unknown, message: string | RegExp, options?: DecodeOptions): Promise<void> {
  const error = await failure(decodeImage(input as ImageInput, options));
  expect(error.code).to.equal('ERR_IMAGE');
  if (typeof message === 'string') expect(error.message).to.equal(message);
  else expect(error.message).to.match(message);
}

async function pixels(input: ImageInput, options?: DecodeOptions): Promise<number[]> {
  return [...(await decodeImage(input, options)).data];
}

describe('decodeImage(): what a picture means', () => {
  const [w, h] = [5, 3];
  const upright = noise(w * h * 3, 8);

  for (let o = 1; o <= 8; o++) {
    it(`applies orientation ${o} before width and height are taken: EXIF in PNG, WebP and TIFF, and XMP`, async () => {
      const [sw, sh] = o > 4 ? [h, w] : [w, h];
      const turned = Buffer.alloc(upright.length);
      for (let y = 0; y < h; y++) {
        for (let x = 0; x < w; x++) {
          const [sx, sy] = stored(o, x, y, w, h);
          upright.copy(turned, (sy * sw + sx) * 3, (y * w + x) * 3, (y * w + x) * 3 + 3);
        }
      }
      const picture = sharp(turned, { raw: { width: sw, height: sh, channels: 3 } }).withMetadata({ orientation: o });
      for (const file of [
        await picture.clone().png().toBuffer(),
        await picture.clone().webp({ lossless: true, exact: true }).toBuffer(),
        await picture.clone().tiff({ compression: 'none' }).toBuffer(),
        png(sw, 8, 2, rowsOf(turned, sw), [['iTXt', Buffer.from(`XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="${o}"/>`)]]),
      ]) {
        const image = await decodeImage(file, { allowAllFormats: true });
        expect([image.width, image.height]).to.deep.equal([w, h]);
        expect(difference(image.data, upright)).to.equal(undefined);
      }
    });
  }

  it('reads the orientation of an IFD0 whose entries are out of order', async () => {
    const ifd = Buffer.concat([
      Buffer.from('Exif\0\0II*\0\x08\0\0\0\x03\0', 'latin1'),
      Buffer.from([0x28, 1, 3, 0, 1, 0, 0, 0, 2, 0, 0, 0]), // ResolutionUnit
      Buffer.from([0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0]), // Orientation
      Buffer.from([0x00, 1, 3, 0, 1, 0, 0, 0, 5, 0, 0, 0]), // ImageWidth
      Buffer.alloc(4),
    ]);
    const plain = await sharp(upright, { raw: { width: w, height: h, channels: 3 } })
      .jpeg()
      .toBuffer();
    const marker = Buffer.from([0xff, 0xe1, 0, ifd.length + 2]);
    const image = await decodeImage(Buffer.concat([plain.subarray(0, 2), marker, ifd, plain.subarray(2)]));
    expect([image.width, image.height]).to.deep.equal([h, w]);
  });

  it('drops alpha and keeps the stored colour: RGBA, grey + alpha, palette with transparency, raw', async () => {
    const red = [255, 0, 0];
    const rgba = Buffer.from([...red, 0, ...red, 0]);
    expect(await pixels(png(2, 8, 6, [rgba]))).to.deep.equal([...red, ...red]);
    expect(
      await pixels(
        await sharp(rgba, { raw: { width: 2, height: 1, channels: 4 } })
          .webp({ lossless: true, exact: true })
          .toBuffer(),
      ),
    ).to.deep.equal([...red, ...red]);
    expect(await pixels(png(2, 8, 4, [Buffer.from([90, 0, 91, 255])]))).to.deep.equal([90, 90, 90, 91, 91, 91]);
    const palette: [string, Buffer][] = [
      ['PLTE', Buffer.from([...red, 1, 2, 3])],
      ['tRNS', Buffer.of(0)],
    ];
    expect(await pixels(png(2, 8, 3, [Buffer.from([0, 1])], palette))).to.deep.equal([...red, 1, 2, 3]);
    expect(
      await pixels(png(2, 8, 2, [Buffer.from([...red, 1, 2, 3])], [['tRNS', Buffer.from([0, 255, 0, 0, 0, 0])]])),
    ).to.deep.equal([...red, 1, 2, 3]);
    expect(await pixels({ data: rgba, width: 2, height: 1, channels: 4 })).to.deep.equal([...red, ...red]);
    expect(await pixels({ data: Buffer.from([7, 0]), width: 1, height: 1, channels: 2 })).to.deep.equal([7, 7, 7]);
  });

  it('composes on a background where one is given', async () => {
    const background = [0, 0, 255] as const;
    const rgba = Buffer.from([255, 0, 0, 0, 255, 0, 0, 255]);
    expect(await pixels(png(2, 8, 6, [rgba]), { background })).to.deep.equal([0, 0, 255, 255, 0, 0]);
    expect(await pixels({ data: rgba, width: 2, height: 1, channels: 4 }, { background })).to.deep.equal([0, 0, 255, 255, 0, 0]);
    expect(await pixels(png(1, 8, 2, [Buffer.from([1, 2, 3])]), { background })).to.deep.equal([1, 2, 3]);
    const frame = gif({ canvas: [3, 1], frame: [0, 0, 2, 1], indices: [1, 2], transparent: 1 });
    expect(await pixels(frame, { background })).to.deep.equal([0, 0, 255, 0, 200, 0, 0, 0, 255]);
    const error = await failure(decodeImage(frame, { background: [0, 0, 256] }));
    expect([error.code, error.message]).to.deep.equal([
      'ERR_ARGUMENT',
      'background must be [red, green, blue], integers from 0 to 255',
    ]);
  });

  it("keeps the colour of a GIF's transparent pixels, and fills around a small frame as PIL does", async () => {
    const [c0, c1, c2, c3] = [
      [10, 20, 30],
      [200, 0, 0],
      [0, 200, 0],
      [0, 0, 200],
    ] as const;
    const indices = [0, 1, 2, 3];
    expect(await pixels(gif({ canvas: [4, 1], frame: [0, 0, 4, 1], indices, transparent: 2 }))).to.deep.equal([
      ...c0,
      ...c1,
      ...c2,
      ...c3,
    ]);
    const small = gif({ canvas: [3, 2], frame: [1, 1, 2, 1], indices: [1, 2], transparent: 3 });
    expect(await pixels(small)).to.deep.equal([...c3, ...c3, ...c3, ...c3, ...c1, ...c2]);
    expect(await pixels(gif({ canvas: [3, 1], frame: [1, 0, 2, 1], indices: [1, 2] }))).to.deep.equal([...c0, ...c1, ...c2]);
    expect(await pixels(gif({ canvas: [1, 1], frame: [0, 0, 2, 1], indices: [1, 2] }))).to.deep.equal([...c1, ...c2]);
  });

  it('takes the first frame of a GIF, and of an animated WebP', async () => {
    const one = gif({ canvas: [2, 1], frame: [0, 0, 2, 1], indices: [1, 2] });
    const two = Buffer.concat([one.subarray(0, -1), gif({ canvas: [2, 1], frame: [0, 0, 2, 1], indices: [3, 3] }).subarray(25)]);
    expect(await pixels(two)).to.deep.equal([200, 0, 0, 0, 200, 0]);
    expect(await pixels(two.subarray(0, -8)), 'a later frame may be cut').to.deep.equal([200, 0, 0, 0, 200, 0]);
    const strip = Buffer.from([1, 2, 3, 4, 5, 6]);
    const animated = await sharp(strip, { raw: { width: 1, height: 2, channels: 3, pageHeight: 1 } })
      .webp({ lossless: true })
      .toBuffer();
    expect(await pixels(animated)).to.deep.equal([1, 2, 3]);
  });

  it('keeps the high byte of 16 bits: a ramp keeps its 256 levels', async () => {
    const ramp = Buffer.alloc(512);
    for (let i = 0; i < 256; i++) ramp.writeUInt16BE(i * 256 + ((i * 77) & 255), 2 * i);
    const levels = Array.from({ length: 256 }, (_, i) => i);
    expect(await pixels(png(256, 16, 0, [ramp]))).to.deep.equal(levels.flatMap((v) => [v, v, v]));
    expect(await pixels(png(1, 16, 2, [Buffer.from([1, 255, 128, 127, 255, 255])]))).to.deep.equal([1, 128, 255]);
    expect(await pixels(png(1, 16, 6, [Buffer.from([1, 255, 128, 127, 255, 255, 0, 0])]))).to.deep.equal([1, 128, 255]);
    expect(await pixels(png(1, 16, 4, [Buffer.from([9, 200, 0, 0])]))).to.deep.equal([9, 9, 9]);
  });

  it('spreads 1, 2 and 4 bits of grey over 0 to 255', async () => {
    expect((await pixels(png(8, 1, 0, [Buffer.of(0b10010110)]))).filter((_, i) => i % 3 === 0)).to.deep.equal([
      255, 0, 0, 255, 0, 255, 255, 0,
    ]);
    expect((await pixels(png(4, 2, 0, [Buffer.of(0b00011011)]))).filter((_, i) => i % 3 === 0)).to.deep.equal([0, 85, 170, 255]);
    expect((await pixels(png(2, 4, 0, [Buffer.of(0x1f)]))).filter((_, i) => i % 3 === 0)).to.deep.equal([17, 255]);
  });

  it('converts CMYK by arithmetic, for every ink and every black', async () => {
    const inks = Buffer.alloc(256 * 256 * 4);
    for (let k = 0; k < 256; k++) for (let c = 0; c < 256; c++) inks.set([c, 255 - c, c ^ 0x55, k], (k * 256 + c) * 4);
    const { data } = await decodeImage(cmykTiff(inks, 256, 256), { allowAllFormats: true });
    const expected = Array.from({ length: 256 * 256 }, (_, i) => {
      const light = 255 - inks[4 * i + 3]!;
      return [0, 1, 2].map((ink) => light - Math.round((inks[4 * i + ink]! * light) / 255));
    }).flat();
    expect(difference(data, expected)).to.equal(undefined);
    expect([...data.subarray(0, 3)], 'cyan 0, magenta 255, yellow 85, no black').to.deep.equal([255, 0, 170]);
  });

  it('does not apply ICC profiles: 255, 0, 0 tagged Display P3 stays', async () => {
    const grey = sharp(Buffer.from([1, 2, 3]), { raw: { width: 1, height: 1, channels: 3 } });
    const { icc } = await sharp(await grey.withIccProfile('p3').png().toBuffer()).metadata();
    const profile = Buffer.concat([Buffer.from('P3\0\0', 'latin1'), deflateSync(icc!)]);
    const orange = png(1, 8, 2, [Buffer.from([200, 100, 50])], [['iCCP', profile]]);
    expect([...(await sharp(orange).raw().toBuffer())], 'sharp by itself applies it').not.to.deep.equal([200, 100, 50]);
    expect(await pixels(orange)).to.deep.equal([200, 100, 50]);
    expect(await pixels(png(1, 8, 2, [Buffer.from([255, 0, 0])], [['iCCP', profile]]))).to.deep.equal([255, 0, 0]);
    expect(await pixels(png(1, 16, 2, [Buffer.from([255, 9, 0, 9, 0, 9])], [['iCCP', profile]]))).to.deep.equal([255, 0, 0]);
  });
});

/** An uncompressed CMYK TIFF. */
function cmykTiff(data: Buffer, width: number, height: number): Buffer {
  const entries: [tag: number, type: number, count: number, value: number][] = [
    [256, 3, 1, width],
    [257, 3, 1, height],
    [258, 3, 4, 134], // bits per sample, after the directory
    [259, 3, 1, 1],
    [262, 3, 1, 5], // inks
    [273, 4, 1, 142],
    [277, 3, 1, 4],
    [278, 3, 1, height],
    [279, 4, 1, data.length],
    [284, 3, 1, 1],
  ];
  const head = Buffer.alloc(142);
  head.write('II*\0', 'latin1');
  head.writeUInt32LE(8, 4);
  head.writeUInt16LE(entries.length, 8);
  entries.forEach(([tag, type, count, value], i) => {
    head.writeUInt16LE(tag, 10 + 12 * i);
    head.writeUInt16LE(type, 12 + 12 * i);
    head.writeUInt32LE(count, 14 + 12 * i);
    head.writeUInt32LE(value, 18 + 12 * i);
  });
  for (let i = 0; i < 4; i++) head.writeUInt16LE(8, 134 + 2 * i);
  return Buffer.concat([head, data]);
}

describe('decodeImage(): inputs', () => {
  const rgb = noise(4 * 3 * 3, 3);
  const file = png(
    4,
    8,
    2,
    [0, 1, 2].map((y) => rgb.subarray(y * 12, y * 12 + 12)),
  );
  let folder = '';

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'warpsight images ü '));
    await writeFile(join(folder, 'a b.png'), file);
  });
  after(() => rm(folder, { recursive: true }));

  it('takes a path, a file: URL, a Buffer, a Uint8Array, an ArrayBuffer, a SharedArrayBuffer and arrays of another realm', async () => {
    const path = join(folder, 'a b.png');
    const shared = new SharedArrayBuffer(file.length);
    new Uint8Array(shared).set(file);
    const inputs: ImageInput[] = [
      path,
      pathToFileURL(path),
      pathToFileURL(path).href,
      file,
      new Uint8Array(file),
      Buffer.concat([Buffer.alloc(7), file, Buffer.alloc(9)]).subarray(7, 7 + file.length),
      Uint8Array.from(file).buffer,
      shared,
      new Uint8Array(shared),
      runInNewContext('Uint8Array.from(bytes)', { bytes: [...file] }),
      runInNewContext('Uint8Array.from(bytes).buffer', { bytes: [...file] }),
    ];
    for (const input of inputs) {
      const image = await decodeImage(input);
      expect([image.width, image.height]).to.deep.equal([4, 3]);
      expect(difference(image.data, rgb)).to.equal(undefined);
    }
  });

  it('takes raw pixels of 1, 2, 3 and 4 channels, always height x width x channels', async () => {
    for (const [width, height] of [
      [1, 1],
      [3, 3],
      [3, 4],
      [4, 3],
      [1, 5000],
      [5000, 1],
    ] as const) {
      for (const channels of [1, 2, 3, 4] as const) {
        const data = noise(width * height * channels, width + channels);
        const expected = Array.from({ length: width * height }, (_, i) =>
          channels < 3 ? Array<number>(3).fill(data[i * channels]!) : [...data.subarray(i * channels, i * channels + 3)],
        ).flat();
        for (const given of [
          data,
          new Uint8ClampedArray(data),
          runInNewContext('Uint8Array.from(bytes)', { bytes: [...data] }),
        ]) {
          const image = await decodeImage({ data: given, width, height, channels });
          expect([image.width, image.height]).to.deep.equal([width, height]);
          expect(difference(image.data, expected), `${width} x ${height} x ${channels}`).to.equal(undefined);
        }
      }
    }
  });

  it('has copied small inputs when it returns, and large ones within a few turns', async () => {
    const encoded = Buffer.from(file);
    const raw = Uint8Array.from(rgb);
    const both = [decodeImage(encoded), decodeImage({ data: raw, width: 4, height: 3, channels: 3 })];
    encoded.fill(0);
    structuredClone(raw.buffer, { transfer: [raw.buffer] });
    for (const image of await Promise.all(both)) expect(difference(image.data, rgb)).to.equal(undefined);

    const large = new Uint8Array(3000 * 1000 * 3).fill(5);
    const work = decodeImage({ data: large, width: 3000, height: 1000, channels: 3 });
    structuredClone(large.buffer, { transfer: [large.buffer] });
    expect((await failure(work)).message).to.equal('raw pixels: the buffer was transferred or resized while it was being read');
    const whole = new Uint8Array(3000 * 1000 * 3).map((_, i) => i & 255);
    expect(difference((await decodeImage({ data: whole, width: 3000, height: 1000, channels: 3 })).data, whole)).to.equal(
      undefined,
    );
  });

  it('memory that is used again does not mix pictures up', async () => {
    const make = (seed: number) => {
      const data = noise(32 * 32 * 3, seed);
      return {
        data,
        file: png(
          32,
          8,
          2,
          Array.from({ length: 32 }, (_, y) => data.subarray(y * 96, y * 96 + 96)),
        ),
      };
    };
    const pictures = Array.from({ length: 60 }, (_, i) => make(i));
    for (let round = 0; round < 2; round++) {
      const images = await Promise.all(pictures.map((picture) => decodeImage(picture.file)));
      for (const [i, image] of images.entries())
        expect(difference(image.data, pictures[i]!.data), `picture ${i}`).to.equal(undefined);
      for (const picture of pictures.slice(0, 10)) {
        expect(difference((await decodeImage(picture.file)).data, picture.data)).to.equal(undefined);
      }
    }
  });

  it('refuses what is no picture, in a sentence', async () => {
    await refuses('', 'image "": the path is empty');
    await refuses(
      'https://example.org/cat.jpg',
      'image "https://example.org/cat.jpg": https: URLs are not fetched; download the picture and pass its bytes',
    );
    await refuses(new URL('http://example.org/cat.jpg'), /http: URLs are not fetched/);
    await refuses('data:image/png;base64,AAAA', /data: URLs are not fetched/);
    await refuses('file://elsewhere/cat.png', /is not a file: URL of this machine/);
    await refuses('a\0b', 'image "a\\u0000b": a path cannot contain a zero byte');
    await refuses('no/such/file.png', 'image "no/such/file.png": cannot be read: no such file');
    await refuses(folder, /is not a regular file$/);
    await refuses('/dev/zero', 'image "/dev/zero": is not a regular file');
    await refuses('x'.repeat(5000), /the path is too long$/);
    await refuses(new Uint8Array(0), 'image: the buffer is empty');
    await refuses(new ArrayBuffer(0), 'image: the buffer is empty');
    const rule =
      "must be a path, a file: URL, an encoded file's bytes (Buffer, Uint8Array, ArrayBuffer) or { data, width, height, channels }";
    await refuses(undefined, `image: ${rule}: got undefined`);
    await refuses(null, `image: ${rule}: got null`);
    await refuses(7, `image: ${rule}: got number`);
    await refuses([], `image: ${rule}: got an array`);
    await refuses({}, `image: ${rule}: got Object`);
    await refuses(new Float32Array(4), `image: ${rule}: got Float32Array`);
    await refuses(
      Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'),
      /not a JPEG, PNG, WebP or GIF; it starts with the bytes 3c 73 76 67 20 78 6d 6c/,
    );
    await refuses(Buffer.of(0xff), /it starts with the bytes ff \(/);
    await refuses({ pixels: new Float32Array(3), shape: [1, 3, 1, 1] }, /already pre-processed/);
  });

  it('refuses raw pixels whose sizes contradict each other', async () => {
    const data = new Uint8Array(12);
    await refuses({ data, width: 2, height: 2, channels: 4 }, 'raw pixels: 2 x 2 x 4 needs 16 bytes: data has 12');
    await refuses(
      { data, width: 2, height: 2, channels: 5 },
      'raw pixels: channels must be 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGBA): got 5',
    );
    await refuses({ data, width: 2, height: 2 }, /channels must be .* got undefined$/);
    for (const width of [0, -2, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 65_536, '2', undefined]) {
      await refuses({ data, width, height: 2, channels: 3 }, /raw pixels: width must be an integer from 1 to 65535: got /);
    }
    await refuses(
      { data: [1, 2, 3], width: 1, height: 1, channels: 3 },
      'raw pixels: data must be a Uint8Array or Uint8ClampedArray: got an array',
    );
    await refuses({ data: new Float32Array(3), width: 1, height: 1, channels: 3 }, /got Float32Array$/);
  });

  it('isPixelTensor() knows pre-processed pixels and checks them', () => {
    expect(isPixelTensor({ pixels: new Float32Array(24), shape: [2, 3, 2, 2] })).to.equal(true);
    expect(isPixelTensor({ pixels: runInNewContext('new Float32Array(12)'), shape: [1, 3, 2, 2] })).to.equal(true);
    expect(isPixelTensor({ pixels: new Float32Array(0), shape: [0, 3, 2, 2] })).to.equal(true);
    for (const other of ['a.png', Buffer.alloc(3), { data: Buffer.alloc(3) }, null, undefined, 3])
      expect(isPixelTensor(other)).to.equal(false);
    const bad = (input: unknown, message: string) =>
      expect(() => isPixelTensor(input))
        .to.throw(WarpsightError, message)
        .with.property('code', 'ERR_SHAPE');
    bad({ pixels: [1, 2, 3], shape: [1, 3, 1, 1] }, 'pixels: must be a Float32Array: got an array');
    bad({ pixels: new Float64Array(3), shape: [1, 3, 1, 1] }, 'pixels: must be a Float32Array: got Float64Array');
    bad({ pixels: new Float32Array(3) }, 'pixels: shape must be [n, 3, H, W]: got undefined');
    bad({ pixels: new Float32Array(4), shape: [1, 4, 1, 1] }, 'pixels: shape must be [n, 3, H, W]: got [1, 4, 1, 1]');
    bad({ pixels: new Float32Array(3), shape: [1, 3, 1, 2] }, 'pixels: shape [1, 3, 1, 2] needs 6 numbers: pixels has 3');
    bad({ pixels: new Float32Array(3), shape: [1, 3, -1, -1] }, 'pixels: shape must be [n, 3, H, W]: got [1, 3, -1, -1]');
  });

  it('stops when its signal fires', async () => {
    const before = await failure(decodeImage(file, { signal: AbortSignal.abort('enough') }));
    expect([before.code, before.cause]).to.deep.equal(['ERR_ABORTED', 'enough']);
    const controller = new AbortController();
    const many = Array.from({ length: 20 }, () => failure(decodeImage(file, { signal: controller.signal })));
    controller.abort();
    for (const error of await Promise.all(many)) expect(error.code).to.equal('ERR_ABORTED');
    expect(difference((await decodeImage(file)).data, rgb), 'slots are free again').to.equal(undefined);
  });

  it('decodes hundreds at once, and one that fails fails alone', async () => {
    const results = await Promise.allSettled(
      Array.from({ length: 300 }, (_, i) => decodeImage(i % 7 === 3 ? Buffer.from('no') : file)),
    );
    for (const [i, result] of results.entries()) expect(result.status).to.equal(i % 7 === 3 ? 'rejected' : 'fulfilled');
  });
});

describe('decodeImage(): broken, cut and giant files', () => {
  const rgb = noise(24 * 17 * 3, 4);
  const picture = sharp(rgb, { raw: { width: 24, height: 17, channels: 3 } });
  const files: Record<string, Buffer> = {};
  before(async () => {
    files.jpeg = await picture.clone().jpeg().toBuffer();
    files.progressive = await picture.clone().jpeg({ progressive: true }).toBuffer();
    files.cmyk = await picture.clone().toColourspace('cmyk').jpeg().toBuffer();
    files.png = await picture.clone().png().toBuffer();
    files.interlaced = await picture.clone().png({ progressive: true }).toBuffer();
    files.palette = await picture.clone().png({ palette: true }).toBuffer();
    files.webp = await picture.clone().webp().toBuffer();
    files.lossless = await picture.clone().webp({ lossless: true }).toBuffer();
    files.gif = await picture.clone().gif().toBuffer();
  });

  it('refuses files that end early, with the original error as cause', async () => {
    for (const [name, file] of Object.entries(files)) {
      for (const part of [0.02, 0.3, 0.6, 0.9]) {
        const cut = file.subarray(0, Math.max(1, Math.floor(file.length * part)));
        const error = await failure(decodeImage(cut));
        expect(error.code, `${name} ${part}`).to.equal('ERR_IMAGE');
      }
    }
    const error = await failure(decodeImage(files.jpeg!.subarray(0, files.jpeg!.length / 2)));
    expect(error.message).to.equal(
      `image of ${Math.floor(files.jpeg!.length / 2)} bytes: cannot be decoded: it is broken or cut short`,
    );
    expect(error.cause).to.be.an('error');
  });

  it('takes any bytes: a picture or ERR_IMAGE, never anything else', async () => {
    const random = seeded(2024);
    const samples = Object.values(files);
    let decoded = 0;
    for (let round = 0; round < 60; round++) {
      const batch = samples.map(async (file) => {
        const changed = Buffer.from(file);
        const changes = 1 + Math.floor(random() * 6);
        for (let i = 0; i < changes; i++) {
          const within = random() < 0.5 ? Math.min(64, changed.length) : changed.length; // headers get half of the changes
          changed[Math.floor(random() * within)] = Math.floor(random() * 256);
        }
        const end = random() < 0.2 ? Math.floor(random() * changed.length) : changed.length;
        try {
          const image = await decodeImage(changed.subarray(0, Math.max(1, end)), { limitInputPixels: 4_000_000 });
          expect(image.data.length).to.equal(image.width * image.height * 3);
          decoded++;
        } catch (error) {
          if (!(error instanceof WarpsightError) || error.code !== 'ERR_IMAGE') throw error;
        }
      });
      await Promise.all(batch);
    }
    expect(decoded).to.be.within(20, 520);
    for (let i = 1; i <= 60; i++) {
      await refuses(noise(i * 7, i), /not a JPEG, PNG, WebP or GIF/);
      const signatures = ['\xff\xd8\xff', '\x89PNG\r\n\x1a\n', 'GIF89a', 'RIFF\0\0\0\0WEBP'];
      await refuses(Buffer.concat([Buffer.from(signatures[i % 4]!, 'latin1'), noise(i * 5, i)]), /^image of \d+ bytes: /);
    }
  });

  it('refuses decompression bombs by their header', async () => {
    const bomb = png(60_000, 8, 0, [Buffer.alloc(60_000)]);
    bomb.writeUInt32BE(60_000, 20); // height; the checksum is made right below
    bomb.writeUInt32BE(crc32(bomb.subarray(12, 29)), 29);
    await refuses(
      bomb,
      `image of ${bomb.length} bytes: 60000 x 60000 is 3600000000 pixels, the limit is 100000000 (limitInputPixels)`,
    );
    await refuses(gif({ canvas: [65_535, 65_535], frame: [0, 0, 2, 1], indices: [1, 2] }), /65535 x 65535 is 4294836225 pixels/);
    await refuses({ data: new Uint8Array(400), width: 20, height: 20, channels: 1 }, /20 x 20 is 400 pixels, the limit is 399/, {
      limitInputPixels: 399,
    });
    await refuses(png(70_000, 1, 0, [Buffer.alloc(8750)]), /70000 x 1: a side can have at most 65535 pixels$/);
    await refuses(files.png, new RegExp(`${files.png!.length} bytes, the limit is 50 \\(limitInputBytes\\)`), {
      limitInputBytes: 50,
    });
    expect((await decodeImage(files.png!, { limitInputPixels: 24 * 17 })).width).to.equal(24);
    for (const limit of [0, -1, 1.5, Number.NaN]) {
      expect((await failure(decodeImage(files.png!, { limitInputPixels: limit }))).code).to.equal('ERR_ARGUMENT');
    }
  });

  it('limits files on disk by size and refuses empty ones', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'warpsight-'));
    try {
      const path = join(folder, 'x.png');
      await writeFile(path, '');
      await refuses(path, `image ${JSON.stringify(path)}: the file is empty`);
      await truncate(path, 2 ** 33); // sparse
      await refuses(path, /the file has 8589934592 bytes, the limit is 268435456 \(limitInputBytes\)$/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('decodes other formats only where they are allowed', async () => {
    const tiff = await picture.clone().tiff({ compression: 'none' }).toBuffer();
    await refuses(tiff, /not a JPEG, PNG, WebP or GIF/);
    expect(difference((await decodeImage(tiff, { allowAllFormats: true })).data, rgb)).to.equal(undefined);
    const svg = Buffer.from(
      '<svg xmlns="http://www.w3.org/2000/svg" width="2" height="1"><rect width="2" height="1" fill="#102030"/></svg>',
    );
    expect(await pixels(svg, { allowAllFormats: true })).to.deep.equal([16, 32, 48, 16, 32, 48]);
    await refuses(noise(100), /cannot be decoded: its header is broken/, { allowAllFormats: true });
  });
});

describe('inDecodeSlot()', () => {
  it('runs a bounded number at a time, in order, and goes on after a failure', async () => {
    let running = 0;
    let most = 0;
    const started: number[] = [];
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        inDecodeSlot(async () => {
          started.push(i);
          most = Math.max(most, ++running);
          await nextTurn();
          running--;
          if (i === 4) throw new Error('one fails');
          return i;
        }),
      ),
    );
    expect(most).to.equal(kDecodeSlots);
    expect(kDecodeSlots).to.be.at.least(1);
    expect(started).to.deep.equal(Array.from({ length: 20 }, (_, i) => i));
    expect(results.map((result) => result.status === 'fulfilled').filter(Boolean)).to.have.length(19);
  });
});

describe('expandToSquare()', () => {
  it('centres the picture on the colour, the odd row after it', async () => {
    const wide = await expandToSquare(
      { data: Buffer.from([1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]), width: 4, height: 1 },
      [9, 8, 7],
    );
    expect([wide.width, wide.height]).to.deep.equal([4, 4]);
    const row = Array<number[]>(4).fill([9, 8, 7]).flat();
    expect([...wide.data]).to.deep.equal([...row, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, ...row, ...row]);
    const tall = await expandToSquare({ data: Buffer.from([1, 1, 1, 2, 2, 2]), width: 1, height: 2 }, [9, 8, 7]);
    expect([...tall.data]).to.deep.equal([1, 1, 1, 9, 8, 7, 2, 2, 2, 9, 8, 7]);
  });

  it('refuses a square over the limit', async () => {
    const error = await failure(expandToSquare({ data: new Uint8Array(60_000), width: 20_000, height: 1 }, [0, 0, 0]));
    expect(error.message).to.equal(
      'image 20000 x 1, padded to a square: 20000 x 20000 is 400000000 pixels, the limit is 100000000 (limitInputPixels)',
    );
  });
});
