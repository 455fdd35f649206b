import { expect } from 'chai';
import type { Float } from '../../lib';
import { device, dim, ops, Tensor, Weight } from '../../lib';
import { describeLanguageOps } from '../ops/language';
import { normal, toFloat16Bits } from '../support/numbers';
import { kDevice, kernelOf, provesKernels } from './evidence';

for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
  describe(`CUDA kernels of language models in ${dtype}`, () => {
    const linears = ['gemv', 'gemv_silu_gate', ...(dtype === 'float32' ? [] : ['gemv_rows', 'gemv_rows_silu_gate'])];
    const kernels = [...linears, 'pagedAttention'].map((name) => kernelOf(name, dtype));
    const named = ['siluGate', 'rope', 'appendRows', 'ropeAppend', 'splice', 'sample', ...kernels];
    provesKernels(dtype, named, ['pagedAttention']); // heads of 6 and of 2 elements
    describeLanguageOps(kDevice, dtype);
  });
}

describe('a batch that happens to be one on CUDA', () => {
  for (const dtype of ['float32', 'float16'] as const) {
    it(`has the bits that it has in a larger one in ${dtype}`, async () => {
      const [N, K, M] = [70, 300, 8];
      const weight = Weight.matrix(normal(N * K, 1, K ** -0.5), [N, K], { device: kDevice, compute: dtype });
      const program = device(kDevice).compile(
        (x) => ops.linear(x as Tensor<Float>, weight),
        [{ shape: [dim('n', M), K], dtype }],
      );
      const kernel = kernelOf(dtype === 'float32' ? 'linear' : 'gemv_rows', dtype);
      expect(program.steps.map(({ kernel }) => kernel)).to.deep.equal([kernel]);
      const x = normal(M * K, 2);
      const of = async (rows: Float32Array) => {
        const data = dtype === 'float32' ? rows : toFloat16Bits(rows);
        return (await program.run([Tensor.from(data, [rows.length / K, K], { device: kDevice, dtype })])).read();
      };
      const whole = await of(x);
      for (const row of [0, 3, 7]) {
        expect(await of(x.slice(row * K, (row + 1) * K))).to.deep.equal(whole.slice(row * N, (row + 1) * N));
      }
      program.dispose();
    });
  }
});
