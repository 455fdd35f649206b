// The models in bfloat16 on the CPU: mocha runs this file in a process of its own, whose WARPSIGHT_ISA has such products (bfloat16.test.ts).
import { join } from 'node:path';
import { expect } from 'chai';
import { CLIP, Llama, Weight, ZeroShotClassifier } from '../../lib';
import { packageRoot } from '../../lib/native';
import { fixtures, needsFixtures } from '../support/fixtures';
import { describeClipGolden, kClipFixtures } from './golden';
import { describeLlamaGolden, kLlamaFixtures } from './llama-golden';
import { describeLlavaGolden, kLlavaFixtures } from './llava-golden';

const run = { device: 'cpu', dtype: 'bfloat16' } as const;

for (const folder of kClipFixtures) describeClipGolden(folder, run);
for (const folder of kLlamaFixtures) describeLlamaGolden(folder, run);
for (const [folder, checkpoint] of kLlavaFixtures) describeLlavaGolden(folder, checkpoint, run);

describe('bfloat16 on the CPU', () => {
  it('classifies with the model that ships', async () => {
    using clip = await CLIP.fromPretrained(undefined, run);
    using classifier = new ZeroShotClassifier(clip, ['cat', 'rocket', 'car', 'pizza']);
    const { label, score } = await classifier.classify(join(packageRoot, 'examples', 'rocket.jpg'));
    expect(label).to.equal('rocket');
    expect(score).to.be.above(0.9);
  });

  it('takes two bytes for each number of a matrix, and stays apart from the same file in float32', async function () {
    needsFixtures(this);
    const folder = join(fixtures, 'llama-tiny-linear', 'checkpoint');
    const plain = await Llama.fromPretrained(folder, { device: 'cpu' });
    const half = await Llama.fromPretrained(folder, { ...run, cacheTokens: 64 });
    const [exact, rounded] = await Promise.all([plain, half].map((llama) => llama.forward({ inputIds: [5, 9, 200] })));
    expect([...(await rounded!.read())]).not.to.deep.equal([...(await exact!.read())]);
    for (const each of [exact!, rounded!, plain, half]) each.dispose();
    const data = Float32Array.from({ length: 64 * 64 }, (_, i) => Math.sin(i));
    using matrix = Weight.matrix(data, [64, 64], { compute: 'bfloat16' });
    expect(matrix.info).to.deep.equal({ dtype: 'bfloat16', bytes: 2 * 64 * 64 });
  });
});
