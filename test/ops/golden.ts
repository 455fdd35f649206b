import { expect } from 'chai';
import { type Float, ops, Tensor, type TypedArray, Weight } from '../../lib';
import type { Activation } from '../../lib/ops';
import { type Numbers, needsFixtures, readFixture, readMeta } from '../support/fixtures';
import { expectClose, maxRel, toBfloat16Bits, toFloat16Bits } from '../support/numbers';

interface Case {
  readonly inputs: Readonly<Record<string, readonly number[]>>;
  readonly outputs: Readonly<Record<string, readonly number[]>>;
  readonly tolerance?: number;
  readonly wide?: boolean;
  readonly act?: string;
  readonly weight_dtype?: 'float32' | 'float16' | 'bfloat16';
  readonly sigmoid?: boolean;
  readonly k?: number;
  readonly eps?: number;
  readonly causal?: boolean;
  readonly patch?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly repetitionPenalty?: number;
}

const kActivations: Readonly<Record<string, Activation>> = {
  none: 'none',
  gelu: 'gelu',
  gelu_tanh: 'geluTanh',
  quick_gelu: 'quickGelu',
  silu: 'silu',
  relu: 'relu',
};

/** What the fixtures' README allows in 16-bit arithmetic. */
const kTolerance16: Readonly<Record<Float, number>> = { float32: 0, float16: 2e-3, bfloat16: 2e-2 };

/** Every case of fixtures/ops through the public operations, on one device in one dtype. */
export function describeOpGoldens(device: string, dtype: Float = 'float32'): void {
  describe(`operations on ${device} in ${dtype} agree with the fixtures`, () => {
    const meta = readMetaOrNothing();
    for (const [op, { tolerance, cases }] of Object.entries(meta)) {
      let tensors: Map<string, Numbers>;
      before(function () {
        needsFixtures(this);
        tensors ??= readFixture('ops', op);
      });
      for (const [name, spec] of Object.entries(cases)) {
        if (dtype !== 'float32' && needsFloat32(op, name, spec)) continue;
        it(`${op} ${name}`, async () => {
          tensors = readFixture('ops', op);
          const one = new GoldenCase(device, dtype, name, spec, tensors);
          const outputs = await runners[op]!(one);
          for (const [output, actual] of Object.entries(outputs)) {
            const expected = tensors.get(`${name}.${output}`)!;
            if (expected.dtype === 'I32') expect(Array.from(actual), output).to.deep.equal([...expected.data]);
            else if (op === 'activation')
              expectElementwise(actual, expected.data, dtype === 'float32' ? tolerance : kTolerance16[dtype]);
            else expectClose(actual, expected.data, Math.max(spec.tolerance ?? tolerance, kTolerance16[dtype]), output);
          }
        });
      }
    }
  });
}

function readMetaOrNothing(): Record<string, { tolerance: number; cases: Record<string, Case> }> {
  try {
    return readMeta<{ ops: Record<string, { tolerance: number; cases: Record<string, Case> }> }>('ops').ops;
  } catch {
    return {}; // the test below it says that the folder is absent
  }
}

function expectElementwise(actual: ArrayLike<number>, expected: TypedArray, tolerance: number): void {
  Array.from(expected).forEach((value, i) => {
    if (Math.abs(actual[i]! - value) > tolerance * Math.max(1, Math.abs(value)))
      throw new Error(`at ${i}: ${actual[i]}, expected ${value}`);
  });
  expect(maxRel(actual, expected)).to.be.finite;
}

/** Cases whose answer depends on differences that 16 bits don't hold: ties, cuts of a distribution, an offset, values out of range. */
function needsFloat32(op: string, name: string, spec: Case): boolean {
  return ['argmax', 'topK', 'sample'].includes(op) || spec.wide === true || name.includes('offset');
}

class GoldenCase {
  constructor(
    readonly device: string,
    readonly dtype: Float,
    readonly name: string,
    readonly spec: Case,
    readonly tensors: Map<string, Numbers>,
  ) {}

  numbers(input: string): Numbers | undefined {
    return this.tensors.get(`${this.name}.${input}`);
  }

  floats(input: string): Tensor<Float> {
    return this.optional(input)!;
  }

  optional(input: string): Tensor<Float> | undefined {
    const numbers = this.numbers(input);
    if (!numbers) return undefined;
    const { device, dtype } = this;
    const data = numbers.data as Float32Array;
    if (dtype === 'float16') return Tensor.from(toFloat16Bits(data), numbers.shape, { device, dtype });
    if (dtype === 'bfloat16') return Tensor.from(toBfloat16Bits(data), numbers.shape, { device, dtype });
    return Tensor.from(data, numbers.shape, { device });
  }

  ints(input: string): Tensor<'int32'> | undefined {
    const numbers = this.numbers(input);
    return numbers && Tensor.from(numbers.data as Int32Array, numbers.shape, { device: this.device });
  }

  matrix(input: string): Weight<'matrix'> {
    const { data, shape, dtype } = this.numbers(input)!;
    const [rows = 1, ...rest] = shape;
    const columns = rest.reduce((product, size) => product * size, 1);
    const stored = dtype === 'F16' ? 'float16' : dtype === 'BF16' ? 'bfloat16' : 'float32';
    return Weight.matrix(data, [rows, columns], { device: this.device, dtype: stored, compute: this.dtype });
  }

  vector(input: string): Weight<'vector'> | undefined {
    const numbers = this.numbers(input);
    if (!numbers) return undefined;
    const dtype = numbers.dtype === 'F16' ? 'float16' : numbers.dtype === 'BF16' ? 'bfloat16' : 'float32';
    return Weight.vector(numbers.data, { device: this.device, dtype });
  }

  scalar(input: string): number | undefined {
    return this.numbers(input)?.data[0];
  }
}

type Outputs = Record<string, ArrayLike<number>>;

const runners: Readonly<Record<string, (one: GoldenCase) => Promise<Outputs>>> = {
  async linear(one) {
    const options = { bias: one.vector('bias'), residual: one.optional('residual'), activation: kActivations[one.spec.act!]! };
    return { out: await ops.linear(one.floats('x'), one.matrix('weight'), options).read() };
  },
  async activation(one) {
    if (one.name === 'silu_gate') return { out: await ops.siluGate(one.floats('gate'), one.floats('up')).read() };
    return { out: await ops.activate(one.floats('x'), kActivations[one.name]!).read() };
  },
  async l2norm(one) {
    return { out: await ops.l2Normalize(one.floats('x')).read() };
  },
  async scaledLogits(one) {
    const bias = one.scalar('bias') ?? 0;
    const { sigmoid = false } = one.spec;
    const logits = ops.scaledLogits(one.floats('x'), one.floats('y'), one.scalar('scale')!, { bias });
    const m = logits.shape[1]!;
    const head = ops.zeroShotHead(one.floats('x'), one.floats('y'), one.scalar('scale')!, { bias, sigmoid, k: m });
    const probs = new Float32Array(logits.shape[0]! * m);
    const [scores, indices] = [await head.scores.read(), await head.indices.read()];
    scores.forEach((score, i) => {
      probs[Math.floor(i / m) * m + indices[i]!] = score;
    });
    return { out: await logits.read(), probs, best: await ops.argmax(logits).read() };
  },
  async softmax(one) {
    return { out: await ops.softmax(one.floats('x')).read() };
  },
  async argmax(one) {
    return { out: await ops.argmax(one.floats('x')).read() };
  },
  async topK(one) {
    const { values, indices } = ops.topK(one.floats('x'), one.spec.k!);
    return { values: await values.read(), indices: await indices.read() };
  },
  async layerNorm(one) {
    const options = { bias: one.vector('bias'), eps: one.spec.eps };
    const residual = one.optional('residual');
    if (!residual) return { out: await ops.layerNorm(one.floats('x'), one.vector('weight')!, options).read() };
    const { y, sum } = ops.addLayerNorm(one.floats('x'), residual, one.vector('weight')!, options);
    return { out: await y.read(), sum: await sum.read() };
  },
  async rmsNorm(one) {
    const { eps } = one.spec;
    const residual = one.optional('residual');
    if (!residual) return { out: await ops.rmsNorm(one.floats('x'), one.vector('weight')!, { eps }).read() };
    const { y, sum } = ops.addRmsNorm(one.floats('x'), residual, one.vector('weight')!, { eps });
    return { out: await y.read(), sum: await sum.read() };
  },
  async rope(one) {
    const frequencies = one.tensors.get(`${one.name}.frequencies`)!.data as Float32Array;
    return { out: await ops.rope(one.floats('x'), one.ints('positions')!, frequencies).read() };
  },
  async attention(one) {
    const mask = one.ints('mask');
    const options = { causal: one.spec.causal ?? false, ...(mask && { mask }) };
    return { out: await ops.attention(one.floats('q'), one.floats('k'), one.floats('v'), options).read() };
  },
  async patchEmbed(one) {
    const { data, shape } = one.numbers('pixels')!;
    const pixels = Tensor.from(data as Float32Array, shape, { device: one.device });
    const options = { patch: one.spec.patch!, bias: one.vector('bias'), dtype: one.dtype };
    return { out: await ops.patchEmbed(pixels, one.matrix('weight'), options).read() };
  },
  async sample(one) {
    const { temperature = 1, topK = 0, topP = 1, repetitionPenalty = 1 } = one.spec;
    const options = { temperature, topK, topP, repetitionPenalty, seen: one.ints('seen')! };
    return { out: await ops.sampleDistribution(one.floats('logits'), options).read() };
  },
};
