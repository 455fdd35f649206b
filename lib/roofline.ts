import { WarpsightError } from './errors';
import { type NativeProgram, native, type StepInfo, type TypedArray } from './native';
import { linear } from './ops/linear';
import { kFixed } from './tensor';
import { Trace } from './trace';
import { type MatrixOptions, Weight } from './weight';

/** The most that a device can do; a step is held against it. */
export interface Peaks {
  /** bytes per second, from or to memory */
  readonly bandwidth: number;
  /** floating-point operations per second on float32 */
  readonly float32: number;
  /** the same on float16 and bfloat16: on tensor cores, or a processor's instructions for bfloat16, where there are any */
  readonly float16: number;
  /** the same in products with int8 weights, on the CPU */
  readonly int8?: number;
  /** where the three figures come from */
  readonly source: string;
}

/** In units of 1e12. NVIDIA's data sheets, without sparsity, sums in float32. The first name that fits is taken. */
const kDataSheets: readonly {
  readonly name: RegExp;
  readonly bandwidth: number;
  readonly float32: number;
  readonly float16: number;
}[] = [
  { name: /H200/, bandwidth: 4.8, float32: 67, float16: 989 },
  { name: /H100 NVL/, bandwidth: 3.9, float32: 60, float16: 835 },
  { name: /H100 PCIe/, bandwidth: 2.0, float32: 51, float16: 756 },
  { name: /H100/, bandwidth: 3.35, float32: 67, float16: 989 },
  { name: /A100.*80GB/, bandwidth: 2.0, float32: 19.5, float16: 312 },
  { name: /A100/, bandwidth: 1.555, float32: 19.5, float16: 312 },
  { name: /L40S/, bandwidth: 0.864, float32: 91.6, float16: 362 },
  { name: /L4\b/, bandwidth: 0.3, float32: 30.3, float16: 121 },
  { name: /A10\b/, bandwidth: 0.6, float32: 31.2, float16: 125 },
  { name: /RTX 4090/, bandwidth: 1.008, float32: 82.6, float16: 165 },
  { name: /RTX 3090/, bandwidth: 0.936, float32: 35.6, float16: 71 },
];

const measured = new Map<number, Promise<Peaks>>();

/** Undefined for a GPU whose data sheet is not listed. The CPU is measured once for each number of threads, in half a second. */
export async function peaksOf(device: string): Promise<Peaks | undefined> {
  if (device === 'cpu') {
    const threads = native.threads();
    const known = measured.get(threads);
    if (known) return known;
    const measuring = measureCpu(threads);
    measured.set(threads, measuring);
    return measuring;
  }
  const description = native.devices().find(({ name }) => name === device)?.description ?? '';
  const sheet = kDataSheets.find(({ name }) => name.test(description));
  if (!sheet) return undefined;
  const { bandwidth, float32, float16 } = sheet;
  return {
    bandwidth: bandwidth * 1e12,
    float32: float32 * 1e12,
    float16: float16 * 1e12,
    source: `the data sheet of ${description}`,
  };
}

/** The best of some runs: 64 MiB of weights read by one row, and products whose operands lie in the cache. */
async function measureCpu(threads: number): Promise<Peaks> {
  const read = await measureLinear(1, 4096, 4096);
  const product = async (options?: MatrixOptions) => {
    const { flops, seconds } = await measureLinear(512, 1024, 1024, options);
    return flops / seconds;
  };
  const float32 = await product();
  return {
    bandwidth: read.bytes / read.seconds,
    float32,
    float16: await product({ compute: 'bfloat16' }).catch((error) => {
      if (error instanceof WarpsightError && error.code === 'ERR_DTYPE') return float32; // 16-bit weights are widened
      throw error;
    }),
    int8: await product({ quantization: 'int8' }),
    source: `measured with ${threads} threads: 64 MiB of weights for one row, and products of 512 x 1024 x 1024`,
  };
}

async function measureLinear(M: number, K: number, N: number, options?: MatrixOptions) {
  const weight = Weight.matrix(new Float32Array(N * K), [N, K], options);
  const trace = new Trace('cpu');
  const y = linear(trace.input('float32', [M, K], kFixed), weight);
  const program: NativeProgram = native.compile('cpu', trace.describe([y]));
  const input: TypedArray = new Float32Array(M * K);
  try {
    const [step] = native.programSteps(program);
    let ms = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 6; round++) ms = Math.min(ms, (await native.profile(program, false, [], [input]))[0]!);
    return { flops: step!.flops, bytes: step!.bytes, seconds: ms / 1000 };
  } finally {
    native.dispose(program);
    weight.dispose();
  }
}

/** What keeps a step from being faster than it can be, and the least seconds that it then takes. */
export function boundOf({ kernel, flops, bytes }: StepInfo, peaks: Peaks): { bound: 'memory' | 'compute'; seconds: number } {
  const moving = bytes / peaks.bandwidth;
  const computing = flops / rateOf(kernel, peaks);
  return moving >= computing ? { bound: 'memory', seconds: moving } : { bound: 'compute', seconds: computing };
}

function rateOf(kernel: string, { float32, float16, int8 = float32 }: Peaks): number {
  if (kernel.startsWith('gemm_int8_')) return int8;
  return /<(half|bf16)\b|^gemm_bfloat16_/.test(kernel) ? float16 : float32;
}
