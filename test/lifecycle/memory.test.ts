import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { kSizes, makeCheckpoint } from '../../bench/make-checkpoint';
import { kLlavaSizes, makeLlava } from '../../bench/make-llava';
import { device, ops, Tensor } from '../../lib';
import { packageRoot } from '../../lib/native';
import { childResult, temporaryFolder } from './child';

const kTypes = ['F32', 'F16'] as const;
/** glibc gives threads arenas of their own, which grow and are freed by megabytes: with one, what is left is what is held. */
const kOneArena = { MALLOC_ARENA_MAX: '1' };
const shipped = join(packageRoot, 'models', 'clip-pictograms');

describe('memory of a process that stays', () => {
  before(function () {
    if (existsSync('/proc/self/clear_refs')) return;
    console.log('skipped: resident memory is read from /proc, which this system does not have');
    this.skip();
  });

  const folder = temporaryFolder((path) => {
    makeCheckpoint(join(path, 'micro'), kSizes.micro!);
    for (const dtype of kTypes) makeCheckpoint(join(path, dtype), kSizes.loading!, { dtype });
  });

  it('is flat over 10,000 encodes and disposals', async () => {
    const { encodes, growth, samples, tensors } = await childResult<{
      encodes: number;
      growth: number;
      samples: number[];
      tensors: number;
    }>('encodes', [join(folder.path, 'micro'), '4000'], kOneArena);
    expect(encodes).to.equal(12_000);
    expect(tensors).to.equal(0);
    expect(growth, `of memory held: ${samples}`).to.be.below(1e6); // 330 bytes for each encode of a quarter
  });

  for (const dtype of kTypes) {
    it(`stays under 1.3 times the weights while a ${dtype} checkpoint is loaded`, async () => {
      const { peak, weights } = await childResult<{ peak: number; weights: number }>('loading', [
        'CLIP',
        join(folder.path, 'micro'),
        join(folder.path, dtype),
      ]);
      expect(weights).to.be.above(60e6);
      expect(peak / weights).to.be.below(1.3);
    });
  }

  for (const dtype of ['F32', 'BF16'] as const) {
    it(`has a LLaVA's weights once and a tenth more while a ${dtype} checkpoint is loaded; a tied head is no second copy`, async () => {
      const [micro, large] = [join(folder.path, 'llava-micro'), join(folder.path, `llava-${dtype}`)];
      makeLlava(micro, kLlavaSizes.micro!);
      makeLlava(large, kLlavaSizes.loading!, { dtype });
      // JavaScript's heap adds up to 10 MB by chance, a tenth of these weights in BF16: the least of three tells what the loader needs.
      const shares: number[] = [];
      for (let run = 0; run < 3; run++) {
        const { peak, weights } = await childResult<{ peak: number; weights: number }>('loading', ['LLaVA', micro, large]);
        expect(weights / statSync(join(large, 'model.safetensors')).size).to.be.within(0.95, 1.05);
        shares.push(peak / weights);
      }
      expect(Math.min(...shares), `${shares}`).to.be.below(1.1);
    });
  }

  it('is flat over 400 times loading and disposing; files and threads too', async () => {
    const { growth, samples, files, threads, weights, tensors } = await childResult<{
      growth: number;
      samples: number[];
      files: number[];
      threads: number[];
      weights: number;
      tensors: number;
    }>('cycles', [shipped, '400'], kOneArena);
    expect(growth, `of memory held: ${samples}`).to.be.below(1e6); // 10 kB for each time; one copy of the weights is 9 MB
    expect(new Set(files.slice(1)).size, `open files: ${files}`).to.equal(1);
    expect(Math.max(...threads.slice(1)), `threads: ${threads}`).to.be.at.most(threads[1]!);
    expect({ weights, tensors }).to.deep.equal({ weights: 0, tensors: 0 });
  });

  it('is flat over 4,000 generations that are stopped anywhere', async () => {
    makeLlava(join(folder.path, 'llava'), kLlavaSizes.micro!);
    const { growth, samples, tensors } = await childResult<{ growth: number; samples: number[]; tensors: number }>(
      'generations',
      [join(folder.path, 'llava'), '4000'],
      kOneArena,
    );
    expect(growth, `of memory held: ${samples}`).to.be.below(2e6); // 2 kB for each generation of a quarter
    expect(tensors).to.equal(0);
  });

  it('comes back from models and tensors that nobody disposed', async () => {
    const { held, left } = await childResult<Record<'held' | 'left', { weights: number; tensors: number }>>('dropped', [shipped]);
    expect(held.weights).to.be.above(8e6);
    expect(held.tensors).to.be.above(1e6); // V8 is told of them: some are collected already
    expect(left).to.deep.equal({ weights: 0, tensors: 0 });
  });

  it('is told apart: tensors, and the arenas that programs compute in', async () => {
    const before = device('cpu').memory();
    const x = Tensor.from(new Float32Array(1 << 20), [1024, 1024]);
    const program = device('cpu').compile(
      (given) => ops.softmax(ops.softmax(given as Tensor<'float32'>)),
      [{ shape: [1024, 1024] }],
    );
    const y = await program.run([x]);
    await y.read();
    const { tensors, arenas } = device('cpu').memory();
    expect(tensors - before.tensors).to.equal(2 * 4 * 2 ** 20);
    expect(arenas).to.be.at.least(4 * 2 ** 20); // what the first softmax gives the second
    for (const tensor of [x, y]) tensor.dispose();
    program.dispose();
    for (let i = 0; i < 100 && device('cpu').memory().tensors > before.tensors; i++) await sleep(5);
    expect(device('cpu').memory().tensors).to.equal(before.tensors);
  });
});
