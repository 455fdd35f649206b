import { describeFusion, describeFusionIn } from '../fusion/compositions';
import { describePairShapes } from '../models/pair-shapes';
import { kDevice, provesKernels } from './evidence';

describe('on CUDA', () => {
  provesKernels('float32', ['binary', 'splice', 'concat', 'embed', 'attention', 'linear', 'layerNorm']);
  describeFusion(kDevice);
  describePairShapes(kDevice);
});

for (const dtype of ['float16', 'bfloat16'] as const) {
  describe(`on CUDA in ${dtype}`, () => {
    provesKernels(dtype, ['attention', 'linear', 'binary', 'splice']);
    describeFusionIn(kDevice, dtype);
  });
}
