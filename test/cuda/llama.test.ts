import { describeLlamaGolden, kLlamaFixtures } from '../models/llama-golden';
import { kDevice, provesKernels } from './evidence';

for (const folder of kLlamaFixtures) {
  for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
    describe(`${folder} on CUDA in ${dtype}`, () => {
      provesKernels(dtype, [
        'embed',
        'rmsNorm',
        'linear',
        'rope',
        'attention',
        'siluGate',
        'appendRows',
        'pagedAttention',
        'sample',
      ]);
      describeLlamaGolden(folder, { device: kDevice, dtype });
    });
  }
}
