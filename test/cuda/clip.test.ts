import { expect } from 'chai';
import type { Float } from '../../lib';
import { describeClipGolden, kClipFixtures } from '../models/golden';
import { kDevice, provesKernels } from './evidence';

for (const folder of kClipFixtures) {
  for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
    describe(`${folder} on CUDA in ${dtype}`, () => {
      provesKernels(dtype, [
        'patchEmbed',
        'embed',
        'layerNorm',
        'linear',
        'attention',
        'gatherRows',
        'l2Normalize',
        'scaledLogits',
      ]);
      describeClipGolden(folder, { device: kDevice, dtype, onLoad: (clip) => expect(clip.device).to.equal(kDevice) });
    });
  }
}
