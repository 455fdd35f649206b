// A zero-shot head of 100,000 classes against float64.
import { expect } from 'chai';
import { ops, Tensor } from '../../lib';
import { expectClose, seeded } from '../support/numbers';
import { kDevice, kernelOf, provesKernels } from './evidence';

const C = 100_000;
const D = 768;
const n = 3;
const k = 5;
const kMultiplier = 50;

/** float16 numbers below 1. */
function halves(count: number, seed: number): Uint16Array {
  const random = seeded(seed);
  const rows = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    const bits = Math.floor(random() * 65_536);
    rows[i] = (bits & 0x8000) | ((bits & 0x7fff) % 0x3c00);
  }
  return rows;
}

/** The value of each float16 below 1. */
const kValues = new Map(
  [0, 0x8000].flatMap((sign) =>
    Array.from({ length: 0x3c00 }, (_, half): [number, number] => {
      const [exponent, fraction] = [half >> 10, half & 1023];
      const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
      return [sign | half, sign === 0 ? magnitude : -magnitude];
    }),
  ),
);

/** Rows of unit length. */
function unitRows(rows: Uint16Array): Float64Array {
  const table = Float64Array.from({ length: 65_536 }, (_, half) => kValues.get(half) ?? Number.NaN);
  const unit = new Float64Array(rows.length);
  for (let first = 0; first < rows.length; first += D) {
    let squares = 0;
    for (let i = first; i < first + D; i++) squares += table[rows[i]!]! ** 2;
    for (let i = first; i < first + D; i++) unit[i] = table[rows[i]!]! / Math.sqrt(squares);
  }
  return unit;
}

describe(`zeroShotHead of ${C} classes on CUDA`, () => {
  provesKernels('float16', ['zeroShotHead', kernelOf('zero_shot_head_mma', 'float16')]);

  it('finds the five best of each image, the first of equal ones first', async () => {
    const [images, classes] = [halves(n * D, 31), halves(C * D, 32)];
    for (const copy of [99_999, 17, 70_001]) classes.set(images.subarray(0, D), copy * D); // a cosine of 1, three times
    using x = Tensor.from(images, [n, D], { device: kDevice, dtype: 'float16' });
    using y = Tensor.from(classes, [C, D], { device: kDevice, dtype: 'float16' });
    const { scores, indices } = ops.zeroShotHead(x, y, Math.log(kMultiplier), { k });
    const [actual, best] = [await scores.read(), await indices.read()];

    const [rows, all] = [unitRows(images), unitRows(classes)];
    for (let i = 0; i < n; i++) {
      const logits = new Float64Array(C);
      for (let c = 0; c < C; c++) {
        let dot = 0;
        for (let d = 0; d < D; d++) dot += rows[i * D + d]! * all[c * D + d]!;
        logits[c] = kMultiplier * dot;
      }
      const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
      const expected = i === 0 ? [17, 70_001, 99_999, ...order.filter((c) => ![17, 70_001, 99_999].includes(c))] : order;
      expect([...best.subarray(i * k, (i + 1) * k)], `image ${i}`).to.deep.equal(expected.slice(0, k));
      const top = logits[order[0]!]!;
      const sum = logits.reduce((total, logit) => total + Math.exp(logit - top), 0);
      const probabilities = expected.slice(0, k).map((c) => Math.exp(logits[c]! - top) / sum);
      expectClose(actual.subarray(i * k, (i + 1) * k), probabilities, 1e-3, `image ${i}`);
    }
    scores.dispose();
    indices.dispose();
  });
});
