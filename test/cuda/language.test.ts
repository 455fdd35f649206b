import { expect } from 'chai';
import type { Float } from '../../lib';
import { device, dim, ops, type Tensor, Weight } from '../../lib';
import { describeLanguageOps } from '../ops/language';
import { normal } from '../support/numbers';
import { kDevice, kernelOf, provesKernels } from './evidence';

for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
  describe(`CUDA kernels of language models in ${dtype}`, () => {
    provesKernels(dtype, ['siluGate', 'rope', 'appendRows', 'splice', 'pagedAttention', 'sample', kernelOf('gemv', dtype)]);
    describeLanguageOps(kDevice, dtype);
  });
}

describe('a batch that happens to be one on CUDA', () => {
  it('has the bits that it has in a larger one', async () => {
    const [N, K, M] = [70, 300, 8];
    const weight = Weight.matrix(normal(N * K, 1, K ** -0.5), [N, K], { device: kDevice });
    const program = device(kDevice).compile((x) => ops.linear(x as Tensor<'float32'>, weight), [{ shape: [dim('n', M), K] }]);
    expect(program.steps.map(({ kernel }) => kernel)).to.deep.equal([kernelOf('linear', 'float32')]);
    const x = normal(M * K, 2);
    const of = async (rows: Float32Array) => (await program.run([rows])).read();
    const whole = await of(x);
    for (const row of [0, 3, 7]) {
      expect(await of(x.slice(row * K, (row + 1) * K))).to.deep.equal(whole.slice(row * N, (row + 1) * N));
    }
    program.dispose();
  });
});
