import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { kSizes, makeCheckpoint } from '../../bench/make-checkpoint';
import { CLIP } from '../../lib';

describe('loading a checkpoint of several groups of weights', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'warpsight-loading-'));
    makeCheckpoint(folder, kSizes.loading!, { dtype: 'F16' });
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('tells how far it is, to the end', async () => {
    const told: { file: string; loaded: number; total: number }[] = [];
    using clip = await CLIP.fromPretrained(folder, { device: 'cpu', onProgress: (progress) => told.push({ ...progress }) });
    expect(told.length).to.be.above(3);
    const total = told[0]!.total;
    expect(total).to.be.within(0.99 * clip.memoryUsage().weights, clip.memoryUsage().weights);
    told.forEach((progress, i) => {
      expect(progress).to.include({ file: 'model.safetensors', total });
      expect(progress.loaded).to.be.above(told[i - 1]?.loaded ?? 0);
    });
    expect(told.at(-1)!.loaded).to.equal(total);
  });

  it('ends when it is aborted midway, and can be begun again', async () => {
    const controller = new AbortController();
    let told = 0;
    const onProgress = (): void => {
      if (++told === 1) controller.abort('enough');
    };
    const loading = CLIP.fromPretrained(folder, { device: 'cpu', signal: controller.signal, onProgress });
    expect(await loading.catch((e: unknown) => e)).to.include({ code: 'ERR_ABORTED', cause: 'enough' });
    const atEnd = told;
    (await CLIP.fromPretrained(folder, { device: 'cpu' })).dispose();
    expect(told, 'told after the failure').to.equal(atEnd);
  });

  it('fails with what its listener throws', async () => {
    const error = new Error('no room on the bar');
    const onProgress = () => {
      throw error;
    };
    expect(await CLIP.fromPretrained(folder, { device: 'cpu', onProgress }).catch((e: unknown) => e)).to.equal(error);
  });
});
