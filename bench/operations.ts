// npm run bench:operations -- [REPEATS]: what an encode computes beside its products (bench:gemm), on cuda:0 in the shapes of CLIP and in each
// dtype: µs, and GB/s beside those of a copy. An operation stands REPEATS times (32) in one recorded program and once in another; the
// difference is its time, without launch and copies, with what it reads in the L2 cache where that fits.
import { cpus } from 'node:os';
import { type DType, device, type Float, ops, type Program, Tensor, Weight } from '../lib';
import { copyBandwidth } from './gemm-program';
import { conditions, markdown, report } from './report';

const kDevice = 'cuda:0';
const kLaunches = 20;
const kRounds = 5;

interface Case {
  readonly name: string;
  readonly inputs: readonly { readonly shape: readonly number[]; readonly dtype: DType }[];
  readonly build: (inputs: Tensor<Float>[]) => Tensor;
}

function* cases(dtype: Float): Generator<Case> {
  const of = (...shape: number[]) => ({ shape, dtype });
  for (const [model, T, D] of [
    ['ViT-B/32', 50, 768],
    ['ViT-L/14', 257, 1024],
    ['ViT-L/14@336', 577, 1024],
  ] as const) {
    for (const batch of [1, 32]) {
      const M = batch * T;
      const label = (op: string) => `${op} of ${model}, batch ${batch}`;
      const layout = { heads: D / 64, headWidth: 64, offsets: [0, D, 2 * D], maxQueries: T, maxKeys: T } as const;
      yield {
        name: label(`attention ${batch} x ${T} x ${D}`),
        inputs: [of(M, 3 * D)],
        build: ([qkv]) => ops.attentionRows(qkv!, qkv!, qkv!, layout),
      };
      const [scale, shift] = [new Float32Array(D).fill(1), new Float32Array(D)].map((row) =>
        Weight.vector(row, { device: kDevice }),
      );
      yield {
        name: label(`layerNorm ${M} x ${D}`),
        inputs: [of(M, D)],
        build: ([x]) => ops.layerNorm(x!, scale!, { bias: shift! }),
      };
    }
  }
  for (const [images, D, classes] of [
    [1, 512, 1000],
    [64, 768, 1000],
    [64, 768, 100_000],
  ] as const) {
    yield {
      name: `zeroShotHead ${images} x ${D} with ${classes} classes, top 5`,
      inputs: [of(images, D), of(classes, D)],
      build: ([x, y]) => ops.zeroShotHead(x!, y!, 4.6, { k: 5 }).scores,
    };
  }
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
    let y = build(given as Tensor<Float>[]);
    for (let i = 1; i < copies; i++) y = build(given as Tensor<Float>[]);
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
  const here = conditions(['npm run bench:operations --', ...process.argv.slice(2)].join(' '), `${cpus().length} cores`);
  const bandwidth = copyBandwidth();
  const measured: { name: string; dtype: Float; kernel: string; us: number; flops: number; bytes: number }[] = [];
  for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
    for (const one of cases(dtype)) {
      const inputs = one.inputs.map(({ shape }) => {
        const count = shape.reduce((product, n) => product * n, 1);
        return Tensor.from(numbers(dtype, count), shape, { device: kDevice, dtype });
      });
      const [single, many] = [program(one, 1), program(one, 1 + repeats)];
      const us = (1000 * ((await time(many, inputs)) - (await time(single, inputs)))) / repeats;
      const { kernel, flops, bytes } = single.steps[0]!;
      measured.push({ name: one.name, dtype, kernel, us, flops, bytes });
      for (const disposable of [single, many, ...inputs]) disposable.dispose();
    }
  }
  const cells = measured.map(({ name, dtype, kernel, us, flops, bytes }) => [
    name,
    dtype,
    kernel,
    us.toFixed(1),
    (flops / us / 1e6).toFixed(2),
    (bytes / us / 1e3).toFixed(0),
    `${((100 * bytes) / us / 1e3 / bandwidth).toFixed(0)} %`,
  ]);
  const about = {
    device: device(kDevice).description,
    ...here,
    bandwidth: `a copy, read and written bytes: ${bandwidth.toFixed(0)} GB/s`,
  };
  const table = markdown(['operation', 'dtype', 'kernel', 'µs', 'TFLOP/s', 'GB/s', 'of a copy'], cells);
  report('operations-cuda', 'Operations on CUDA', about, table, { measured });
}

main(Number(process.argv[2] ?? 32));
