// Two workers at once on one device, and processes that end while the device works.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { packageRoot } from '../../lib/native';
import { fixtures, needsFixtures, readFixture } from '../support/fixtures';
import { minCosine } from '../support/numbers';
import { kDevice, kernelOf } from './evidence';

const library = join(packageRoot, 'dist', 'lib');
const checkpoint = join(fixtures, 'clip-tiny-quickgelu', 'checkpoint');

/** A program that loads the model, has its pixels and sees which kernels are planned; `rest` is what it does. */
function script(rest: string): string {
  const { data, shape } = readFixture('clip-tiny-quickgelu', 'inputs').get('pixel_values')!;
  return `
    const { CLIP, counters } = require(${JSON.stringify(join(library, 'index.js'))});
    const { native } = require(${JSON.stringify(join(library, 'native.js'))});
    const kernels = new Set();
    const compile = native.compile;
    native.compile = (...given) => {
      const program = compile(...given);
      for (const { kernel } of native.programSteps(program)) kernels.add(kernel);
      return program;
    };
    const pixels = Float32Array.from(${JSON.stringify([...data])});
    const shape = ${JSON.stringify(shape)};
    (async () => {
      const clip = await CLIP.fromPretrained(${JSON.stringify(checkpoint)}, { device: 'cuda', dtype: 'float32' });
      if (clip.device !== 'cuda:0') throw new Error(clip.device);
      ${rest}
    })();`;
}

const kKernels = ['patchEmbed', 'linear', 'attention'].map((op) => kernelOf(op, 'float32'));

function expectFeatures(numbers: Float32Array): void {
  const { data, shape } = readFixture('clip-tiny-quickgelu', 'expected').get('image_features')!;
  expect(minCosine(numbers, data, shape[1]!)).to.be.at.least(0.99999);
}

describe(`threads on ${kDevice}`, () => {
  before(function () {
    needsFixtures(this);
  });

  it('two workers at once get the right features, each through its own queue', async () => {
    const work = script(`
      const { parentPort } = require('node:worker_threads');
      const before = counters().graphLaunches;
      const all = [];
      for (let i = 0; i < 4; i++) all.push(clip.encodeImage({ pixels, shape }).then((features) => features.read()));
      parentPort.postMessage({ features: await Promise.all(all), launches: counters().graphLaunches - before, kernels: [...kernels] });
      clip.dispose();`);
    const results = await Promise.all(
      [0, 1].map(
        () =>
          new Promise<{ features: Float32Array[]; launches: number; kernels: string[] }>((resolve, reject) => {
            const worker = new Worker(work, { eval: true });
            worker.once('message', resolve);
            worker.once('error', reject);
          }),
      ),
    );
    for (const { features, launches, kernels } of results) {
      expect(kernels).to.include.members(kKernels);
      expect(launches).to.be.at.least(4); // the counters are the process's
      for (const numbers of features) {
        expectFeatures(numbers);
        expect(numbers).to.deep.equal(features[0]);
      }
    }
    expect(results[0]!.features[0]).to.deep.equal(results[1]!.features[0]);
  });

  it('a worker that is terminated while the device works leaves the process whole', async () => {
    const work = script(`
      for (let i = 0; i < 50; i++) clip.encodeImage({ pixels, shape });
      require('node:worker_threads').parentPort.postMessage('queued');
      setInterval(() => {}, 1000);`);
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(work, { eval: true });
      await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      await worker.terminate();
    }
    const again = new Worker(
      script(`
        const features = await clip.encodeImage({ pixels, shape });
        require('node:worker_threads').parentPort.postMessage(await features.read());`),
      { eval: true },
    );
    const numbers = await new Promise<Float32Array>((resolve, reject) => {
      again.once('message', resolve);
      again.once('error', reject);
    });
    expectFeatures(numbers);
    await again.terminate();
  });

  for (const [how, end] of [
    ['process.exit()', 'process.exit(0);'],
    ['its last promise', ''],
    ['dispose()', 'clip.dispose();'],
  ] as const) {
    it(`a process that ends by ${how} with work in flight ends cleanly`, () => {
      const work = script(`
        for (let i = 0; i < 20; i++) clip.encodeImage({ pixels, shape }).catch(() => {});
        await new Promise(setImmediate);
        console.log(counters().calls, ...kernels);
        ${end}`);
      const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['-'], {
        input: work,
        encoding: 'utf8',
        timeout: 120_000,
      });
      expect({ status, signal, stderr }).to.deep.equal({ status: 0, signal: null, stderr: '' });
      expect(stdout.trim().split(' ')).to.include.members(kKernels);
    });
  }
});
