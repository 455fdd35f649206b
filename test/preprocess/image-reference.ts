// The two passes of lib/preprocess/resample.ts as plain loops, and the goldens they are judged by.
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ops, Tensor } from '../../lib';
import { kDescriptor, type ResizePlan } from '../../lib/preprocess/resample';

/** From a plan and a [3, 256] table to float32 [n, 3, height, width]. */
export type Resizer = (plan: ResizePlan, lut: Float32Array) => Promise<Float32Array>;

/** The operation of a device's backend. */
export function resizerOn(device: string): Resizer {
  return async ({ sources, images, taps, scratchBytes, width, height }, lut) => {
    const bytes = Buffer.concat(sources);
    const count = images.length / kDescriptor.length;
    return ops
      .resizeNormalize(
        Tensor.from(bytes, [bytes.length], { device, dtype: 'uint8' }),
        Tensor.from(images, [count, kDescriptor.length], { device }),
        Tensor.from(taps, [taps.length], { device }),
        { width, height, table: lut, scratchBytes },
      )
      .read();
  };
}

/** Every implementation that the goldens judge without a GPU. */
export const kResizers: [name: string, resizer: Resizer][] = [
  ['plain loops', async (plan, lut) => resizePlainly(plan, lut)],
  ['the CPU backend', resizerOn('cpu')],
];

/** [3, 256] that keeps the 8-bit value. */
export const kIdentityLut = Float32Array.from({ length: 768 }, (_, i) => i & 255);

function clip8(sum: number): number {
  return Math.min(255, Math.max(0, ((1 << 21) + sum) >> 22));
}

export function resizePlainly(plan: ResizePlan, lut: Float32Array): Float32Array {
  const { width, height, taps } = plan;
  const source = Buffer.concat(plan.sources);
  const count = plan.images.length / kDescriptor.length;
  const scratch = new Uint8Array(plan.scratchBytes).fill(0xa5);
  const out = new Float32Array(count * 3 * height * width).fill(Number.NaN);
  for (let n = 0; n < count; n++) {
    const of = (name: keyof typeof kDescriptor) => plan.images[n * kDescriptor.length + kDescriptor[name]]!;
    const sourceRow = of('sourceWidth') * 3;
    const scratchOffset = of('scratchOffset');
    for (let y = 0; y < of('rows'); y++) {
      for (let x = 0; x < width; x++) {
        const tap = of('xTable') + x * of('xStride');
        for (let c = 0; c < 3; c++) {
          let sum = 0;
          for (let i = 0; i < taps[tap + 1]!; i++) {
            const at = of('sourceOffset') + (of('firstRow') + y) * sourceRow + (taps[tap]! + i) * 3 + c;
            sum += taps[tap + 2 + i]! * source[at]!;
          }
          scratch[scratchOffset + (y * width + x) * 3 + c] = clip8(sum);
        }
      }
    }
    for (let y = 0; y < height; y++) {
      const tap = of('yTable') + y * of('yStride');
      for (let x = 0; x < width; x++) {
        for (let c = 0; c < 3; c++) {
          let sum = 0;
          for (let i = 0; i < taps[tap + 1]!; i++) {
            sum += taps[tap + 2 + i]! * scratch[scratchOffset + ((taps[tap]! + i - of('firstRow')) * width + x) * 3 + c]!;
          }
          out[((n * 3 + c) * height + y) * width + x] = lut[c * 256 + clip8(sum)]!;
        }
      }
    }
  }
  return out;
}

/** [3, h, w] of whole numbers to [h, w, 3] bytes. */
export function toBytes(planes: Float32Array, height: number, width: number): Buffer {
  const bytes = Buffer.alloc(height * width * 3);
  for (let c = 0; c < 3; c++) for (let i = 0; i < height * width; i++) bytes[3 * i + c] = planes[c * height * width + i]!;
  return bytes;
}

/** Where the first difference is, how many there are and how large the largest is; undefined where there is none. */
export function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): string | undefined {
  if (actual.length !== expected.length) return `${actual.length} values, expected ${expected.length}`;
  let first = -1;
  let count = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    if (actual[i] === expected[i]) continue;
    if (first < 0) first = i;
    count++;
    largest = Math.max(largest, Math.abs(actual[i]! - expected[i]!));
  }
  if (count === 0) return undefined;
  return `[${first}] is ${actual[first]}, expected ${expected[first]}; ${count} of ${expected.length} differ, by ${largest} at most`;
}

export interface PictureGolden {
  readonly name: string;
  readonly path: string;
  readonly width: number;
  readonly height: number;
  readonly rgbSha256: string;
  readonly tensors: readonly string[];
}

export interface Goldens {
  readonly pictures: readonly PictureGolden[];
  readonly mean: readonly number[];
  readonly std: readonly number[];
  tensor(name: string): { readonly shape: readonly number[]; readonly bytes: Buffer };
}

interface Meta {
  mean: number[];
  std: number[];
  images: Record<string, { width: number; height: number; rgb_sha256: string; tensors: string[] }>;
}

/** The fixtures' folder `preprocess`, or undefined on a machine without them. */
export function readGoldens(): Goldens | undefined {
  const folder = join(resolve(process.env.WARPSIGHT_FIXTURES ?? '../shared/fixtures'), 'preprocess');
  if (!existsSync(join(folder, 'meta.json'))) return undefined;
  const meta: Meta = JSON.parse(readFileSync(join(folder, 'meta.json'), 'utf8'));
  const file = readFileSync(join(folder, 'expected.safetensors'));
  const headerLength = Number(file.readBigUInt64LE(0));
  const header: Record<string, { shape: number[]; data_offsets: [number, number] }> = JSON.parse(
    file.toString('utf8', 8, 8 + headerLength),
  );
  return {
    mean: meta.mean,
    std: meta.std,
    pictures: Object.entries(meta.images).map(([name, image]) => ({
      name,
      path: join(folder, 'images', name),
      width: image.width,
      height: image.height,
      rgbSha256: image.rgb_sha256,
      tensors: image.tensors,
    })),
    tensor(name) {
      const entry = header[name];
      if (entry === undefined) throw new Error(`no golden named ${name}`);
      const [begin, end] = entry.data_offsets;
      return { shape: entry.shape, bytes: file.subarray(8 + headerLength + begin, 8 + headerLength + end) };
    },
  };
}

/** The preprocessor_config.json that each kind of golden stands for; undefined for what is for information only. */
export function configOf(kind: string): Record<string, unknown> | undefined {
  const filters: Record<string, number> = { nearest: 0, lanczos: 1, bilinear: 2, box: 4, hamming: 5 };
  const clip = (size: number, crop = size) => ({
    image_processor_type: 'CLIPImageProcessor',
    size,
    crop_size: crop,
    resample: 3,
  });
  const filter = filters[/^hf112-(.*)/.exec(kind)?.[1] ?? ''];
  if (filter !== undefined) return { ...clip(112), resample: filter };
  switch (kind) {
    case 'hf224':
      return clip(224);
    case 'hf96':
    case 'pixel_values96':
      return clip(96);
    case 'hf256crop224':
      return clip(256, 224);
    case 'squash224':
      return { image_processor_type: 'SiglipImageProcessor', size: { height: 224, width: 224 }, resample: 3 };
    case 'llava336':
    case 'llava112': {
      const size = Number(kind.slice(5));
      return { ...clip(size), image_processor_type: 'LlavaImageProcessor', do_pad: true };
    }
    default:
      return undefined;
  }
}
