// Decoded pictures to the model's pixels, as a program of its own: what `ImageProcessor.preprocess` runs. Models resize inside their own programs.
import { type DeviceName, device as openDevice } from '../device';
import { activate, resizeNormalize } from '../ops';
import { Borrowed } from '../program';
import { Tensor } from '../tensor';
import { holdDecoded, releaseDecoded } from './image-slots';
import { kDescriptor, type ResizePlan } from './resample';

/**
 * Resizes, crops and normalises the pictures of a plan off the main thread; their bytes are read where they lie.
 *
 * @param lut [3, 256], see `normalisationTable`
 * @returns [n, 3, height, width]
 */
export function resizedPixels(plan: ResizePlan, lut: Float32Array, device: string, signal?: AbortSignal): Tensor<'float32'> {
  const { sources, images, taps, scratchBytes, width, height } = plan;
  const count = images.length / kDescriptor.length;
  const bytes = sources.reduce((sum, source) => sum + source.length, 0);
  using program = openDevice(device as DeviceName).compile(
    (pixels, descriptors, tables) =>
      resizeNormalize(pixels as Tensor<'uint8'>, descriptors as Tensor<'int32'>, tables as Tensor<'int32'>, {
        width,
        height,
        table: lut,
        scratchBytes,
      }),
    [
      { shape: [bytes], dtype: 'uint8' },
      { shape: [count, kDescriptor.length], dtype: 'int32' },
      { shape: [taps.length], dtype: 'int32' },
    ],
  );
  const pixels = program.launch([new Borrowed(sources, () => releaseDecoded(bytes)), images, taps], { bulk: count > 4, signal });
  holdDecoded(bytes);
  return pixels;
}

/**
 * Batches of pictures of one size, one after the other, copied off the main thread. The parts are disposed.
 *
 * @param parts [nᵢ, 3, height, width]
 * @returns [Σ nᵢ, 3, height, width]
 */
export async function joinPixels(parts: readonly Tensor<'float32'>[], device: string): Promise<Tensor<'float32'>> {
  const [first] = parts;
  if (first && parts.length === 1) return first;
  try {
    const pieces = await Promise.all(parts.map((part) => part.read()));
    const count = parts.reduce((sum, part) => sum + part.shape[0]!, 0);
    const shape = [count, ...(first?.shape.slice(1) ?? [])];
    using copy = openDevice(device as DeviceName).compile((x) => activate(x as Tensor<'float32'>, 'none'), [{ shape }]);
    return copy.launch([new Borrowed(pieces)]);
  } finally {
    for (const part of parts) part.dispose();
  }
}

/** No pictures. */
export function noPixels({ width, height }: Pick<ResizePlan, 'width' | 'height'>, device: string): Tensor<'float32'> {
  return Tensor.from(new Float32Array(0), [0, 3, height, width], { device });
}
