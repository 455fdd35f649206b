// What ViLT's and BLIP's fixtures give as batches with padding and masks, as our calls take it.
import type { PixelTensor } from '../../lib';
import { type Numbers, readFixture } from '../support/fixtures';

export function fixtureInput(folder: string, name: string): Numbers {
  return readFixture(folder, 'inputs').get(name)!;
}

/** Rows of ids, padding included. */
export function idRows(folder: string): number[][] {
  const { data, shape } = fixtureInput(folder, 'input_ids');
  const [n, width] = shape as [number, number];
  return Array.from({ length: n }, (_, i) => [...data.subarray(i * width, (i + 1) * width)]);
}

/** Pictures of a padded batch, each cut out where its mask is 1. */
export function unpaddedPixels(folder: string): PixelTensor[] {
  const { data, shape } = fixtureInput(folder, 'pixel_values');
  const mask = fixtureInput(folder, 'pixel_mask').data;
  const [n, C, H, W] = shape as [number, number, number, number];
  return Array.from({ length: n }, (_, i) => {
    const seen = (y: number, x: number) => mask[(i * H + y) * W + x] === 1;
    const height = Array.from({ length: H }, (_, y) => seen(y, 0)).filter(Boolean).length;
    const width = Array.from({ length: W }, (_, x) => seen(0, x)).filter(Boolean).length;
    const pixels = new Float32Array(C * height * width);
    for (let c = 0; c < C; c++)
      for (let y = 0; y < height; y++) {
        const from = ((i * C + c) * H + y) * W;
        pixels.set(data.subarray(from, from + width), (c * height + y) * width);
      }
    return { pixels, shape: [1, C, height, width] };
  });
}
