import { describeLlavaGolden } from '../models/llava-golden';
import { describeLlavaShapes } from '../models/llava-shapes';
import { kDevice, kernelOf, provesKernels } from './evidence';

const kCases = [
  ['llava-tiny', 'checkpoint', ['float32', 'float16', 'bfloat16']],
  ['llava-tiny', 'checkpoint-new', ['float32']],
  ['llava-tiny-gqa-f16', 'checkpoint', ['float16']],
  ['llava-tiny-gqa-bf16', 'checkpoint', ['bfloat16']],
] as const;

for (const [folder, checkpoint, dtypes] of kCases) {
  for (const dtype of dtypes) {
    describe(`${folder}/${checkpoint} on CUDA in ${dtype}`, () => {
      provesKernels(dtype, [
        'patchEmbed',
        'layerNorm',
        'linear',
        'attention',
        'gatherRows',
        'embed',
        'splice',
        'rmsNorm',
        kernelOf('gemv_silu_gate', dtype),
        'rope',
        'ropeAppend',
        'pagedAttention',
        'sample',
      ]);
      describeLlavaGolden(folder, checkpoint, { device: kDevice, dtype });
    });
  }
}

describe('on CUDA', () => {
  provesKernels('float32', ['concat', 'splice', 'gatherRows', 'linear']);
  describeLlavaShapes(kDevice);
});
