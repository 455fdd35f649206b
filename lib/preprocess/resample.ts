// PIL's antialiased resizing as tables of integers. A picture is resized in two passes over 8-bit samples, across and then down; each output
// sample is a weighted sum of neighbouring inputs, rounded to 8 bits after each pass. Weights are computed here in double and rounded to
// 22 fractional bits; the passes themselves, integers only, run in the addon.
//
//   pass 1   u[y, x, c] = clip8((2^21 + Σ w · source[y, first + i, c]) >> 22)     rows firstRow … firstRow + rows - 1
//   pass 2   v[y, x, c] = clip8((2^21 + Σ w · u[first - firstRow + i, x, c]) >> 22)
//   out[c, y, x] = lut[c · 256 + v[y, x, c]]
//
// source: Pillow, src/libImaging/Resample.c (filters, supports, rounding of weights) and Geometry.c (nearest)
import { WarpsightError } from '../errors';

/** PIL's filters by their codes, which preprocessor_config.json stores as `resample`. */
export const kFilterNames = ['nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming'] as const;
export type ResampleFilter = (typeof kFilterNames)[number];

/**
 * Where one axis of the output comes from. `taps` holds, for each output sample, `[first, count, w_0 … w_{k-1}]`, k = stride - 2: it is
 * Σ w_i · source[first + i] over i < count, in units of 2^-22. An output outside the resized picture is padding: count 0.
 */
export interface AxisTable {
  readonly taps: Int32Array;
  readonly stride: number;
  /** The input samples that are read: from `begin`, inclusive, to `end`. */
  readonly begin: number;
  readonly end: number;
}

/** How a picture becomes height x width: resized to the first pair, then cropped (or padded with zeros) around its centre to the second. */
export interface Placement {
  readonly resizedHeight: number;
  readonly resizedWidth: number;
  readonly height: number;
  readonly width: number;
}

/** A decoded picture with its tables. */
export interface PlacedImage {
  readonly data: Uint8Array;
  readonly sourceWidth: number;
  readonly width: number;
  readonly height: number;
  readonly x: AxisTable;
  readonly y: AxisTable;
}

/** What the native operation needs to resize a batch of pictures of any sizes to [n, 3, height, width]. */
export interface ResizePlan {
  /** The RGB bytes of each picture; `sourceOffset` counts in their concatenation. */
  readonly sources: readonly Uint8Array[];
  /** [n, 12]: sourceOffset, sourceWidth, sourceHeight, xTable, xStride, yTable, yStride, scratchOffset, firstRow, rows, then zeros; see `kDescriptor`. */
  readonly images: Int32Array;
  /** All tables, one after the other; equal tables are there once. */
  readonly taps: Int32Array;
  /** Bytes between the passes: [rows, width, 3] for each picture, each at a multiple of 64. */
  readonly scratchBytes: number;
  readonly width: number;
  readonly height: number;
}

/** Positions within one picture's row of `ResizePlan.images`: native/src/picture_row.h. Offsets of sources and scratch are bytes, of tables int32 elements. */
export const kDescriptor = {
  sourceOffset: 0,
  sourceWidth: 1,
  sourceHeight: 2,
  xTable: 3,
  xStride: 4,
  yTable: 5,
  yStride: 6,
  scratchOffset: 7,
  firstRow: 8,
  rows: 9,
  length: 12,
} as const;

const kOne = 1 << 22;
const kScratchAlignment = 64;

interface Kernel {
  readonly support: number;
  weight(x: number): number;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

const kKernels: Readonly<Record<Exclude<ResampleFilter, 'nearest'>, Kernel>> = {
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: { support: 1, weight: (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI))) },
  bicubic: { support: 2, weight: (x) => cubic(Math.abs(x), -0.5) },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Keys' cubic convolution. */
function cubic(x: number, a: number): number {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/** Bytes of tables that are kept for pictures of sizes seen before, least recently used first out. */
const kCacheBytes = 8 << 20;
const cache = new Map<string, AxisTable>();
let cachedBytes = 0;

/**
 * The table of one axis: `inputSize` samples resized to `outputSize`, of which those from `cropStart` to cropStart + cropLength are wanted.
 * Only these are computed, however long the resized axis is.
 */
export function axisTable(
  inputSize: number,
  outputSize: number,
  cropStart: number,
  cropLength: number,
  filter: ResampleFilter,
): AxisTable {
  const key = `${inputSize} ${outputSize} ${cropStart} ${cropLength} ${filter}`;
  const known = cache.get(key);
  const table = known ?? computeTable(inputSize, outputSize, cropStart, cropLength, filter);
  cache.delete(key);
  cache.set(key, table); // a Map keeps the order of insertion: the last is the most recent
  if (known === undefined) cachedBytes += table.taps.byteLength;
  for (const [oldest, { taps }] of cache) {
    if (cachedBytes <= kCacheBytes) break;
    cache.delete(oldest);
    cachedBytes -= taps.byteLength;
  }
  return table;
}

/** The inputs of one output sample: `first`, and how many. */
interface Span {
  readonly first: number;
  readonly count: number;
}

const kPadding: Span = { first: 0, count: 0 };

function computeTable(
  inputSize: number,
  outputSize: number,
  cropStart: number,
  cropLength: number,
  filter: ResampleFilter,
): AxisTable {
  const scale = inputSize / outputSize;
  const wanted = Array.from({ length: cropLength }, (_, i) => cropStart + i);
  const inside = (output: number) => output >= 0 && output < outputSize;
  if (filter === 'nearest') {
    const positions = nearestPositions(scale, cropStart, cropLength);
    const spans = wanted.map((output, i) =>
      inside(output) ? { first: Math.min(inputSize - 1, Math.trunc(positions[i]!)), count: 1 } : kPadding,
    );
    return fillTable(spans, (_, taps, at) => {
      taps[at] = kOne;
    });
  }

  const kernel = kKernels[filter];
  const stretch = Math.max(1, scale); // shrinking widens the filter, so that every input counts
  const support = kernel.support * stretch;
  const perSample = 1 / stretch;
  const spans = wanted.map((output) => {
    if (!inside(output)) return kPadding;
    const centre = (output + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    return { first, count: Math.min(inputSize, Math.trunc(centre + support + 0.5)) - first };
  });
  return fillTable(spans, (i, taps, at) => {
    const { first, count } = spans[i]!;
    const centre = (wanted[i]! + 0.5) * scale;
    const weights = new Float64Array(count);
    let sum = 0;
    for (let x = 0; x < count; x++) {
      const weight = kernel.weight((x + first - centre + 0.5) * perSample);
      weights[x] = weight;
      sum += weight;
    }
    for (let x = 0; x < count; x++) taps[at + x] = fixedPoint(sum === 0 ? weights[x]! : weights[x]! / sum);
  });
}

/** Lays a table out and has the weights of each output that has any written at `at`. */
function fillTable(spans: readonly Span[], fill: (i: number, taps: Int32Array, at: number) => void): AxisTable {
  const used = spans.filter((span) => span.count > 0);
  const stride = used.reduce((most, span) => Math.max(most, span.count), 1) + 2;
  const taps = new Int32Array(spans.length * stride);
  spans.forEach(({ first, count }, i) => {
    taps[i * stride] = first;
    taps[i * stride + 1] = count;
    if (count > 0) fill(i, taps, i * stride + 2);
  });
  const begin = used.reduce((least, span) => Math.min(least, span.first), used[0]?.first ?? 0);
  const end = used.reduce((most, span) => Math.max(most, span.first + span.count), 0);
  return { taps, stride, begin, end };
}

/** Rounds half away from zero. */
function fixedPoint(weight: number): number {
  return Math.trunc(weight < 0 ? -0.5 + weight * kOne : 0.5 + weight * kOne);
}

/** PIL adds the step up from output to output, and rounding errors with it; past a million of them the product is used. */
const kMostSteps = 1 << 20;

function nearestPositions(scale: number, cropStart: number, cropLength: number): number[] {
  const start = Math.max(0, cropStart);
  let position = scale * 0.5;
  if (start <= kMostSteps) for (let i = 0; i < start; i++) position += scale;
  else position += start * scale;
  return Array.from({ length: cropLength }, (_, i) => {
    const here = position;
    if (cropStart + i >= 0) position += scale;
    return here;
  });
}

/** Finds a picture's two tables. `source` is [height, width, 3]. */
export function placeImage(
  source: { readonly data: Uint8Array; readonly width: number; readonly height: number },
  placement: Placement,
  filter: ResampleFilter,
): PlacedImage {
  const { resizedHeight, resizedWidth, height, width } = placement;
  return {
    data: source.data,
    sourceWidth: source.width,
    width,
    height,
    x: axisTable(source.width, resizedWidth, Math.floor((resizedWidth - width) / 2), width, filter),
    y: axisTable(source.height, resizedHeight, Math.floor((resizedHeight - height) / 2), height, filter),
  };
}

/** @throws {WarpsightError} ERR_IMAGE if a picture, or a plan of some, has another size than the others of its call */
export function requireSize(image: { readonly width: number; readonly height: number }, height: number, width: number): void {
  if (image.height === height && image.width === width) return;
  throw new WarpsightError(
    'ERR_IMAGE',
    `pictures of one call must come out in one size: one is ${image.width} x ${image.height}, the others ${width} x ${height}`,
  );
}

/**
 * Joins pictures to one plan.
 *
 * @throws {WarpsightError} ERR_IMAGE if they come out with different sizes, or hold 2 GiB or more together
 */
export function joinPlan(images: readonly PlacedImage[], height: number, width: number): ResizePlan {
  const descriptors = new Int32Array(images.length * kDescriptor.length);
  const tables = new Map<AxisTable, number>();
  let tapsLength = 0;
  let sourceBytes = 0;
  let scratchBytes = 0;
  const place = (table: AxisTable) => {
    const known = tables.get(table);
    if (known !== undefined) return known;
    const offset = tapsLength;
    tables.set(table, offset);
    tapsLength += table.taps.length;
    return offset;
  };

  images.forEach((image, i) => {
    requireSize(image, height, width);
    const { x, y } = image;
    const rows = y.end - y.begin;
    const at = i * kDescriptor.length;
    descriptors[at + kDescriptor.sourceOffset] = sourceBytes;
    descriptors[at + kDescriptor.sourceWidth] = image.sourceWidth;
    descriptors[at + kDescriptor.sourceHeight] = image.data.length / (3 * image.sourceWidth);
    descriptors[at + kDescriptor.xTable] = place(x);
    descriptors[at + kDescriptor.xStride] = x.stride;
    descriptors[at + kDescriptor.yTable] = place(y);
    descriptors[at + kDescriptor.yStride] = y.stride;
    descriptors[at + kDescriptor.scratchOffset] = scratchBytes;
    descriptors[at + kDescriptor.firstRow] = y.begin;
    descriptors[at + kDescriptor.rows] = rows;
    sourceBytes += image.data.length;
    scratchBytes += Math.ceil((rows * width * 3) / kScratchAlignment) * kScratchAlignment;
  });
  if (Math.max(sourceBytes, scratchBytes, tapsLength) >= 2 ** 31) {
    throw new WarpsightError(
      'ERR_IMAGE',
      `${images.length} pictures take ${sourceBytes} bytes decoded, and one call takes 2 GiB: pass fewer`,
    );
  }

  const taps = new Int32Array(tapsLength);
  for (const [table, offset] of tables) taps.set(table.taps, offset);
  return { sources: images.map((image) => image.data), images: descriptors, taps, scratchBytes, width, height };
}

/**
 * The 3 · 256 float32 values that a channel's 8-bit samples become: (u · rescaleFactor - mean) / std, computed in double and rounded once.
 */
export function normalisationTable(rescaleFactor: number, mean: readonly number[], std: readonly number[]): Float32Array {
  return Float32Array.from({ length: 3 * 256 }, (_, i) => {
    const channel = i >> 8;
    return ((i & 255) * rescaleFactor - mean[channel]!) / std[channel]!;
  });
}
