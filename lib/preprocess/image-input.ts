import { type FileHandle, open, stat } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { types } from 'node:util';
import { WarpsightError } from '../errors';

/** A picture as pixels: `data` holds height · width · channels bytes, row by row; 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA. */
export interface RawPixels {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 2 | 3 | 4;
}

/** n pictures that are already what the model takes: resized, cropped and normalised, channel by channel. */
export interface PixelTensor {
  readonly pixels: Float32Array;
  /** [n, 3, height, width] */
  readonly shape: readonly number[];
}

/** One picture, or `PixelTensor`, which may hold several: a path, a file: URL, an encoded file's bytes, raw pixels. */
export type ImageInput = string | URL | Uint8Array | ArrayBuffer | SharedArrayBuffer | RawPixels | PixelTensor;

/** What `takeImage` made of an input: nothing in it belongs to the caller any more. `label` names it in errors. */
export type TakenImage =
  | { readonly kind: 'file'; readonly label: string; readonly path: string }
  | { readonly kind: 'encoded'; readonly label: string; readonly bytes: Promise<Buffer> }
  | { readonly kind: 'raw'; readonly label: string; readonly bytes: Promise<Buffer>; readonly size: RawSize };

export interface RawSize {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
}

/** Longest side of a picture, in pixels: what JPEG and GIF can say, and what keeps a resampling table under 2 MB. */
export const kMaxSide = 65_535;

/** Bytes of the caller's that are copied per turn of the event loop: fresh memory can cost 4 ms a megabyte where page faults are slow. */
const kCopyPerTurn = 512 << 10;
let copiedThisTurn = 0;

/** Memory of earlier copies, at most this many bytes, used again: its pages are there already. */
const kSpareBytes = 16 << 20;
const spares: Buffer[] = [];

export function imageError(label: string, what: string, cause?: unknown): WarpsightError {
  return new WarpsightError('ERR_IMAGE', `${label}: ${what}`, cause === undefined ? undefined : { cause });
}

/**
 * Whether an input is `{ pixels, shape }`, checked: a Float32Array of exactly n · 3 · H · W numbers.
 *
 * @throws {WarpsightError} ERR_SHAPE if it has `pixels` and a shape that is another, or that disagrees with their number
 */
export function isPixelTensor(input: unknown): input is PixelTensor {
  if (typeof input !== 'object' || input === null || !('pixels' in input)) return false;
  const pixels = field(input, 'pixels');
  const shape = field(input, 'shape');
  if (!types.isFloat32Array(pixels))
    throw new WarpsightError('ERR_SHAPE', `pixels: must be a Float32Array: got ${nameOf(pixels)}`);
  const sizes: unknown[] = Array.isArray(shape) ? shape : [];
  const good = sizes.length === 4 && sizes.every((n) => Number.isSafeInteger(n) && Number(n) >= 0) && sizes[1] === 3;
  if (!good) throw new WarpsightError('ERR_SHAPE', `pixels: shape must be [n, 3, H, W]: got ${showShape(shape)}`);
  const count = sizes.reduce<number>((product, n) => product * Number(n), 1);
  if (pixels.length !== count) {
    throw new WarpsightError(
      'ERR_SHAPE',
      `pixels: shape [${sizes.join(', ')}] needs ${count} numbers: pixels has ${pixels.length}`,
    );
  }
  return true;
}

/**
 * Takes an input over from the caller: parses what it is and starts copying its bytes, of which the first 512 KiB of one turn of the
 * event loop are copied before this returns and the rest within the next turns. A buffer that is changed later than that is not seen;
 * one that is transferred meanwhile is an error, never a fault.
 *
 * @throws {WarpsightError} ERR_IMAGE if it is no `ImageInput`, or its sizes contradict each other
 */
export function takeImage(input: ImageInput): TakenImage {
  return take(input);
}

function take(input: unknown): TakenImage {
  if (typeof input === 'string') return takePath(input);
  if (types.isUint8Array(input)) return takeEncoded(input.buffer, input.byteOffset, input.byteLength, () => input.byteLength);
  if (types.isAnyArrayBuffer(input)) return takeEncoded(input, 0, input.byteLength, () => input.byteLength);
  if (typeof input === 'object' && input !== null) {
    if ('pixels' in input) throw imageError('image', '{ pixels, shape } is already pre-processed and cannot be decoded again');
    if ('href' in input && typeof input.href === 'string') return takePath(input.href);
    if ('data' in input) return takeRaw(input);
  }
  throw imageError(
    'image',
    `must be a path, a file: URL, an encoded file's bytes (Buffer, Uint8Array, ArrayBuffer) or { data, width, height, channels }: got ${nameOf(input)}`,
  );
}

function takePath(text: string): TakenImage {
  const label = `image ${JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text)}`;
  if (text === '') throw imageError(label, 'the path is empty');
  if (/^file:/i.test(text)) {
    try {
      return { kind: 'file', label, path: fileURLToPath(text) };
    } catch (cause) {
      throw imageError(label, 'is not a file: URL of this machine', cause);
    }
  }
  const scheme = /^([a-z][a-z0-9+.-]+):\/\//i.exec(text)?.[1] ?? /^(data|blob):/i.exec(text)?.[1];
  if (scheme !== undefined) {
    throw imageError(label, `${scheme.toLowerCase()}: URLs are not fetched; download the picture and pass its bytes`);
  }
  if (text.includes('\0')) throw imageError(label, 'a path cannot contain a zero byte');
  return { kind: 'file', label, path: text };
}

function takeEncoded(buffer: ArrayBufferLike, offset: number, length: number, lengthNow: () => number): TakenImage {
  const label = `image of ${length} bytes`;
  if (length === 0) throw imageError('image', 'the buffer is empty');
  return { kind: 'encoded', label, bytes: copyBytes(label, buffer, offset, length, lengthNow) };
}

function takeRaw(input: object): TakenImage {
  const data = field(input, 'data');
  const channels = field(input, 'channels');
  const label = 'raw pixels';
  if (!types.isUint8Array(data) && !types.isUint8ClampedArray(data)) {
    throw imageError(label, `data must be a Uint8Array or Uint8ClampedArray: got ${nameOf(data)}`);
  }
  if (channels !== 1 && channels !== 2 && channels !== 3 && channels !== 4) {
    throw imageError(label, `channels must be 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGBA): got ${show(channels)}`);
  }
  const size: RawSize = { width: side(label, input, 'width'), height: side(label, input, 'height'), channels };
  const needed = size.width * size.height * channels;
  if (data.byteLength !== needed) {
    throw imageError(label, `${size.width} x ${size.height} x ${channels} needs ${needed} bytes: data has ${data.byteLength}`);
  }
  return { kind: 'raw', label, size, bytes: copyBytes(label, data.buffer, data.byteOffset, needed, () => data.byteLength) };
}

function side(label: string, input: object, name: string): number {
  const value = field(input, name);
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > kMaxSide) {
    throw imageError(label, `${name} must be an integer from 1 to ${kMaxSide}: got ${show(value)}`);
  }
  return value;
}

function copyBytes(
  label: string,
  buffer: ArrayBufferLike,
  offset: number,
  length: number,
  lengthNow: () => number,
): Promise<Buffer> {
  const copy = copyInTurns(label, buffer, offset, length, lengthNow);
  copy.catch(() => undefined); // whoever decodes it later sees the error; until then it is not "unhandled"
  return copy;
}

async function copyInTurns(
  label: string,
  buffer: ArrayBufferLike,
  offset: number,
  length: number,
  lengthNow: () => number,
): Promise<Buffer> {
  const copy = reuseOrAllocate(length);
  for (let at = 0; at < length; ) {
    while (copiedThisTurn >= kCopyPerTurn) await nextTurn();
    if (lengthNow() !== length) throw imageError(label, 'the buffer was transferred or resized while it was being read');
    if (copiedThisTurn === 0) setImmediate(() => (copiedThisTurn = 0));
    const step = Math.min(length - at, kCopyPerTurn - copiedThisTurn);
    copy.set(new Uint8Array(buffer, offset + at, step), at);
    copiedThisTurn += step;
    at += step;
  }
  return copy;
}

function reuseOrAllocate(length: number): Buffer {
  const i = spares.findIndex((spare) => spare.length >= length && spare.length <= 4 * length + 65_536);
  return i < 0 ? Buffer.allocUnsafeSlow(length) : spares.splice(i, 1)[0]!.subarray(0, length);
}

/** Gives the memory of a copy back, when nothing reads it any more. */
export function recycle(copy: Buffer): void {
  const whole = Buffer.from(copy.buffer);
  const held = spares.reduce((sum, spare) => sum + spare.length, 0);
  if (held + whole.length <= kSpareBytes) spares.push(whole);
}

/**
 * Reads a whole file of at most `limit` bytes. Only regular files: opening a pipe would wait for ever, /dev/zero never ends.
 *
 * @throws {WarpsightError} ERR_IMAGE
 */
export async function readImageFile(label: string, path: string, limit: number): Promise<Buffer> {
  let file: FileHandle | undefined;
  try {
    if (!(await stat(path)).isFile()) throw imageError(label, 'is not a regular file');
    file = await open(path);
    const { size } = await file.stat();
    if (size === 0) throw imageError(label, 'the file is empty');
    if (size > limit) throw imageError(label, `the file has ${size} bytes, the limit is ${limit} (limitInputBytes)`);
    const bytes = reuseOrAllocate(size);
    let filled = 0;
    while (filled < size) {
      const { bytesRead } = await file.read(bytes, filled, Math.min(size - filled, 1 << 20), filled);
      if (bytesRead === 0) throw imageError(label, `the file shrank from ${size} to ${filled} bytes while it was read`);
      filled += bytesRead;
    }
    return bytes;
  } catch (cause) {
    if (cause instanceof WarpsightError) throw cause;
    throw imageError(label, `cannot be read: ${reasonOf(cause)}`, cause);
  } finally {
    await file?.close();
  }
}

function reasonOf(cause: unknown): string {
  const code = typeof cause === 'object' && cause !== null && 'code' in cause ? cause.code : undefined;
  switch (code) {
    case 'ENOENT':
      return 'no such file';
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'ENAMETOOLONG':
      return 'the path is too long';
    default:
      return typeof code === 'string' ? code : 'unknown reason';
  }
}

function field(input: object, name: string): unknown {
  return Reflect.get(input, name);
}

function nameOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  if (typeof value !== 'object') return typeof value;
  return Object.prototype.toString.call(value).slice(8, -1);
}

function show(value: unknown): string {
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : nameOf(value);
}

function showShape(shape: unknown): string {
  return Array.isArray(shape) ? `[${shape.slice(0, 8).map(show).join(', ')}]` : nameOf(shape);
}
