// The times of a program's steps, between events on the stream.
import { expect } from 'chai';
import { device, dim, ops, Tensor, Weight } from '../../lib';
import { profileRuns } from '../../lib/profile';
import { expectError } from '../support/errors';
import { executed } from '../support/executed';
import { normal } from '../support/numbers';
import { kDevice, kernelOf, provesKernels } from './evidence';

const [M, K] = [16, 64];

describe('a profile on CUDA', () => {
  provesKernels('float32', ['linear', 'softmax']);

  const weight = () => Weight.matrix(normal(K * K, 1), [K, K], { device: kDevice });
  const program = (w = weight()) =>
    device(kDevice).compile((x) => ops.softmax(ops.linear(x as Tensor<'float32'>, w)), [{ shape: [dim('n', M), K] }]);

  it('runs each step once and names its kernel', async () => {
    const planned = program();
    const x = normal(M * K, 2);
    using before = await planned.run([x]);
    const numbers = await before.read();
    let steps: Awaited<ReturnType<typeof planned.profile>> = [];
    const counts = await executed(async () => {
      steps = await planned.profile([x]);
    });
    expect(counts).to.include({ calls: 0, graphLaunches: 0, steps: 2, kernels: 2 });
    expect(steps.map(({ op, kernel, shapes }) => ({ op, kernel, shapes }))).to.deep.equal([
      { op: 'linear', kernel: kernelOf('linear', 'float32'), shapes: `([${M}, ${K}], [${K}, ${K}], -, -)` },
      { op: 'softmax', kernel: kernelOf('softmax', 'float32'), shapes: `([${M}, ${K}])` },
    ]);
    for (const { ms } of steps) expect(ms).to.be.above(0);

    expect(await planned.profile([x.subarray(0, 3 * K)]), 'fewer rows').to.have.length(2);
    using after = await planned.run([x]);
    expect(await after.read()).to.deep.equal(numbers);
    planned.dispose();
  });

  it('of everything that some work runs: programs, and operations by themselves', async () => {
    const planned = program();
    using x = Tensor.from(normal(M * K, 3), [M, K], { device: kDevice });
    let numbers: readonly Float32Array[] = [];
    const runs = await profileRuns('both', async () => {
      using y = await planned.run([x]);
      using z = ops.softmax(x);
      numbers = [await y.read(), await z.read()];
    });
    expect(runs.map(({ name, steps }) => [name, ...steps.map(({ op }) => op)])).to.deep.equal([
      ['both', 'linear', 'softmax'],
      ['both', 'softmax'],
    ]);
    using y = await planned.run([x]);
    using z = ops.softmax(x);
    expect(numbers).to.deep.equal([await y.read(), await z.read()]);
    planned.dispose();
  });

  it('rejects with what went wrong', async () => {
    const side = 1 << 20;
    const large = device(kDevice).compile(
      (x) => ops.softmax(ops.linear(x as Tensor<'float32'>, x as Tensor<'float32'>)),
      [{ shape: [side, 1] }],
    );
    await expectError(() => large.profile([new Float32Array(side)]), 'ERR_OUT_OF_MEMORY', /cuda:0 has .* free/);
    large.dispose();
    using y = ops.softmax(Tensor.from(normal(4, 1), [1, 4], { device: kDevice }));
    expect(await y.read()).to.have.length(4);
  });
});
