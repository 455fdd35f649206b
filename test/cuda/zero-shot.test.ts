// From a picture's file to its label on the device, with the model that ships.
import { join } from 'node:path';
import { expect } from 'chai';
import { CLIP, type Classification, type Float, ZeroShotClassifier } from '../../lib';
import { packageRoot } from '../../lib/native';
import { expectClose } from '../support/numbers';
import { kDevice, kernelOf, provesKernels, takePlanned } from './evidence';

const kLabels = ['cat', 'rocket', 'car', 'pizza'];
const picture = join(packageRoot, 'examples', 'rocket.jpg');

describe('a picture and its label on CUDA', () => {
  let expected: Classification;

  before(async () => {
    const clip = await CLIP.fromPretrained(undefined, { device: 'cpu' });
    const classifier = new ZeroShotClassifier(clip, kLabels);
    expected = await classifier.classify(picture);
    classifier.dispose();
    clip.dispose();
  });

  for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
    describe(dtype, () => {
      const head = kernelOf(dtype === 'float32' ? 'zeroShotHead' : 'zero_shot_head_mma', dtype);
      provesKernels(dtype, ['resizeHorizontal', 'resizeVertical', 'patchEmbed', 'linear', 'attention', head]);

      it(`classifies examples/rocket.jpg as the CPU does`, async () => {
        const clip = await CLIP.fromPretrained(undefined, { device: 'cuda', dtype });
        expect(clip.device).to.equal(kDevice);
        expect(clip.dtype).to.equal(dtype);
        const classifier = new ZeroShotClassifier(clip, kLabels);
        const result = await classifier.classify(picture);
        expect(result.label).to.equal(expected.label);
        const inOrder = ({ scores }: Classification) =>
          kLabels.map((label) => scores.find((entry) => entry.label === label)!.score);
        // Logits are cosines times exp(scale) <= 100; a cosine is off by the rounding of its dtype.
        expectClose(inOrder(result), inOrder(expected), { float32: 1e-4, float16: 3e-2, bfloat16: 2e-1 }[dtype]);
        classifier.dispose();
        clip.dispose();
      });
    });
  }

  it("'auto' takes CUDA, and the checkpoint's own 16-bit type", async () => {
    takePlanned();
    using clip = await CLIP.fromPretrained();
    expect(clip.device).to.equal(kDevice);
    expect(clip.dtype).to.equal('float16');
    const [[cosine]] = (await clip.similarity(picture, ['rocket'])) as [[number]];
    expect(cosine).to.be.within(-1, 1);
    expect(takePlanned().map(({ kernel }) => kernel)).to.include.members([kernelOf('linear', 'float16')]);
  });
});
