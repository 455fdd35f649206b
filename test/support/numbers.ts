import { expect } from 'chai';

/** A small generator (mulberry32): the same numbers in every run. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Normal numbers, by Box and Muller. */
export function normal(count: number, seed: number, scale = 1): Float32Array {
  const random = seeded(seed);
  return Float32Array.from(
    { length: count },
    () => scale * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}

type Numbers = ArrayLike<number>;

/** max |a − b| / max |b| */
export function maxRel(actual: Numbers, expected: Numbers): number {
  let error = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    if (Number.isNaN(actual[i]!) !== Number.isNaN(expected[i]!)) return Number.POSITIVE_INFINITY;
    if (actual[i] !== expected[i]) error = Math.max(error, Math.abs(actual[i]! - expected[i]!));
    if (Number.isFinite(expected[i]!)) scale = Math.max(scale, Math.abs(expected[i]!));
  }
  return error === 0 ? 0 : error / (scale || 1);
}

/** The smallest cosine between rows of `width` numbers. */
export function minCosine(actual: Numbers, expected: Numbers, width: number): number {
  let smallest = 1;
  for (let row = 0; row < expected.length; row += width) {
    let ab = 0;
    let aa = 0;
    let bb = 0;
    for (let i = row; i < row + width; i++) {
      ab += actual[i]! * expected[i]!;
      aa += actual[i]! ** 2;
      bb += expected[i]! ** 2;
    }
    smallest = Math.min(smallest, ab / Math.sqrt(aa * bb));
    if (Number.isNaN(ab)) return Number.NaN;
  }
  return smallest;
}

/** Compares element by element and names the worst one; `tolerance` is relative to the largest expected magnitude, as the fixtures state it. */
export function expectClose(actual: Numbers, expected: Numbers, tolerance: number, what = 'values'): void {
  expect(actual.length, `${what}: length`).to.equal(expected.length);
  const error = maxRel(actual, expected);
  if (error <= tolerance) return;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) scale = Math.max(scale, Math.abs(expected[i]!) || 0);
  const first = Array.from(expected).findIndex(
    (value, i) => !(actual[i] === value || Math.abs(actual[i]! - value) <= tolerance * (scale || 1)),
  );
  throw new Error(
    `${what}: max_rel ${error} > ${tolerance}; first at ${first}: ${actual[first]} where ${expected[first]} was expected`,
  );
}

/** Rounds to the bits of float16, to nearest even. */
export function toFloat16Bits(values: Float32Array): Uint16Array {
  return Uint16Array.from(values, (value) => {
    const bits = new Uint32Array(Float32Array.of(value).buffer)[0]!;
    const sign = (bits >>> 16) & 0x8000;
    const magnitude = Math.abs(value);
    if (Number.isNaN(value)) return 0x7e00;
    if (magnitude >= 65520) return sign | 0x7c00;
    if (magnitude < 2 ** -14) return sign | roundEven(magnitude * 2 ** 24);
    const exponent = Math.floor(Math.log2(magnitude));
    const e = magnitude < 2 ** exponent ? exponent - 1 : magnitude >= 2 ** (exponent + 1) ? exponent + 1 : exponent;
    return sign | (((e + 15) << 10) + roundEven((magnitude / 2 ** e - 1) * 1024));
  });
}

/** Rounds to the bits of bfloat16, to nearest even. */
export function toBfloat16Bits(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  return Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
}

function roundEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

export function standardDeviation(values: Numbers): number {
  const list = Array.from(values);
  const mean = list.reduce((a, b) => a + b, 0) / list.length;
  return Math.sqrt(list.reduce((sum, value) => sum + (value - mean) ** 2, 0) / list.length);
}
