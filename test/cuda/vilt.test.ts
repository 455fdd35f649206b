import { describeViltGolden } from '../models/vilt-golden';
import { kDevice, provesKernels } from './evidence';

const kCases = [
  ['vilt-tiny-retrieval', ['float32', 'float16', 'bfloat16']],
  ['vilt-tiny-vqa', ['float32', 'float16']],
] as const;

for (const [folder, dtypes] of kCases) {
  for (const dtype of dtypes) {
    describe(`${folder} on CUDA in ${dtype}`, () => {
      provesKernels(dtype, ['patchEmbed', 'embed', 'splice', 'layerNorm', 'linear', 'attention', 'gatherRows']);
      describeViltGolden(folder, { device: kDevice, dtype });
    });
  }
}
