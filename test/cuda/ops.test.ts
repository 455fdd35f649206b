import type { Float } from '../../lib';
import { describeOpGoldens } from '../ops/golden';
import { kDevice, kernelOf, provesKernels } from './evidence';

const kOperations = ['linear', 'activate', 'siluGate', 'l2Normalize', 'scaledLogits', 'zeroShotHead', 'softmax', 'layerNorm'];
const kOthers = ['rmsNorm', 'rope', 'attention', 'patchEmbed'];
const kInFloat32Only = ['argmax', 'topK', 'sampleDistribution']; // ties and cuts: 16 bits don't hold the differences

for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
  describe(`CUDA kernels in ${dtype}`, () => {
    const mma = ['scaled_logits_mma', 'zero_shot_head_mma'].map((name) => kernelOf(name, dtype));
    provesKernels(dtype, [...kOperations, ...kOthers, ...(dtype === 'float32' ? kInFloat32Only : mma)], ['attention']); // heads of 20
    describeOpGoldens(kDevice, dtype);
  });
}
