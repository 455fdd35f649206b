import type { Float } from '../dtype';
import { shapeError, WarpsightError } from '../errors';
import { elements } from '../shape';
import type { Tensor } from '../tensor';
import { call } from '../trace';
import type { Weight } from '../weight';
import { requireFloat, requireInteger, type Vector, vectorOf } from './operands';

export interface PatchEmbedOptions {
  /** Side of a patch in pixels. */
  readonly patch: number;
  /** [D] */
  readonly bias?: Vector | undefined;
  /** [D], a row in front of the patches */
  readonly classToken?: Vector | undefined;
  /** T·D numbers, T counting the class token; added to every row */
  readonly positions?: Vector | undefined;
  /** The dtype of the output: float32 by default. */
  readonly dtype?: Float | undefined;
}

/**
 * A convolution whose stride is its kernel, as a GEMM over patches; class token in front, positions added.
 *
 * @param pixels [n, C, H, W] float32
 * @param weight [D, C·p·p], the convolution's [D, C, p, p]
 * @returns [n·T, D], T = patches (+ 1 with a class token), patches row by row; pixels beyond the last whole patch are not read
 * @see Dosovitskiy et al. 2021, equation 1
 */
export function patchEmbed(pixels: Tensor<'float32'>, weight: Weight<'matrix'>, options: PatchEmbedOptions): Tensor<Float> {
  const { patch, bias, classToken, positions, dtype = 'float32' } = options;
  requireFloat('patchEmbed', { pixels });
  requireInteger('patchEmbed', 'patch', patch, 1, 4096);
  const [n, C, H, W] = pixels.shape;
  const [D, K] = weight.shape;
  if (pixels.shape.length !== 4 || n === undefined || C === undefined || H === undefined || W === undefined) {
    throw shapeError('patchEmbed', 'pixels must be [n, C, H, W]', { pixels: pixels.shape });
  }
  if (D === undefined || K !== C * patch * patch) {
    throw shapeError('patchEmbed', `weight must be [D, ${C}·${patch}·${patch}]`, { pixels: pixels.shape, weight: weight.shape });
  }
  const T = Math.floor(H / patch) * Math.floor(W / patch) + (classToken ? 1 : 0);
  if (T === 0)
    throw shapeError('patchEmbed', `pictures must hold at least one patch of ${patch} x ${patch}`, { pixels: pixels.shape });
  if (pixels.dtype !== 'float32')
    throw new WarpsightError('ERR_DTYPE', `patchEmbed: pixels must be float32: they are ${pixels.dtype}`);
  const { device } = pixels;
  const inputs = [
    pixels,
    weight,
    vectorOf('patchEmbed', 'bias', bias, D, device),
    vectorOf('patchEmbed', 'classToken', classToken, D, device),
    vectorOf('patchEmbed', 'positions', positions, elements([T, D]), device),
  ];
  const [y] = call('patchEmbed', { patch }, inputs, [{ dtype, shape: [n * T, D], like: pixels, times: T }]);
  return y as Tensor<Float>;
}
