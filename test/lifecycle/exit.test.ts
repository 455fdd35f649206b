import { join } from 'node:path';
import { expect } from 'chai';
import { kSizes, makeCheckpoint } from '../../bench/make-checkpoint';
import { childResult, runChild, temporaryFolder } from './child';

const folder = temporaryFolder((path) => {
  makeCheckpoint(join(path, 'micro'), kSizes.micro!);
  makeCheckpoint(join(path, 'loading'), kSizes.loading!);
});

const folders = () => [join(folder.path, 'micro'), join(folder.path, 'loading')];

describe('a process that ends while work is in flight in its main thread', () => {
  const kEnds: Readonly<Record<string, { code: number; stdout?: string; stderr?: string }>> = {
    'natural end': { code: 0, stdout: 'all done' }, // what was asked for is done first
    'process.exit()': { code: 7 },
    'process.exit() at once': { code: 7 },
    'uncaught exception': { code: 1, stderr: 'Error: planned' },
    'unhandled rejection': { code: 1, stderr: 'Error: planned' },
    'exit in an exit handler': { code: 7 },
  };
  for (const [how, { code, stdout = '', stderr = '' }] of Object.entries(kEnds)) {
    it(`by ${how}, ends with its own exit code`, async () => {
      const ended = await runChild('exit', [how, ...folders()]);
      expect({ code: ended.code, signal: ended.signal }, ended.stderr).to.deep.equal({ code, signal: null });
      expect(ended.stdout.trim()).to.equal(stdout);
      if (stderr) expect(ended.stderr).to.contain(stderr);
      else expect(ended.stderr).to.equal('');
    });
  }
});

describe('a worker that ends while its work is in flight', () => {
  for (const [how, end] of [
    ['terminate()', '1'],
    ['process.exit()', '0'],
    ['uncaught exception', 'planned'],
  ] as const) {
    it(`by ${how}, leaves the process sound, and nothing behind`, async () => {
      const result = await childResult('exit-worker', [how, ...folders(), '3']);
      expect(result).to.deep.equal({ ends: [end], finite: true, weights: 0, tensors: 0 });
    });
  }

  it('by process.exit() of the main thread, lets it end', async () => {
    const ended = await runChild('exit-worker', ['process.exit() in the main thread', ...folders()]);
    expect({ ...ended }).to.deep.equal({ code: 0, signal: null, stdout: '', stderr: '' });
  });
});

describe('two workers and the main thread', () => {
  it('compute the same bits at once, on one copy of the weights', async () => {
    const { different, weights, oneModel } = await childResult<{ different: number; weights: number; oneModel: number }>(
      'two-workers',
      [folders()[0]!],
    );
    expect(different).to.equal(1);
    // Beside the weights each thread has a table of 3 · 256 · 4 numbers for its image processor.
    expect(weights).to.be.below(1.5 * oneModel);
  });
});
