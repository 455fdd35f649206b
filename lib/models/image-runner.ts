import { type DeviceName, device as openDevice } from '../device';
import { WarpsightError } from '../errors';
import { resizeNormalize } from '../ops';
import type { ImageProcessor } from '../preprocess/image-processor';
import { holdDecoded, releaseDecoded } from '../preprocess/image-slots';
import { type ImageInput, isPixelTensor, type PixelTensor } from '../preprocess/image-source';
import { kDescriptor, type ResizePlan } from '../preprocess/resample';
import { Borrowed, dim, type InputSpec, type LaunchOptions, type ProgramInput, type ProgramResult } from '../program';
import { Tensor } from '../tensor';
import { Weight } from '../weight';
import { bucket, mostRows, type ProgramCache } from './encode-program';

export type ImageInputs = ImageInput | readonly ImageInput[];

/** Pictures of one run, on the CPU where their rows allow it: beyond it the work goes in several. */
const kMostImages = 64;
/** Above it a call goes to the lane that lets short calls pass between its steps. */
const kInteractiveImages = 4;

/** What is computed of pixels, in the same program as their resizing. */
export interface ImageFunction<R extends ProgramResult> {
  /** Tells programs with other functions apart. */
  readonly key: string;
  /** @param pixels [n, 3, height, width] @param rows int32, those of each picture, where the model has such */
  build(pixels: Tensor<'float32'>, rows: Tensor<'int32'>): R;
}

interface PixelBatch {
  readonly pixels: ProgramInput;
  readonly count: number;
  readonly height: number;
  readonly width: number;
}

/** What a run computed of some of a call's pictures, which came out in one size. */
export interface ImageRun<R> {
  readonly result: R;
  /** Which pictures of the call, in the order of the result's rows. */
  readonly indices: readonly number[];
  readonly height: number;
  readonly width: number;
}

/** Pictures in any form to what a model computes of their pixels: decoded off the main thread, then one native call for a batch. */
export class ImageRunner {
  readonly #table: Weight<'vector'> | undefined;
  #disposed = false;

  constructor(
    readonly options: {
      readonly device: string;
      /** Height and width in pixels that the model takes; undefined: pictures of any form, of at least `leastSide` pixels. */
      readonly imageSize: number | undefined;
      readonly leastSide?: number;
      /** Rows that the function makes of a picture; without it, few or cheap ones. */
      readonly tokens?: number | undefined;
      /** The rows that the function is told for picture i: the same number for each; none by default. */
      readonly rowsOf?: (image: number) => readonly number[];
      /** Without it only pre-processed pixels are taken. */
      readonly imageProcessor: ImageProcessor | undefined;
      readonly programs: ProgramCache;
    },
  ) {
    const { imageProcessor, device } = options;
    if (imageProcessor) this.#table = Weight.vector(imageProcessor.lut, { device });
  }

  /**
   * @returns one result for each batch, in order
   * @throws {WarpsightError} ERR_IMAGE, ERR_SHAPE, ERR_CONFIG, ERR_ABORTED, ERR_DISPOSED
   */
  async run<R extends ProgramResult>(images: ImageInputs, fn: ImageFunction<R>, signal: AbortSignal | undefined): Promise<R[]> {
    return (await this.runs(images, fn, signal)).map(({ result }) => result);
  }

  /** The same, told which pictures each result is of. Pictures of a model without an image size are taken together by the size they come out in. */
  async runs<R extends ProgramResult>(
    images: ImageInputs,
    fn: ImageFunction<R>,
    signal: AbortSignal | undefined,
  ): Promise<ImageRun<R>[]> {
    this.#alive();
    const list = Array.isArray(images) ? (images as readonly ImageInput[]) : [images as ImageInput];
    const runs: ImageRun<R>[] = [];
    if (list.length === 0) return runs;
    const pixelTensors = list.filter(isPixelTensor);
    if (pixelTensors.length > 0) {
      if (pixelTensors.length < list.length) {
        throw new WarpsightError('ERR_IMAGE', 'pictures and pre-processed { pixels, shape } can not be mixed in one call');
      }
      const batches = splitPixels(pixelTensors, this.options, this.#mostImages());
      const launch = launchOptions(
        batches.reduce((sum, { count }) => sum + count, 0),
        signal,
      );
      let next = 0;
      for (const batch of batches) {
        const { count, height, width } = batch;
        runs.push({ result: this.#runPixels(batch, fn, launch), indices: range(next, count), height, width });
        next += count;
      }
      return runs;
    }
    const { imageProcessor, imageSize } = this.options;
    if (!imageProcessor) {
      throw new WarpsightError('ERR_CONFIG', 'this model has no preprocessor_config.json: pass pre-processed { pixels, shape }');
    }
    const options = signal ? { signal } : {};
    const launch = launchOptions(list.length, signal);
    const most = this.#mostImages();
    for (let i = 0; i < list.length; i += most) {
      const some = list.slice(i, i + most);
      const plans =
        imageSize === undefined
          ? await imageProcessor.prepareBySize(some, options)
          : [{ plan: await imageProcessor.prepare(some, options), indices: range(0, some.length) }];
      this.#alive();
      for (const { plan, indices } of plans) {
        const { height, width } = plan;
        runs.push({ result: this.#runPlan(plan, fn, launch), indices: indices.map((index) => i + index), height, width });
      }
    }
    return runs;
  }

  dispose(): void {
    this.#disposed = true;
    this.#table?.dispose();
  }

  #runPixels<R extends ProgramResult>(batch: PixelBatch, fn: ImageFunction<R>, launch: LaunchOptions): R {
    const { count, height, width } = batch;
    const n = bucket(count, 1, 2);
    const inputs: InputSpec[] = [{ shape: [dim('n', n), 3, height, width] }, ...this.#rowsSpec(n)];
    const program = this.#program(`pixels ${fn.key} ${height} ${width} ${n}`, inputs, (pixels, rows) =>
      fn.build(pixels as Tensor<'float32'>, rows as Tensor<'int32'>),
    );
    return program.launch([batch.pixels, ...this.#rows(count)], launch) as R;
  }

  #runPlan<R extends ProgramResult>(plan: ResizePlan, fn: ImageFunction<R>, launch: LaunchOptions): R {
    const { sources, images, taps, scratchBytes, width, height } = plan;
    const { imageSize } = this.options;
    if (imageSize !== undefined && (width !== imageSize || height !== imageSize)) {
      throw new WarpsightError(
        'ERR_CONFIG',
        `preprocessor_config.json makes pictures of ${width} x ${height}, the model takes ${imageSize} x ${imageSize}`,
      );
    }
    const count = images.length / kDescriptor.length;
    const bytes = sources.reduce((sum, source) => sum + source.length, 0);
    const dims = {
      n: dim('n', bucket(count, 1, 2)),
      bytes: dim('bytes', bucket(bytes, 1 << 16, 4)),
      taps: dim('taps', bucket(taps.length, 1 << 12, 4)),
      scratch: dim('scratch', bucket(scratchBytes, 1 << 16, 4)),
    };
    const inputs: InputSpec[] = [
      { shape: [dims.bytes], dtype: 'uint8' },
      { shape: [dims.n, kDescriptor.length], dtype: 'int32' },
      { shape: [dims.taps], dtype: 'int32' },
      ...this.#rowsSpec(dims.n.max),
    ];
    const key = `pictures ${fn.key} ${height} ${width} ${Object.values(dims)
      .map(({ max }) => max)
      .join(' ')}`;
    const program = this.#program(key, inputs, (pixels, descriptors, tables, rows) => {
      const normalised = resizeNormalize(pixels as Tensor<'uint8'>, descriptors as Tensor<'int32'>, tables as Tensor<'int32'>, {
        width,
        height,
        table: this.#table!,
        scratchBytes: dims.scratch,
      }); // [n, 3, R, R]
      return fn.build(normalised, rows as Tensor<'int32'>);
    });
    const borrowed = new Borrowed(sources, () => releaseDecoded(bytes));
    const result = program.launch([borrowed, images, taps, ...this.#rows(count)], {
      ...launch,
      sizes: { scratch: scratchBytes },
    }) as R;
    holdDecoded(bytes);
    return result;
  }

  #mostImages(): number {
    const { device, tokens = 1 } = this.options;
    if (device !== 'cpu') return kMostImages;
    return Math.max(1, Math.min(kMostImages, Math.floor(mostRows(device) / tokens)));
  }

  #rows(count: number): Int32Array[] {
    const { rowsOf } = this.options;
    return rowsOf ? [Int32Array.from(range(0, count).flatMap((i) => rowsOf(i)))] : [];
  }

  #rowsSpec(most: number): InputSpec[] {
    const { rowsOf } = this.options;
    return rowsOf ? [{ shape: [dim('n', most, rowsOf(0).length)], dtype: 'int32' }] : [];
  }

  #program(key: string, inputs: readonly InputSpec[], build: (...inputs: Tensor[]) => ProgramResult) {
    const { programs, device } = this.options;
    return programs.get(key, () => openDevice(device as DeviceName).compile(build, inputs));
  }

  #alive(): void {
    if (this.#disposed) throw new WarpsightError('ERR_DISPOSED', 'the model was used after dispose()');
  }
}

/** @param count pictures of the call, in however many runs */
function launchOptions(count: number, signal: AbortSignal | undefined): LaunchOptions {
  return { bulk: count > kInteractiveImages, signal };
}

function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

function splitPixels(
  tensors: readonly PixelTensor[],
  size: { imageSize: number | undefined; leastSide?: number },
  most: number,
): PixelBatch[] {
  const { imageSize, leastSide = 1 } = size;
  const batches: PixelBatch[] = [];
  for (const { pixels, shape } of tensors) {
    const [n = 0, channels, height = 0, width = 0] = shape;
    const fits = imageSize === undefined ? Math.min(height, width) >= leastSide : height === imageSize && width === imageSize;
    if (shape.length !== 4 || channels !== 3 || !fits) {
      const wanted =
        imageSize === undefined
          ? `[n, 3, height, width] of at least ${leastSide} x ${leastSide}`
          : `[n, 3, ${imageSize}, ${imageSize}]`;
      throw new WarpsightError('ERR_SHAPE', `pixels must be ${wanted}: the shape given is [${shape.join(', ')}]`);
    }
    const inner = 3 * height * width;
    for (let i = 0; i < n; i += most) {
      const count = Math.min(most, n - i);
      batches.push({ pixels: pixels.subarray(i * inner, (i + count) * inner), count, height, width });
    }
  }
  return batches;
}

/** One tensor of all rows. Parts come from calls that were too large for one run. */
export async function joinRows(parts: readonly Tensor<'float32'>[], width: number, device: string): Promise<Tensor<'float32'>> {
  const [only] = parts;
  if (only && parts.length === 1) return only;
  try {
    const arrays = await Promise.all(parts.map((part) => part.read()));
    const rows = arrays.reduce((sum, array) => sum + array.length / width, 0);
    const all = new Float32Array(rows * width);
    let offset = 0;
    for (const array of arrays) {
      all.set(array, offset);
      offset += array.length;
    }
    return Tensor.from(all, [rows, width], { device });
  } finally {
    for (const part of parts) part.dispose();
  }
}
