import { expect } from 'chai';
import type { Float } from '../../lib';
import { describeClipGolden, kClipFixtures } from '../models/golden';
import { kDevice, provesKernels } from './evidence';

for (const folder of kClipFixtures) {
  for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
    describe(`${folder} on CUDA in ${dtype}`, () => {
      const general = folder === 'clip-tiny-quickgelu' ? ['attention'] : []; // its text heads have 12 elements
      const ops = ['patchEmbed', 'embed', 'layerNorm', 'linear', 'attention', 'gatherRows', 'l2Normalize', 'scaledLogits'];
      provesKernels(dtype, ops, general);
      describeClipGolden(folder, { device: kDevice, dtype, onLoad: (clip) => expect(clip.device).to.equal(kDevice) });
    });
  }
}
