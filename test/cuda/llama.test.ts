import { join } from 'node:path';
import { expect } from 'chai';
import { Llama } from '../../lib';
import { describeLlamaGolden, kLlamaFixtures } from '../models/llama-golden';
import { executedWarm } from '../support/executed';
import { fixtures, needsFixtures } from '../support/fixtures';
import { kDevice, kernelOf, provesKernels } from './evidence';

for (const folder of kLlamaFixtures) {
  for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
    describe(`${folder} on CUDA in ${dtype}`, () => {
      const odd = folder === 'llama-tiny-linear'; // heads of 12 elements
      const forms = dtype === 'float32' || odd ? ['simt'] : ['mma', 'split'];
      const named = ['gemv', 'gemv_silu_gate', 'gatedLinear', ...forms.map((form) => `paged_attention_${form}`)];
      provesKernels(
        dtype,
        [
          'embed',
          'rmsNorm',
          'linear',
          ...named.map((kernel) => kernelOf(kernel, dtype)),
          'rope',
          'attention',
          'ropeAppend',
          'sample',
        ],
        odd ? ['attention', 'pagedAttention'] : [],
      );
      describeLlamaGolden(folder, { device: kDevice, dtype });
    });
  }
}

describe('a decode step on CUDA', () => {
  it('is one call and one graph launch, and allocates nothing once warm', async function () {
    needsFixtures(this);
    const llama = await Llama.fromPretrained(join(fixtures, 'llama-tiny-linear', 'checkpoint'), {
      device: kDevice,
      cacheTokens: 128,
    });
    const answer = () => llama.generate({ inputIds: [3, 7, 11], maxNewTokens: 8 }).result;
    await answer();
    const counts = await executedWarm(answer);
    expect(counts).to.include({ calls: 8, graphLaunches: 8, steps: 0, kernels: 0, deviceAllocations: 0 });
    llama.dispose();
  });
});
