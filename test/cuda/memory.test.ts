// Memory that runs out or has a limit, and handles that are let go while the device works.
import { expect } from 'chai';
import { device, ops, Tensor, Weight } from '../../lib';
import { expectError } from '../support/errors';
import { executedWarm } from '../support/executed';
import { expectClose, normal } from '../support/numbers';
import { kDevice, kernelOf, provesKernels } from './evidence';

const K = 96;

/** x·xᵀ in float64 */
function products(x: Float32Array): Float64Array {
  const n = x.length / K;
  return Float64Array.from({ length: n * n }, (_, at) => {
    let sum = 0;
    for (let k = 0; k < K; k++) sum += x[Math.floor(at / n) * K + k]! * x[(at % n) * K + k]!;
    return sum;
  });
}

async function expectUsable(): Promise<void> {
  const x = normal(5 * K, 3);
  using a = Tensor.from(x, [5, K], { device: kDevice });
  using y = ops.linear(a, a);
  expectClose(await y.read(), products(x), 1e-5);
}

describe('memory on CUDA', () => {
  provesKernels('float32', ['linear', 'softmax']);

  it('that runs out is an error of what needed it, and the device stays usable', async () => {
    using wide = Tensor.from(new Float32Array(1 << 20), [1 << 20, 1], { device: kDevice });
    using square = ops.scaledLogits(wide, wide, 0); // 4 TiB
    const rule =
      /^scaledLogits\(\[1048576, 1\], \[1048576, 1\]\): cuda:0 has .* free \(\d+ bytes\): memory for a tensor or an arena needs 4\.0 TiB/;
    await expectError(() => square.read(), 'ERR_OUT_OF_MEMORY', rule);
    using after = ops.softmax(square);
    await expectError(() => after.read(), 'ERR_OUT_OF_MEMORY', rule);
    await expectUsable();
  });

  it('of a program that is too large for the device is an error of its outputs', async () => {
    const side = 1 << 20;
    const program = device(kDevice).compile(
      (x) => ops.argmax(ops.softmax(ops.linear(x as Tensor<'float32'>, x as Tensor<'float32'>))),
      [{ shape: [side, 1] }],
    );
    expect(program.steps.map(({ kernel }) => kernel)).to.deep.equal(
      ['linear', 'softmax', 'argmax'].map((op) => kernelOf(op, 'float32')),
    );
    using y = await program.run([new Float32Array(side)]);
    await expectError(() => y.read(), 'ERR_OUT_OF_MEMORY', /cuda:0 has .* free/);
    program.dispose();
    await expectUsable();
  });

  it('is used again in the order of the stream: no allocation when warm', async () => {
    const x = normal(64 * K, 5);
    const expected = products(x);
    const round = async () => {
      using a = Tensor.from(x, [64, K], { device: kDevice });
      const y = ops.linear(a, a);
      const numbers = y.read();
      y.dispose(); // before it was read: the memory lives until the queue has passed
      expectClose(await numbers, expected, 1e-5);
    };
    const counts = await executedWarm(async () => {
      for (let i = 0; i < 20; i++) await round();
    });
    expect(counts.deviceAllocations).to.equal(0);
    expect(counts.steps).to.equal(20);
  });

  it('has a limit: what goes beyond it is an error, and what is free again counts', async () => {
    const cuda = device(kDevice);
    const mebi = (count: number) => Tensor.from(new Float32Array(count << 18), [1, count << 18], { device: kDevice });
    cuda.limitMemory(16 << 20);
    try {
      expect(cuda.memory().free).to.be.at.most(16 << 20);
      const rule = (what: string) =>
        new RegExp(`cuda:0 has .* free within its limit of 16\\.0 MiB \\(\\d+ bytes\\): ${what} needs 32\\.0 MiB`);
      using large = mebi(32);
      await expectError(() => large.read(), 'ERR_OUT_OF_MEMORY', rule('memory for a tensor or an arena'));
      const data = new Float32Array(32 << 18);
      const weight = () => Weight.matrix(data, [1, data.length], { device: kDevice });
      await expectError(weight, 'ERR_OUT_OF_MEMORY', rule('a weight'));
      for (const size of [3, 7, 2, 6]) {
        using x = mebi(size); // and as much of the arena; no block of the one before serves it
        using y = ops.argmax(x);
        expect([...(await y.read())]).to.deep.equal([0]);
      }
      await expectUsable();
      cuda.limitMemory(null);
      using y = ops.argmax(large);
      await expectError(() => y.read(), 'ERR_OUT_OF_MEMORY'); // what failed stays so
      using again = mebi(32);
      using z = ops.argmax(again);
      expect([...(await z.read())]).to.deep.equal([0]);
      expect(weight().info.bytes).to.equal(32 << 20);
    } finally {
      cuda.limitMemory(null);
    }
    for (const bytes of [-1, 0.5, Number.NaN])
      await expectError(() => cuda.limitMemory(bytes), 'ERR_ARGUMENT', /^bytes must be an integer/);
    await expectError(() => device('cpu').limitMemory(1), 'ERR_DEVICE', /^cpu: its memory is that of the process/);
  });

  it('of inputs and intermediates may be let go before any of it has run', async () => {
    const x = normal(32 * K, 7);
    const a = Tensor.from(x, [32, K], { device: kDevice });
    let y: Tensor<'float32'> = ops.linear(a, a);
    a.dispose();
    for (let i = 0; i < 10; i++) {
      const next = ops.softmax(y);
      y.dispose();
      y = next;
    }
    const numbers = await y.read();
    y.dispose();
    const rows = Array.from({ length: 32 }, (_, r) => numbers.subarray(32 * r, 32 * (r + 1)).reduce((sum, v) => sum + v, 0));
    for (const sum of rows) expect(sum).to.be.closeTo(1, 1e-5);
  });

  it('of a program may be let go while it runs', async () => {
    const x = normal(48 * K, 9);
    const program = device(kDevice).compile(
      (a) => ops.linear(a as Tensor<'float32'>, a as Tensor<'float32'>),
      [{ shape: [48, K] }],
    );
    const y = await program.run([x]);
    program.dispose();
    expectClose(await y.read(), products(x), 1e-5);
    y.dispose();
  });
});
