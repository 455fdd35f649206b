import type { Tensor } from '../tensor';
import { call, type Dim } from '../trace';
import { requireInt32, type Vector, vectorOf } from './operands';

export interface ResizeNormalizeOptions {
  readonly width: number;
  readonly height: number;
  /** [3·256]: what a grey level of a channel becomes, (u·rescale − mean) / std */
  readonly table: Vector;
  /** Bytes of all pictures between the two passes. */
  readonly scratchBytes: number | Dim;
}

/**
 * Antialiased resampling in PIL's integer arithmetic, crop and normalisation; the tables of taps come from `planResize`.
 *
 * @param pixels uint8 [bytes]: RGB, row by row, picture after picture
 * @param images int32 [n, 12], see native/src/picture_row.h
 * @param taps int32 [length]
 * @returns [n, 3, height, width] float32
 */
export function resizeNormalize(
  pixels: Tensor<'uint8'>,
  images: Tensor<'int32'>,
  taps: Tensor<'int32'>,
  { width, height, table, scratchBytes }: ResizeNormalizeOptions,
): Tensor<'float32'> {
  requireInt32('resizeNormalize', 'images', images);
  requireInt32('resizeNormalize', 'taps', taps);
  const dim = typeof scratchBytes === 'object' ? scratchBytes : undefined;
  const bytes = typeof scratchBytes === 'object' ? scratchBytes.max * scratchBytes.multiple : scratchBytes;
  const [rows] = call('resizeHorizontal', { width }, [pixels, images, taps], [{ dtype: 'uint8', shape: [bytes], dim }]);
  const lut = vectorOf('resizeNormalize', 'table', table, 3 * 256, pixels.device);
  const [out] = call(
    'resizeVertical',
    { width, height },
    [rows, images, taps, lut],
    [{ dtype: 'float32', shape: [images.shape[0]!, 3, height, width], like: images }],
  );
  return out as Tensor<'float32'>;
}
