import { join } from 'node:path';
import { expect } from 'chai';
import { CLIP, ZeroShotClassifier } from '../../lib';
import { packageRoot } from '../../lib/native';
import { executedWarm } from '../support/executed';

const size = 64; // of the model that ships
const jpeg = join(packageRoot, 'examples', 'rocket.jpg');

describe('a warm call', () => {
  let clip: CLIP;
  let classifier: ZeroShotClassifier;
  before(async () => {
    clip = await CLIP.fromPretrained(undefined, { device: 'cpu' });
    classifier = new ZeroShotClassifier(clip, ['rocket', 'cat', 'tree']);
    await classifier.ready;
  });
  after(() => {
    classifier.dispose();
    clip.dispose();
  });

  const encoded = async (tensor: Promise<{ read(): Promise<unknown>; dispose(): void }>) => {
    const result = await tensor;
    await result.read();
    result.dispose();
  };
  const pixels = { pixels: new Float32Array(3 * size * size), shape: [1, 3, size, size] };
  const raw = { data: new Uint8Array(90 * 60 * 4), width: 90, height: 60, channels: 4 as const };
  const calls: Readonly<Record<string, () => Promise<unknown>>> = {
    'encodeImage() of pixels': () => encoded(clip.encodeImage(pixels)),
    'encodeImage() of a file': () => encoded(clip.encodeImage(jpeg, { normalize: true })),
    'encodeImage() of a batch': () => encoded(clip.encodeImage([jpeg, raw, jpeg, raw, raw])),
    'encodeText()': () => encoded(clip.encodeText('a photo of a rocket')),
    'encodeText() of a batch': () => encoded(clip.encodeText(['a rocket', 'a photo of a cat', 'tree'], { normalize: true })),
    'classify()': () => classifier.classify(jpeg),
    'classify() of a batch': () => classifier.classify([jpeg, raw, jpeg]),
  };

  for (const [name, call] of Object.entries(calls)) {
    it(`${name} is one native call and takes no memory from the system`, async () => {
      const counts = await executedWarm(async () => {
        for (let i = 0; i < 5; i++) await call();
      });
      expect(counts.calls, 'native calls').to.equal(5);
      expect(counts.deviceAllocations, 'blocks from the system').to.equal(0);
      expect(counts.multiplyAdds, 'multiply-adds').to.be.above(5e6);
    });
  }
});
