// node dist/bench/cuda-operations.js [REPEATS]: each operation on cuda:0 in the shapes of CLIP, in each dtype: µs, and its share of the roofline.
// An operation stands REPEATS times (32) in one recorded program and once in another; the difference is its time, without launch and copies,
// with what it reads in the L2 cache where that fits. Prints the table and writes cuda-operations.md to $OUT or bench/results.
import { type DType, device, type Float, ops, type Program, Tensor, Weight } from '../lib';
import { kDevice, writeTable } from './cuda-table';

const kLaunches = 20;
const kRounds = 5;

/** Bytes per second and float32 operations per second, from the data sheets; every kernel here computes on the plain units. */
const kPeaks: readonly { name: RegExp; bandwidth: number; float32: number }[] = [
  { name: /H200/, bandwidth: 4.8e12, float32: 67e12 },
  { name: /H100.*PCIe/, bandwidth: 2.0e12, float32: 51e12 },
  { name: /H100/, bandwidth: 3.35e12, float32: 67e12 },
  { name: /A100/, bandwidth: 2.0e12, float32: 19.5e12 },
];

interface Case {
  readonly name: string;
  readonly inputs: readonly { readonly shape: readonly number[]; readonly dtype: DType }[];
  readonly build: (inputs: Tensor[]) => Tensor;
}

function* cases(dtype: Float): Generator<Case> {
  const weight = (N: number, K: number) =>
    Weight.matrix(new Float32Array(N * K).fill(0.01), [N, K], { device: kDevice, compute: dtype });
  const of = (...shape: number[]) => ({ shape, dtype });
  const floats = (tensors: Tensor[]) => tensors as Tensor<Float>[];
  for (const [model, T, D] of [
    ['ViT-B/32', 50, 768],
    ['ViT-L/14', 257, 1024],
  ] as const) {
    for (const batch of [1, 32]) {
      const M = batch * T;
      const label = (op: string) => `${op} of ${model}, batch ${batch}`;
      for (const [part, N, K] of [
        ['qkv', 3 * D, D],
        ['fc1', 4 * D, D],
        ['fc2', D, 4 * D],
      ] as const) {
        const w = weight(N, K);
        yield {
          name: label(`linear ${part} ${M}x${K}x${N}`),
          inputs: [of(M, K)],
          build: (given) => ops.linear(floats(given)[0]!, w),
        };
      }
      const layout = { heads: D / 64, headWidth: 64, offsets: [0, D, 2 * D], maxQueries: T, maxKeys: T } as const;
      yield {
        name: label(`attention ${batch}x${T}x${D}`),
        inputs: [of(M, 3 * D)],
        build: (given) => {
          const [qkv] = floats(given);
          return ops.attentionRows(qkv!, qkv!, qkv!, layout);
        },
      };
      const [scale, shift] = [new Float32Array(D).fill(1), new Float32Array(D)].map((row) =>
        Weight.vector(row, { device: kDevice }),
      );
      yield {
        name: label(`layerNorm ${M}x${D}`),
        inputs: [of(M, D)],
        build: (given) => ops.layerNorm(floats(given)[0]!, scale!, { bias: shift! }),
      };
    }
  }
  yield {
    name: 'zeroShotHead 32x512 with 1000 classes',
    inputs: [of(32, 512), of(1000, 512)],
    build: (given) => ops.zeroShotHead(floats(given)[0]!, floats(given)[1]!, 4.6, { k: 5 }).scores,
  };
}

/** From 0.5 to 1, with all bits of the mantissa in use: zeros would let the GPU run cooler than work does. */
function numbers(dtype: Float, count: number): Float32Array | Uint16Array {
  const mantissa = (i: number, bits: number) => Math.imul(i, 0x9e3779b1) >>> (32 - bits);
  if (dtype === 'float32') return Float32Array.from({ length: count }, (_, i) => 0.5 + mantissa(i, 23) * 2 ** -24);
  const [half, bits] = dtype === 'float16' ? [0x3800, 10] : [0x3f00, 7];
  return Uint16Array.from({ length: count }, (_, i) => half | mantissa(i, bits));
}

function program({ inputs, build }: Case, copies: number): Program<Tensor> {
  return device(kDevice).compile((...given) => {
    let y = build(given);
    for (let i = 1; i < copies; i++) y = build(given);
    return y;
  }, inputs);
}

/** Milliseconds of one launch, the best of some rounds. */
async function time(planned: Program<Tensor>, inputs: readonly Tensor[]): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round <= kRounds; round++) {
    const begun = performance.now();
    let last: Tensor | undefined;
    for (let i = 0; i < kLaunches; i++) {
      last?.dispose();
      last = await planned.run(inputs);
    }
    await last?.read();
    last?.dispose();
    if (round > 0) best = Math.min(best, (performance.now() - begun) / kLaunches);
  }
  return best;
}

async function main(repeats: number): Promise<void> {
  const peaks = kPeaks.find(({ name }) => name.test(device(kDevice).description));
  const rows: string[][] = [];
  for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
    for (const one of cases(dtype)) {
      const inputs = one.inputs.map(({ shape }) => {
        return Tensor.from(
          numbers(
            dtype,
            shape.reduce((product, n) => product * n, 1),
          ),
          shape,
          { device: kDevice, dtype },
        );
      });
      const [single, many] = [program(one, 1), program(one, 1 + repeats)];
      const us = (1000 * ((await time(many, inputs)) - (await time(single, inputs)))) / repeats;
      const { kernel, flops, bytes } = single.steps[0]!;
      const bound = peaks && Math.max(flops / peaks.float32, bytes / peaks.bandwidth) * 1e6;
      const share = bound === undefined ? 'unknown GPU' : `${((100 * bound) / us).toFixed(0)} %`;
      rows.push([one.name, dtype, kernel, us.toFixed(1), (flops / us / 1e6).toFixed(2), (bytes / us / 1e3).toFixed(0), share]);
      for (const disposable of [single, many, ...inputs]) disposable.dispose();
    }
  }
  writeTable('cuda-operations', ['operation', 'dtype', 'kernel', 'µs', 'TFLOP/s', 'GB/s', 'of the roofline'], rows);
}

void main(Number(process.argv[2] ?? 32));
