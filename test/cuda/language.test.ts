import type { Float } from '../../lib';
import { describeLanguageOps } from '../ops/language';
import { kDevice, kernelOf, provesKernels } from './evidence';

for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
  describe(`CUDA kernels of language models in ${dtype}`, () => {
    provesKernels(dtype, ['siluGate', 'rope', 'appendRows', 'splice', 'pagedAttention', 'sample', kernelOf('gemv', dtype)]);
    describeLanguageOps(kDevice, dtype);
  });
}
