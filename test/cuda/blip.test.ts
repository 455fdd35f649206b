import { describeBlipGolden } from '../models/blip-golden';
import { kDevice, provesKernels } from './evidence';

for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
  describe(`BLIP on CUDA in ${dtype}`, () => {
    provesKernels(dtype, ['patchEmbed', 'embed', 'layerNorm', 'linear', 'attention', 'gatherRows']);
    describeBlipGolden({ device: kDevice, dtype });
  });
}
