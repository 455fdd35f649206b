import { setImmediate as nextTurn } from 'node:timers/promises';
import sharp from 'sharp';
import { abortError, WarpsightError } from '../errors';
import { firstGifFrame, type GifFrame } from './image-gif';
import {
  type ImageInput,
  imageError,
  kMaxSide,
  type RawSize,
  readImageFile,
  recycle,
  type TakenImage,
  takeImage,
} from './image-input';
import { inDecodeSlot, orAborted } from './image-slots';

export { type ImageInput, isPixelTensor, type PixelTensor, type RawPixels } from './image-input';

/** A decoded picture: `data` is RGB, [height, width, 3], 8 bits each. */
export interface RgbImage {
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** Red, green, blue; integers from 0 to 255. */
export type Rgb = readonly [number, number, number];

export interface DecodeOptions {
  /** Rejects with ERR_ABORTED as soon as it fires. */
  readonly signal?: AbortSignal | undefined;
  /** Largest width · height that is decoded. Default 100 million, 300 MB of RGB. */
  readonly limitInputPixels?: number | undefined;
  /** Largest encoded file or buffer that is read. Default 256 MiB. */
  readonly limitInputBytes?: number | undefined;
  /** Whatever sharp can decode (TIFF, AVIF, SVG, …), not only JPEG, PNG, WebP and GIF. For files you trust. */
  readonly allowAllFormats?: boolean | undefined;
  /** Colour that shows through transparent pixels. Default: alpha is dropped and the stored colour counts, as in PIL. */
  readonly background?: Rgb | undefined;
}

interface Limits {
  readonly pixels: number;
  readonly bytes: number;
}

/**
 * Decodes one picture to the RGB bytes that PIL's `ImageOps.exif_transpose(image).convert('RGB')` gives.
 *
 * The EXIF orientation is applied. Alpha is dropped (or composed on `background`), ICC profiles are not applied, 16-bit samples keep their
 * high byte, CMYK is converted by arithmetic, an animation gives its first frame. The caller's bytes are copied: see `takeImage`.
 *
 * @throws {WarpsightError} ERR_IMAGE if it is unreadable, broken, cut short, of another format or over a limit; ERR_ABORTED
 */
export async function decodeImage(input: ImageInput, options: DecodeOptions = {}): Promise<RgbImage> {
  if (options.signal?.aborted) throw abortError(options.signal);
  return decodeTaken(takeImage(input), options);
}

/** `decodeImage` for an input that was taken over before. */
export function decodeTaken(taken: TakenImage, options: DecodeOptions = {}): Promise<RgbImage> {
  const { signal } = options;
  const limits: Limits = {
    pixels: limit('limitInputPixels', options.limitInputPixels, 100_000_000),
    bytes: limit('limitInputBytes', options.limitInputBytes, 256 << 20),
  };
  const background = options.background === undefined ? undefined : colour(options.background);
  const work = inDecodeSlot(async () => {
    if (signal?.aborted) throw abortError(signal);
    if (taken.kind === 'raw') {
      const { width, height, channels } = taken.size;
      checkSize(taken.label, width, height, limits);
      if (channels === 3) return { data: await taken.bytes, width, height };
      return recycled(taken.bytes, (bytes) => toRgb(taken.label, withoutAlpha(rawSharp(bytes, taken.size), background)));
    }
    const file = taken.kind === 'file' ? readImageFile(taken.label, taken.path, limits.bytes) : taken.bytes;
    return recycled(file, (bytes) => {
      if (bytes.length > limits.bytes) {
        throw imageError(taken.label, `${bytes.length} bytes, the limit is ${limits.bytes} (limitInputBytes)`);
      }
      if (signal?.aborted) throw abortError(signal);
      return fromEncoded(taken.label, bytes, limits, background, options.allowAllFormats === true);
    });
  });
  return orAborted(work, signal);
}

/**
 * Centres a picture on a square of one colour, as LLaVA's `expand2square` does: the smaller side's margin is (long - short) // 2 before it.
 *
 * @throws {WarpsightError} ERR_IMAGE if the square has more than `limitInputPixels`
 */
export async function expandToSquare(image: RgbImage, around: Rgb, limitInputPixels = 100_000_000): Promise<RgbImage> {
  const side = Math.max(image.width, image.height);
  if (image.width === image.height) return image;
  const label = `image ${image.width} x ${image.height}`;
  checkSize(`${label}, padded to a square`, side, side, { pixels: limitInputPixels, bytes: 0 });
  const left = Math.floor((side - image.width) / 2);
  const top = Math.floor((side - image.height) / 2);
  return toRgb(label, rawSharp(image.data, { ...image, channels: 3 }).extend(margins(image, left, top, side, side, around)));
}

/** Runs `use` and gives the memory back; what `use` returns must not be a view of it. */
async function recycled<T>(bytes: Promise<Buffer>, use: (bytes: Buffer) => Promise<T>): Promise<T> {
  const copy = await bytes;
  try {
    return await use(copy);
  } finally {
    recycle(copy);
  }
}

async function fromEncoded(
  label: string,
  file: Buffer,
  limits: Limits,
  background: Rgb | undefined,
  allowAllFormats: boolean,
): Promise<RgbImage> {
  const format = sniff(file);
  if (format === undefined && !allowAllFormats) {
    const start = file
      .subarray(0, 8)
      .toString('hex')
      .replace(/..(?=.)/g, '$& ');
    throw imageError(
      label,
      `not a JPEG, PNG, WebP or GIF; it starts with the bytes ${start} (allowAllFormats: true tries other formats)`,
    );
  }
  const frame = format === 'gif' ? firstGifFrame(file, background !== undefined) : undefined;
  if (typeof frame === 'string') throw imageError(label, frame);
  if (frame !== undefined) checkSize(label, frame.canvasWidth, frame.canvasHeight, limits);

  // Exact pixels: no profile applied; premature ends are errors, harmless warnings (an odd ICC profile, stray bytes) are not.
  const open = (limitInputPixels: number | false) =>
    sharp(frame?.bytes ?? file, { autoOrient: true, ignoreIcc: true, failOn: 'error', limitInputPixels, pages: 1 });
  const header = await sharpStep(label, 'its header is broken', () => open(false).metadata()); // decodes no pixels: the size is checked next
  checkSize(label, header.width, header.height, limits);
  const turn = header.orientation === undefined ? xmpOrientation(header.xmp) : 1;
  const upright = kTurns[turn - 1]!(open(limits.pixels)); // EXIF's own orientation is applied by sharp
  if (header.space === 'cmyk') return fromCmyk(label, upright);
  const opaque = withoutAlpha(upright, background);
  return toRgb(label, frame === undefined ? opaque : onCanvas(opaque, frame, background));
}

/** How a picture of each orientation, 1 to 8, is turned upright; sharp mirrors before it turns. */
const kTurns: readonly ((picture: sharp.Sharp) => sharp.Sharp)[] = [
  (picture) => picture,
  (picture) => picture.flop(),
  (picture) => picture.rotate(180),
  (picture) => picture.flip(),
  (picture) => picture.flop().rotate(270),
  (picture) => picture.rotate(90),
  (picture) => picture.flop().rotate(90),
  (picture) => picture.rotate(270),
];

/** The orientation that XMP tells, which counts where EXIF tells none, as in PIL; 1 otherwise. */
function xmpOrientation(xmp: Buffer | undefined): number {
  const digit = /tiff:Orientation(?:="|>)([1-8])/.exec(xmp?.toString('latin1', 0, 65_536) ?? '')?.[1];
  return digit === undefined ? 1 : Number(digit);
}

function onCanvas(picture: sharp.Sharp, frame: GifFrame, background: Rgb | undefined): sharp.Sharp {
  if (frame.width === frame.canvasWidth && frame.height === frame.canvasHeight) return picture;
  const around = frame.transparent && background !== undefined ? background : frame.around;
  return picture.extend(margins(frame, frame.left, frame.top, frame.canvasWidth, frame.canvasHeight, around));
}

function margins(
  inner: { readonly width: number; readonly height: number },
  left: number,
  top: number,
  width: number,
  height: number,
  around: Rgb,
): sharp.ExtendOptions {
  const [r, g, b] = around;
  return { left, top, right: width - left - inner.width, bottom: height - top - inner.height, background: { r, g, b } };
}

function rawSharp(data: Uint8Array, size: RawSize): sharp.Sharp {
  const { width, height, channels } = size;
  return sharp(data, {
    limitInputPixels: false,
    raw: { width, height, channels: channels === 1 ? 1 : channels === 2 ? 2 : channels === 3 ? 3 : 4 },
  });
}

function withoutAlpha(picture: sharp.Sharp, background: Rgb | undefined): sharp.Sharp {
  if (background === undefined) return picture.removeAlpha();
  const [r, g, b] = background;
  return picture.flatten({ background: { r, g, b } });
}

async function toRgb(label: string, picture: sharp.Sharp): Promise<RgbImage> {
  const { data, info } = await sharpStep(label, 'it is broken or cut short', () =>
    picture.toColourspace('srgb').raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true }),
  );
  if (info.channels !== 3) throw imageError(label, `decodes to ${info.channels} channels where 3 are expected`);
  return { data, width: info.width, height: info.height };
}

/** Pixels per turn of the event loop in `fromCmyk`: about half a millisecond. */
const kCmykPerTurn = 1 << 15;

/** PIL's arithmetic without a profile: R = (255 - K) - round(C (255 - K) / 255), G and B likewise from M and Y. */
async function fromCmyk(label: string, picture: sharp.Sharp): Promise<RgbImage> {
  const { data: cmyk, info } = await sharpStep(label, 'it is broken or cut short', () =>
    picture
      .removeAlpha()
      .pipelineColourspace('cmyk')
      .toColourspace('cmyk')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true }),
  );
  if (info.channels !== 4) throw imageError(label, `decodes to ${info.channels} channels where CMYK has 4`);
  const pixels = info.width * info.height;
  const data = Buffer.allocUnsafeSlow(pixels * 3);
  for (let start = 0; start < pixels; start += kCmykPerTurn) {
    if (start > 0) await nextTurn();
    const end = Math.min(pixels, start + kCmykPerTurn);
    for (let i = start; i < end; i++) {
      const light = 255 - cmyk[4 * i + 3]!;
      for (let c = 0; c < 3; c++) {
        const product = cmyk[4 * i + c]! * light + 128;
        data[3 * i + c] = light - ((product + (product >> 8)) >> 8); // round(product / 255) in integers
      }
    }
  }
  return { data, width: info.width, height: info.height };
}

/** One asynchronous call of sharp; what it rejects with becomes the cause of a fixed sentence. */
async function sharpStep<T>(label: string, failure: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (cause) {
    if (cause instanceof WarpsightError) throw cause;
    throw imageError(label, `cannot be decoded: ${failure}`, cause);
  }
}

function sniff(file: Buffer): 'jpeg' | 'png' | 'webp' | 'gif' | undefined {
  const start = file.toString('latin1', 0, 12);
  if (start.startsWith('\xff\xd8\xff')) return 'jpeg';
  if (start.startsWith('\x89PNG\r\n\x1a\n')) return 'png';
  if (start.startsWith('RIFF') && start.endsWith('WEBP')) return 'webp';
  if (start.startsWith('GIF87a') || start.startsWith('GIF89a')) return 'gif';
  return undefined;
}

function checkSize(label: string, width: number, height: number, limits: Limits): void {
  if (width * height > limits.pixels) {
    throw imageError(label, `${width} x ${height} is ${width * height} pixels, the limit is ${limits.pixels} (limitInputPixels)`);
  }
  if (width > kMaxSide || height > kMaxSide)
    throw imageError(label, `${width} x ${height}: a side can have at most ${kMaxSide} pixels`);
}

function limit(name: string, value: number | undefined, fallback: number): number {
  if (value === undefined) return fallback;
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new WarpsightError('ERR_ARGUMENT', `${name} must be an integer of at least 1: got ${String(value)}`);
}

function colour(value: Rgb): Rgb {
  const parts: readonly unknown[] = Array.isArray(value) ? value : [];
  if (parts.length === 3 && parts.every((v) => typeof v === 'number' && Number.isInteger(v) && v >= 0 && v <= 255)) return value;
  throw new WarpsightError('ERR_ARGUMENT', 'background must be [red, green, blue], integers from 0 to 255');
}
