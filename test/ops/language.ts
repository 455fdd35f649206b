import { expect } from 'chai';
import { type Float, ops, Tensor, Weight } from '../../lib';
import { expectClose, normal, seeded, toBfloat16Bits, toFloat16Bits } from '../support/numbers';

/** What 16-bit storage of inputs and outputs allows. */
const kTolerance: Readonly<Record<Float, number>> = { float32: 2e-6, float16: 2e-3, bfloat16: 2e-2 };

/** Operations of language models against their plain definitions in float64, on one device in one dtype. */
export function describeLanguageOps(device: string, dtype: Float): void {
  const tolerance = kTolerance[dtype];
  const bits = { float16: toFloat16Bits, bfloat16: toBfloat16Bits };
  const tensor = (values: Float32Array, shape: readonly number[]): Tensor<Float> =>
    dtype === 'float32' ? Tensor.from(values, shape, { device }) : Tensor.from(bits[dtype](values), shape, { device, dtype });
  const ints = (values: readonly number[], shape: readonly number[]) => Tensor.from(Int32Array.from(values), shape, { device });
  const numbersOf = async (t: Tensor): Promise<number[]> => [...(await t.read())];

  describe(`operations of language models on ${device} in ${dtype}`, () => {
    it('siluGate takes gate and up in one row', async () => {
      const [R, D] = [5, 7];
      const x = normal(R * 2 * D, 1);
      const expected = Array.from({ length: R * D }, (_, i) => {
        const row = Math.floor(i / D) * 2 * D;
        const gate = x[row + (i % D)]!;
        return (gate / (1 + Math.exp(-gate))) * x[row + D + (i % D)]!;
      });
      expectClose(await numbersOf(ops.siluGate(tensor(x, [R, 2 * D]))), expected, tolerance);
    });

    it('rope turns the first heads and copies the others', async () => {
      const [T, H, d, heads] = [3, 5, 6, 2];
      const x = normal(T * H * d, 2);
      const positions = [0, 7, 1000];
      const frequencies = [1, 0.1, 0.01];
      const expected = Array.from({ length: T * H * d }, (_, i) => {
        const t = Math.floor(i / (H * d));
        const h = Math.floor(i / d) % H;
        const c = i % d;
        if (h >= heads) return x[i]!;
        const angle = positions[t]! * Math.fround(frequencies[c % 3]!);
        const other = c < 3 ? -x[i + 3]! : x[i - 3]!;
        return x[i]! * Math.cos(angle) + other * Math.sin(angle);
      });
      const y = ops.rope(tensor(x, [T, H, d]), ints(positions, [T]), frequencies, { heads });
      expectClose(await numbersOf(y), expected, tolerance);
    });

    it('appendRows writes rows in place and drops those that lie outside', async () => {
      const cache = tensor(new Float32Array(4 * 3), [4, 3]);
      const x = Float32Array.from({ length: 5 * 8 }, (_, i) => i);
      ops.appendRows(tensor(x, [5, 8]), ints([2, 0, -1, 4, 1 << 30], [5]), cache, 4);
      expect(await numbersOf(cache)).to.deep.equal([12, 13, 14, 0, 0, 0, 4, 5, 6, 0, 0, 0]);
    });

    it('linear of one row and of few, as in decoding, is x·Wᵀ + b + r', async () => {
      for (const [M, N, K] of [
        [1, 1, 1],
        [1, 37, 5],
        [1, 16, 256],
        [1, 130, 1031],
        [3, 37, 264],
      ] as const) {
        const [x, w, b, r] = [normal(M * K, 4), normal(N * K, 5, K ** -0.5), normal(N, 6), normal(M * N, 7)];
        const weight = Weight.matrix(dtype === 'float32' ? w : bits[dtype](w), [N, K], { device, dtype, compute: dtype });
        const bias = Weight.vector(b, { device });
        const expected = Array.from({ length: M * N }, (_, i) => {
          const n = i % N;
          let sum = b[n]!;
          for (let k = 0; k < K; k++) sum += x[Math.floor(i / N) * K + k]! * w[n * K + k]!;
          return 1 / (1 + Math.exp(-sum)) + r[i]!;
        });
        const y = ops.linear(tensor(x, [M, K]), weight, { bias, activation: 'sigmoid', residual: tensor(r, [M, N]) });
        expectClose(await numbersOf(y), expected, tolerance, `[${M}, ${N}, ${K}]`);
      }
    });

    it('linear with siluGate is silu(g)·u of a weight of both', async () => {
      for (const [M, N, K] of [
        [1, 1, 1],
        [1, 21, 40],
        [5, 21, 40],
        [30, 7, 33],
      ] as const) {
        const [x, w, b] = [normal(M * K, 8), normal(2 * N * K, 9, K ** -0.5), normal(2 * N, 10)];
        const weight = Weight.matrix(dtype === 'float32' ? w : bits[dtype](w), [2 * N, K], { device, dtype, compute: dtype });
        const column = (m: number, n: number) => {
          let sum = b[n]!;
          for (let k = 0; k < K; k++) sum += x[m * K + k]! * w[n * K + k]!;
          return sum;
        };
        const expected = Array.from({ length: M * N }, (_, i) => {
          const [gate, up] = [column(Math.floor(i / N), i % N), column(Math.floor(i / N), N + (i % N))];
          return (gate / (1 + Math.exp(-gate))) * up;
        });
        const y = ops.linear(tensor(x, [M, K]), weight, { bias: Weight.vector(b, { device }), activation: 'siluGate' });
        expect(y.shape).to.deep.equal([M, N]);
        expectClose(await numbersOf(y), expected, tolerance, `[${M}, ${N}, ${K}]`);
      }
    });

    it('ropeAppend is rope, then appendRows, bit for bit', async () => {
      const [T, heads, kvHeads, d, R] = [6, 4, 2, 8, 5];
      const width = 2 * kvHeads * d;
      const x = tensor(normal(T * (heads + 2 * kvHeads) * d, 11), [T, heads + 2 * kvHeads, d]);
      const positions = ints([0, 7, 100000, 3, 12, 5], [T]);
      const rows = ints([4, -1, 0, 5, 2, 1 << 30], [T]);
      const frequencies = [1, 0.3, 0.1, 0.01];
      const before = normal(R * width, 12);
      const [one, two] = [tensor(before, [R, width]), tensor(before, [R, width])];
      const queries = ops.ropeAppend(x, positions, frequencies, rows, one, { heads, kvHeads });
      const turned = ops.rope(x, positions, frequencies, { heads: heads + kvHeads }).reshape([T, (heads + 2 * kvHeads) * d]);
      ops.appendRows(turned, rows, two, heads * d);
      expect(queries.shape).to.deep.equal([T, heads * d]);
      const packed = await numbersOf(turned);
      const expected = Array.from({ length: T }, (_, t) => packed.slice(t * (heads + 2 * kvHeads) * d).slice(0, heads * d));
      expect(await numbersOf(queries)).to.deep.equal(expected.flat());
      expect(await numbersOf(one)).to.deep.equal(await numbersOf(two));
      expect((await numbersOf(one)).slice(0, width)).not.to.deep.equal([...before.slice(0, width)]);
    });

    it('embed reads a matrix as it reads a table: where a head is its embedding', async () => {
      const [V, D] = [37, 11];
      const values = normal(V * D, 3);
      const ids = ints([36, 0, 15, 16, 17, 36, -1, 37], [8]);
      for (const stored of device === 'cpu' ? (['float32', 'float16', 'bfloat16'] as const) : [dtype]) {
        const data = stored === 'float32' ? values : bits[stored](values);
        const options = { device, dtype: stored, compute: dtype };
        const of = async (table: Weight<'table' | 'matrix'>) => numbersOf(ops.embed(ids, table, { dtype }));
        const rows = await of(Weight.table(data, [V, D], options));
        expect(await of(Weight.matrix(data, [V, D], options))).to.deep.equal(rows);
        expectClose(rows.slice(0, D), [...values.subarray(36 * D)], kTolerance[stored]);
        expect(rows.slice(6 * D)).to.deep.equal(Array(2 * D).fill(Number.NaN));
      }
    });

    it('concat puts rows side by side', async () => {
      const y = ops.concat([tensor(Float32Array.of(1, 2, 3, 4), [2, 2]), tensor(Float32Array.of(5, 6), [2, 1])]);
      expect(y.shape).to.deep.equal([2, 3]);
      expect(await numbersOf(y)).to.deep.equal([1, 2, 5, 3, 4, 6]);
    });

    it('splice puts features in the place of rows; an index too large gives NaN', async () => {
      const x = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
      const features = Float32Array.of(10, 20, 30, 40);
      const y = ops.splice(tensor(x, [4, 2]), tensor(features, [2, 2]), ints([-1, 1, 0, 2], [4]));
      expect(await numbersOf(y)).to.deep.equal([1, 2, 30, 40, 10, 20, Number.NaN, Number.NaN]);
    });

    for (const [heads, kvHeads, d, page] of [
      [4, 2, 8, 4],
      [5, 1, 6, 3],
      [2, 2, 80, 32],
    ] as const) {
      it(`pagedAttention of ${heads} heads over ${kvHeads} of ${d}, pages of ${page}, is softmax(q·kᵀ)·v over each sequence`, async () => {
        const random = seeded(heads);
        const sequences = [
          { queries: 1, keys: 2 * page + 1 },
          { queries: page + 2, keys: page + 2 },
          { queries: 3, keys: 2 * page },
        ];
        const P = 3;
        const cacheRows = 12 * page;
        const width = 2 * kvHeads * d;
        const cache = normal(cacheRows * width, 3);
        const T = sequences.reduce((sum, { queries }) => sum + queries, 0);
        const q = normal(T * heads * d, 4);
        const free = Array.from({ length: 12 }, (_, i) => i).sort(() => random() - 0.5);
        const pages = sequences.map(({ keys }) => {
          const used = Math.ceil(keys / page);
          return Array.from({ length: P }, (_, i) => (i < used ? free.pop()! : -1));
        });
        let first = 0;
        const table: number[] = [];
        const expected: number[] = [];
        sequences.forEach(({ queries, keys }, s) => {
          table.push(first, queries, keys);
          const rowOf = (j: number) => (pages[s]![Math.floor(j / page)]! * page + (j % page)) * width;
          for (let i = 0; i < queries; i++) {
            for (let h = 0; h < heads; h++) {
              const at = Math.floor(h / (heads / kvHeads)) * d;
              const visible = keys - queries + i + 1;
              const dot = (j: number) => {
                let sum = 0;
                for (let c = 0; c < d; c++) sum += q[((first + i) * heads + h) * d + c]! * cache[rowOf(j) + at + c]!;
                return sum / Math.sqrt(d);
              };
              const scores = Array.from({ length: visible }, (_, j) => dot(j));
              const top = Math.max(...scores);
              const weights = scores.map((score) => Math.exp(score - top));
              const total = weights.reduce((a, b) => a + b);
              for (let c = 0; c < d; c++) {
                expected.push(weights.reduce((sum, w, j) => sum + w * cache[rowOf(j) + kvHeads * d + at + c]!, 0) / total);
              }
            }
          }
          first += queries;
        });
        const y = ops.pagedAttention(
          tensor(q, [T, heads * d]),
          tensor(cache, [cacheRows, width]),
          ints(pages.flat(), [3, P]),
          ints(table, [3, 3]),
          { heads, kvHeads, headWidth: d, offsets: [0, 0, kvHeads * d], page, maxQueries: page + 2 },
        );
        expectClose(await numbersOf(y), expected, Math.max(tolerance, 1e-5));
      });
    }

    it('pagedAttention gives NaN where a sequence names a page that is not there', async () => {
      const layout = { heads: 1, kvHeads: 1, headWidth: 2, offsets: [0, 0, 2], page: 2, maxQueries: 1 } as const;
      const q = tensor(normal(4, 1), [2, 2]);
      const cache = tensor(normal(16, 2), [4, 4]);
      const y = ops.pagedAttention(q, cache, ints([0, 1, 0, 2], [2, 2]), ints([0, 1, 4, 1, 1, 3], [2, 3]), layout);
      const [a, b, c, e] = await numbersOf(y);
      expect([a, b].some(Number.isNaN)).to.equal(false);
      expect([c, e]).to.deep.equal([Number.NaN, Number.NaN]);
    });

    it('sample takes the first of the largest at temperature 0, after the penalty', async () => {
      const logits = tensor(Float32Array.of(1, 4, 4, 2, -1, -1.25, -8, -2), [2, 4]);
      const numbers = Tensor.from(Float32Array.of(0, 1, 4, 0, 1, 4), [2, 3], { device });
      const integers = ints([0, 0, 0, 0, 0, 0, 0, 0], [2, 4]);
      expect(await numbersOf(ops.sample(logits, numbers, integers))).to.deep.equal([1, 0]);
      const seen = ints([0, 1, 0, 1, 1, 0, 0, 99, 0, -1], [5, 2]); // 4 / 4 = 1 once; −1 · 4 = −4
      expect(await numbersOf(ops.sample(logits, numbers, integers, { seen }))).to.deep.equal([2, 1]);
    });

    it('sample draws with Philox4x32-10: the same seed and draw give the same id', async () => {
      const V = 1000;
      const logits = tensor(new Float32Array(4 * V), [4, V]); // all alike: the id is ⌊u·V⌋
      const numbers = Tensor.from(Float32Array.of(1, 1, 1, 0.5, 1, 1, 1, 1, 1, 1, 1, 1), [4, 3], { device });
      const seeds = [0, 0, 0, -1, -1, -1, 1234567, 89, 3, -7, 5, 11].flatMap((word, i) => (i % 3 === 0 ? [0, word] : [word]));
      const ids = await numbersOf(ops.sample(logits, numbers, ints(seeds, [4, 4])));
      expect(ids).to.deep.equal([
        philoxId(0, 0, 0, V),
        philoxId(-1, -1, -1, V),
        philoxId(1234567, 89, 3, V),
        philoxId(-7, 5, 11, V),
      ]);
    });

    it('sample draws each id as often as its probability says, within topK and topP', async () => {
      const n = device === 'cpu' ? 4000 : 400; // a simulated device is slow
      const weights = [0.4, 0.3, 0.2, 0.06, 0.04];
      const row = weights.map(Math.log);
      const logits = tensor(
        Float32Array.from({ length: n * 5 }, (_, i) => row[i % 5]!),
        [n, 5],
      );
      const integers = (topK: number) => ints(Array.from({ length: n }, (_, i) => [topK, 42, 7, i]).flat(), [n, 4]);
      const numbers = (topP: number) =>
        Tensor.from(
          Float32Array.from({ length: 3 * n }, (_, i) => (i % 3 === 1 ? topP : 1)),
          [n, 3],
          { device },
        );
      const share = async (topP: number, topK: number): Promise<number[]> => {
        const ids = await numbersOf(ops.sample(logits, numbers(topP), integers(topK)));
        return weights.map((_, id) => ids.filter((drawn) => drawn === id).length / n);
      };
      const bound = 4.5 * Math.sqrt(0.25 / n); // standard deviations of a share
      const near = (actual: number[], expected: number[]) => {
        actual.forEach((value, i) => {
          expect(value, `id ${i}`).to.be.closeTo(expected[i]!, expected[i] === 0 ? 0 : bound);
        });
      };
      near(await share(1, 0), weights);
      near(await share(1, 2), [4 / 7, 3 / 7, 0, 0, 0]);
      near(await share(0.65, 0), [4 / 7, 3 / 7, 0, 0, 0]);
    });
  });
}

/** ⌊u·V⌋ for the first word of Philox4x32-10. @see Salmon et al. 2011; for key and counter 0 it is 0x6627e8d5 */
function philoxId(low: number, high: number, draw: number, V: number): number {
  const mask = 0xffffffffn;
  let [c0, c1, c2, c3] = [BigInt.asUintN(32, BigInt(draw)), 0n, 0n, 0n];
  let [k0, k1] = [BigInt.asUintN(32, BigInt(low)), BigInt.asUintN(32, BigInt(high))];
  for (let round = 0; round < 10; round++) {
    const a = 0xd2511f53n * c0;
    const b = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & mask, (a >> 32n) ^ c3 ^ k1, a & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  if (low === 0 && high === 0 && draw === 0) expect(c0).to.equal(0x6627e8d5n);
  return Math.floor((Number(c0) / 2 ** 32) * V);
}
