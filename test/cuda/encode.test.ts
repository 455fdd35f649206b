// One encode is one native call and one graph launch, and once warm it allocates nothing on the device.
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { expect } from 'chai';
import { CLIP, type Counters, device, ZeroShotClassifier } from '../../lib';
import { executed, executedWarm } from '../support/executed';
import { data, fixtures, needsFixtures, readFixture } from '../support/fixtures';
import { expectOurKernels, kDevice, kernelOf, takePlanned } from './evidence';

const kWarm = { calls: 1, graphLaunches: 1, steps: 0, kernels: 0, deviceAllocations: 0 };

describe('an encode on CUDA', () => {
  let clip: CLIP;
  let pixels: { pixels: Float32Array; shape: [number, number, number, number] };

  before(async function () {
    needsFixtures(this);
    clip = await CLIP.fromPretrained(join(fixtures, 'clip-tiny-quickgelu', 'checkpoint'), { device: 'cuda' });
    expect(clip.device).to.equal(kDevice);
    expect(clip.dtype, "'auto' for a float32 checkpoint").to.equal('float16');
    const { data: numbers, shape } = readFixture('clip-tiny-quickgelu', 'inputs').get('pixel_values')!;
    pixels = { pixels: numbers as Float32Array, shape: shape as [number, number, number, number] };
  });
  after(() => clip?.dispose());
  beforeEach(() => takePlanned());

  /** What a run does once the first was planned and recorded. */
  async function warm(fn: () => Promise<unknown>): Promise<Counters> {
    await fn();
    expectOurKernels(takePlanned(), 'float16', ['attention']); // text heads have 12 elements
    const counts = await executedWarm(fn);
    expect(takePlanned(), 'planned when warm').to.deep.equal([]);
    return counts;
  }

  it('plans each tower with our kernels and records them once', async () => {
    const first = await executed(async () => {
      (await clip.encodeImage(pixels)).dispose();
    });
    const steps = takePlanned();
    expectOurKernels(steps, 'float16');
    expect(steps.map(({ kernel }) => kernel)).to.include.members([
      ...['patchEmbed', 'layerNorm', 'linear', 'attention', 'gatherRows', 'cast'].map((op) => kernelOf(op, 'float16')),
    ]);
    expect(first.calls).to.equal(1);
  });

  it('of pixels: one call, one launch, no allocation', async () => {
    const counts = await warm(async () => {
      using features = await clip.encodeImage(pixels);
      await features.read();
    });
    expect(counts).to.include(kWarm);
  });

  it('of pictures: one call from bytes to features', async () => {
    const counts = await warm(async () => {
      using features = await clip.encodeImage([join(data, 'pictures', 'chelsea.png'), join(data, 'pictures', 'rocket.jpg')]);
      await features.read();
    });
    expect(counts).to.include(kWarm);
  });

  it('of texts: one call, one launch, no allocation', async () => {
    const counts = await warm(async () => {
      using features = await clip.encodeText(['a photo of a cat', 'a photo of a rocket', 'red']);
      await features.read();
    });
    expect(counts).to.include(kWarm);
  });

  it('with classes: one call from a picture to scores', async () => {
    const classifier = new ZeroShotClassifier(clip, ['cat', 'rocket', 'cup']);
    await classifier.ready;
    const counts = await warm(() => classifier.classify(join(data, 'pictures', 'chelsea.png')));
    expect(counts).to.include(kWarm);
    classifier.dispose();
  });

  it('of another batch size in the same bucket replays the same recording', async () => {
    const one = pixels.pixels.length / pixels.shape[0];
    const batch = async (n: number) => {
      const [, ...rest] = pixels.shape;
      using features = await clip.encodeImage({ pixels: pixels.pixels.subarray(0, n * one), shape: [n, ...rest] });
      return features.read();
    };
    const three = await batch(3); // the bucket of four
    takePlanned();
    const counts = await executedWarm(() => batch(3));
    expect(counts).to.include(kWarm);
    expect(takePlanned()).to.deep.equal([]);
    expect(await batch(3)).to.deep.equal(three);
    expect([...(await batch(2))]).to.deep.equal([...three.subarray(0, 2 * clip.projectionDim)]);
  });

  it('and its disposal a hundred times leaves the memory as it was', async () => {
    /** Bytes once the queue has let go of what it read last, some moments after the promise. */
    const memory = async () => {
      let held = device(kDevice).memory().tensors;
      for (let same = 0; same < 5; ) {
        await setTimeout(10);
        const now = device(kDevice).memory().tensors;
        same = now === held ? same + 1 : 0;
        held = now;
      }
      return held;
    };
    const encode = async (times: number) => {
      for (let i = 1; i <= times; i++) {
        using features = await clip.encodeText({ inputIds: [[1, 2, 3]] });
        if (i % 10 === 0) await features.read(); // the others are let go before they were computed
      }
    };
    await encode(10);
    const before = await memory();
    const counts = await executedWarm(() => encode(100));
    expect(counts.deviceAllocations).to.equal(0);
    expect(await memory()).to.equal(before);
  });
});
