// ViT-B/32 in its real widths, with random weights: single operations against float64, whole towers against the CPU backend.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type CheckpointSize, makeCheckpoint } from '../../bench/make-checkpoint';
import { CLIP, type Float, ops, Tensor, Weight } from '../../lib';
import { expectClose, minCosine, normal, seeded } from '../support/numbers';
import { kDevice, provesKernels } from './evidence';

const D = 768;
const H = 12;
const T = 50;

// The text tower's widths, but two layers of its twelve and a small vocabulary.
const size: CheckpointSize = {
  vision: { width: D, layers: 12, heads: H, image: 224, patch: 32 },
  text: { width: 512, layers: 2, heads: 8, vocabulary: 1000, context: 77 },
  projection: 512,
};

const quickGelu = (x: number) => x / (1 + Math.exp(-1.702 * x));

describe('operations in the widths of ViT-B/32', () => {
  provesKernels('float32', ['linear', 'attention', 'layerNorm', 'patchEmbed']);

  /** Some places of an output [rows, columns]: corners, and others at random. */
  function places(rows: number, columns: number): [row: number, column: number][] {
    const random = seeded(rows + columns);
    const some = Array.from({ length: 300 }, (): [number, number] => [
      Math.floor(random() * rows),
      Math.floor(random() * columns),
    ]);
    return [[0, 0], [rows - 1, columns - 1], [0, columns - 1], [rows - 1, 0], ...some];
  }

  function expectAt(y: Float32Array, rows: number, columns: number, reference: (row: number, column: number) => number): void {
    expect(y.length).to.equal(rows * columns);
    expect(y.every(Number.isFinite)).to.equal(true);
    const at = places(rows, columns);
    const actual = at.map(([row, column]) => y[row * columns + column]!);
    const expected = at.map(([row, column]) => reference(row, column));
    expectClose(actual, expected, 1e-5);
  }

  for (const [K, N] of [
    [D, 3 * D],
    [D, 4 * D],
    [4 * D, D],
  ] as const) {
    it(`linear [${T}, ${K}] to ${N} with bias, quickGelu and residual`, async () => {
      const [x, w, b, r] = [normal(T * K, 1), normal(N * K, 2, 1 / Math.sqrt(K)), normal(N, 3), normal(T * N, 4)];
      const weight = Weight.matrix(w, [N, K], { device: kDevice });
      const residual = Tensor.from(r, [T, N], { device: kDevice });
      const y = ops.linear(Tensor.from(x, [T, K], { device: kDevice }), weight, { bias: b, activation: 'quickGelu', residual });
      expectAt(await y.read(), T, N, (m, n) => {
        let sum = b[n]!;
        for (let k = 0; k < K; k++) sum += x[m * K + k]! * w[n * K + k]!;
        return quickGelu(sum) + r[m * N + n]!;
      });
    });
  }

  it(`attention of ${H} heads over ${T} tokens, packed`, async () => {
    const packed = normal(T * 3 * D, 5);
    const qkv = Tensor.from(packed, [T, 3 * D], { device: kDevice });
    const layout = { heads: H, headWidth: D / H, offsets: [0, D, 2 * D], maxQueries: T, maxKeys: T } as const;
    const y = await ops.attentionRows(qkv, qkv, qkv, layout).read();
    const value = (row: number, part: number, column: number) => packed[row * 3 * D + part * D + column]!;
    expectAt(y, T, D, (row, column) => {
      const first = Math.floor(column / 64) * 64;
      const exps = Array.from({ length: T }, (_, key) => {
        let score = 0;
        for (let d = first; d < first + 64; d++) score += value(row, 0, d) * value(key, 1, d);
        return Math.exp(score / 8);
      });
      const total = exps.reduce((sum, e) => sum + e, 0);
      return exps.reduce((sum, e, key) => sum + (e / total) * value(key, 2, column), 0);
    });
  });

  it(`layerNorm of [${T}, ${D}]`, async () => {
    const [x, w, b] = [normal(T * D, 6, 3), normal(D, 7), normal(D, 8)];
    const y = await ops.layerNorm(Tensor.from(x, [T, D], { device: kDevice }), w, { bias: b }).read();
    expectAt(y, T, D, (row, column) => {
      const of = [...x.subarray(row * D, (row + 1) * D)];
      const mean = of.reduce((sum, v) => sum + v, 0) / D;
      const variance = of.reduce((sum, v) => sum + (v - mean) ** 2, 0) / D;
      return ((of[column]! - mean) / Math.sqrt(variance + 1e-5)) * w[column]! + b[column]!;
    });
  });

  it('patchEmbed of a picture of 224 x 224 in patches of 32', async () => {
    const [x, w] = [normal(3 * 224 * 224, 9), normal(D * 3072, 10, 1 / 55)];
    const pixels = Tensor.from(x, [1, 3, 224, 224], { device: kDevice });
    const y = await ops.patchEmbed(pixels, Weight.matrix(w, [D, 3072], { device: kDevice }), { patch: 32 }).read();
    expectAt(y, 49, D, (patch, n) => {
      let sum = 0;
      for (let k = 0; k < 3072; k++) {
        const [c, dy, dx] = [Math.floor(k / 1024), Math.floor(k / 32) % 32, k % 32];
        sum += x[(c * 224 + Math.floor(patch / 7) * 32 + dy) * 224 + (patch % 7) * 32 + dx]! * w[n * 3072 + k]!;
      }
      return sum;
    });
  });
});

describe('ViT-B/32 on CUDA', () => {
  const image = { pixels: normal(3 * 224 * 224, 11), shape: [1, 3, 224, 224] as const };
  const texts = {
    inputIds: [
      [998, 17, 301, 999],
      [998, ...Array.from({ length: 75 }, (_, i) => (i * 37) % 990), 999],
    ],
  };
  let folder: string;
  let expected: { image: Float32Array; texts: Float32Array };

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'warpsight-vit-b32-'));
    makeCheckpoint(folder, size, { dtype: 'F16' });
    expected = await features('cpu', 'float32');
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  async function features(device: 'cpu' | 'cuda', dtype: Float): Promise<{ image: Float32Array; texts: Float32Array }> {
    using clip = await CLIP.fromPretrained(folder, { device, dtype });
    expect(clip.device).to.equal(device === 'cpu' ? 'cpu' : kDevice);
    using images = await clip.encodeImage(image);
    using rows = await clip.encodeText(texts);
    return { image: await images.read(), texts: await rows.read() };
  }

  for (const [dtype, cosine] of [
    ['float32', 0.99999],
    ['float16', 0.9999],
  ] as const) {
    describe(dtype, () => {
      provesKernels(dtype, ['patchEmbed', 'embed', 'layerNorm', 'linear', 'attention', 'gatherRows']);

      it("gives the CPU's features of a picture and of texts", async () => {
        const actual = await features('cuda', dtype);
        for (const of of ['image', 'texts'] as const) {
          expect(minCosine(actual[of], expected[of], 512), of).to.be.at.least(cosine);
          if (dtype === 'float32') expectClose(actual[of], expected[of], 1e-4, of);
        }
      });
    });
  }
});
