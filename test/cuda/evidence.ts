// What shows that a test's work was done by our kernels on the device, and not by the CPU.
import { expect } from 'chai';
import { type Counters, counters, device, type Float } from '../../lib';
import { native } from '../../lib/native';
import { difference } from '../support/executed';

export const kDevice = 'cuda:0';

/** The kernel that each operation takes in float32, without its dtype. */
const kKernels: Readonly<Record<string, string>> = {
  linear: 'gemm_simt',
  gatedLinear: 'gemm_simt+silu_gate',
  patchEmbed: 'patch_embed_simt',
  embed: 'embed',
  layerNorm: 'layer_norm',
  rmsNorm: 'rms_norm',
  attention: 'attention_simt',
  l2Normalize: 'l2_normalize',
  scaledLogits: 'scaled_logits_simt',
  zeroShotHead: 'zero_shot_head_logits_in_memory',
  softmax: 'softmax',
  activate: 'activate',
  siluGate: 'silu_gate',
  binary: 'binary',
  argmax: 'argmax',
  topK: 'top_k',
  gatherRows: 'gather_rows',
  segmentMean: 'segment_mean',
  rope: 'rope',
  sampleDistribution: 'sample_distribution',
  sample: 'sample',
  appendRows: 'append_rows',
  ropeAppend: 'rope_append',
  pagedAttention: 'paged_attention_simt',
  splice: 'splice',
  concat: 'concat',
  cast: 'cast',
};
/** Further kernels of an operation: for few rows, for 16 bits, for a gate. */
const kOthers: Readonly<Record<string, readonly string[]>> = {
  linear: ['gemv', 'gatedLinear', 'gemv_silu_gate'],
  scaledLogits: ['scaled_logits_mma'],
  zeroShotHead: ['zero_shot_head_mma'],
};
/** Of attention in 16 bits: for several queries, and for one over many keys. */
const kAttention: Readonly<Record<string, readonly string[]>> = {
  attention: ['attention_mma', 'attention_split'],
  pagedAttention: ['paged_attention_mma', 'paged_attention_split'],
};
const kTypes: Readonly<Record<Float, string>> = { float32: 'float', float16: 'half', bfloat16: 'bf16' };

/**
 * "gemm_simt<float>"; in 16 bits products are those of the tensor cores, without their tile: "gemm_sm90<half>". Of an operation or of
 * a kernel.
 */
export function kernelOf(op: string, dtype: Float): string {
  if (op === 'resizeHorizontal') return 'resize_horizontal';
  if (op === 'resizeVertical') return 'resize_vertical';
  return `${(dtype !== 'float32' && tensorCoreKernel(op)) || (kKernels[op] ?? op)}<${kTypes[dtype]}>`;
}

function tensorCoreKernel(op: string): string | undefined {
  const tier = device(kDevice).description.includes('capability 9.0') ? 'sm90' : 'sm80';
  if (op === 'linear') return `gemm_${tier}`;
  if (op === 'gatedLinear') return `gemm_${tier}_silu_gate`;
  if (op === 'patchEmbed') return `patches+gemm_${tier}`;
  return kAttention[op]?.[0];
}

/** "gemm_sm90<half>" of "gemm_sm90_64x128_split4<half>" */
export function withoutTile(kernel: string): string {
  return kernel.replace(/_\d+x\d+(_split\d+)?(?=[<_+])/, '');
}

export interface Planned {
  readonly device: string;
  readonly op: string;
  readonly kernel: string;
  readonly shapes: string;
}

const planned: Planned[] = [];
const compile = native.compile;
native.compile = (device, description) => {
  const program = compile(device, description);
  for (const { op, kernel, shapes } of native.programSteps(program)) {
    planned.push({ device, op, kernel: withoutTile(kernel), shapes });
  }
  return program;
};

/** Everything that was planned since the last call, by single operations and by programs, on any device. */
export function takePlanned(): Planned[] {
  return planned.splice(0);
}

/**
 * Every step was planned for the device, with the kernel of its operation; 16-bit models end in float32. `general` names attention
 * operations some of whose heads do not begin on 16 bytes: those take the kernel of float32.
 */
export function expectOurKernels(steps: readonly Planned[], dtype: Float, general: readonly string[] = []): void {
  for (const { device, op, kernel, shapes } of steps) {
    expect(device, op).to.equal(kDevice);
    if (op in kAttention && !kernel.endsWith('<float>')) {
      const known = [...kAttention[op]!, ...(general.includes(op) ? [kKernels[op]!] : [])];
      expect(kernel, op).to.be.oneOf(known.map((name) => kernelOf(name, dtype)));
      continue;
    }
    if (op === 'linear' && !kernel.endsWith('<float>')) {
      // rows that are no multiple of 16 bytes take the general kernel
      const addressable = Number(/^\(\[[^\]]*?(\d+)\]/.exec(shapes)?.[1]) % 8 === 0;
      const product = addressable ? tensorCoreKernel(op)! : 'gemm_simt';
      const names = ['gemv', 'gemv_rows', product].flatMap((name) => [name, `${name}_silu_gate`, `${name}+silu_gate`]);
      expect(kernel, `${op}${shapes}`).to.be.oneOf(names.map((name) => kernelOf(name, dtype)));
      continue;
    }
    // silu_gate_packed: gate and up in one row
    const name = op === 'siluGate' ? kernel.replace('_packed<', '<') : kernel;
    const known = [op, ...(kOthers[op] ?? [])];
    expect(name, op).to.be.oneOf(known.flatMap((each) => [kernelOf(each, dtype), kernelOf(each, 'float32')]));
  }
  if (dtype !== 'float32') {
    const towers = steps.filter(({ op }) => op === 'patchEmbed' || op === 'embed' || op in kAttention);
    for (const { op, kernel } of towers) expect(kernel, op).to.match(new RegExp(`<${kTypes[dtype]}>$`));
  }
}

/**
 * In a describe block: each of its tests must have put kernels on the device, and only such as are expected; together they must have
 * planned all of `ops`, which may name kernels as well. `general` as for expectOurKernels.
 */
export function provesKernels(dtype: Float, ops: readonly string[], general: readonly string[] = []): void {
  const seen = new Set<string>();
  let earlier: Counters;
  beforeEach(() => {
    takePlanned();
    earlier = counters();
  });
  afterEach(function () {
    if (this.currentTest?.state !== 'passed') return;
    const steps = takePlanned();
    expectOurKernels(steps, dtype, general);
    for (const { op, kernel } of steps) seen.add(op).add(kernel);
    const ran = difference(counters(), earlier);
    expect(ran.steps + ran.graphLaunches, 'steps and recordings run').to.be.above(0);
    expect(ran.kernels, 'kernels launched or recorded').to.be.at.least(ran.steps);
  });
  after(() => {
    expect([...seen]).to.include.members([...ops]);
  });
}
