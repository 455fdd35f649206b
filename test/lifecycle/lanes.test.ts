// The two lanes of an environment, from JavaScript: native/test/queue_test.cpp has the order of their steps.
import { expect } from 'chai';
import { CLIP, device, ops, setThreads, Tensor, threads } from '../../lib';
import { native } from '../../lib/native';
import { expectError } from '../support/errors';
import { normal } from '../support/numbers';

/** What `work` queued, in order: which lane it went to. */
async function lanesOf(work: () => Promise<unknown>): Promise<boolean[]> {
  const { run } = native;
  const bulk: boolean[] = [];
  native.run = (...given) => {
    bulk.push(given[1]);
    return run(...given);
  };
  try {
    await work();
  } finally {
    native.run = run;
  }
  return bulk;
}

describe('the lanes of an environment', () => {
  it('what waits for the result of bulk work does not hold up short calls', async () => {
    // Minutes of bulk work, aborted as soon as the short call is through.
    using long = device('cpu').compile(
      (x) => {
        let y = x as Tensor<'float32'>;
        for (let i = 0; i < 2000; i++) y = ops.softmax(y);
        return y;
      },
      [{ shape: [1024, 4096] }],
    );
    const controller = new AbortController();
    using x = Tensor.from(new Float32Array(1024 * 4096), [1024, 4096], { device: 'cpu' });
    using bulk = (await long.run([x], { bulk: true, signal: controller.signal })) as Tensor<'float32'>;
    using waits = ops.softmax(bulk);
    using short = ops.softmax(Tensor.from(new Float32Array(2), [1, 2], { device: 'cpu' }));
    expect([...(await short.read())]).to.deep.equal([0.5, 0.5]);
    controller.abort();
    await expectError(() => bulk.read(), 'ERR_ABORTED');
    await expectError(() => waits.read(), 'ERR_ABORTED');
  });
});

describe('a call with much to encode, on the CPU', () => {
  const size = 64; // of the model that ships, whose pictures have 17 rows each
  let clip: CLIP;
  const given = threads();
  before(async () => {
    clip = await CLIP.fromPretrained(undefined, { device: 'cpu' });
    setThreads(1);
  });
  after(() => {
    clip.dispose();
    setThreads(given);
  });

  const pixels = (n: number) => ({ pixels: normal(n * 3 * size * size, 5), shape: [n, 3, size, size] });
  const encode = async (n: number) => {
    using features = await clip.encodeImage(pixels(n));
    return features.rows();
  };

  it('goes in runs of at most 512 rows for each thread, all of them in the bulk lane', async () => {
    expect(await lanesOf(() => encode(4))).to.deep.equal([false]);
    expect(await lanesOf(() => encode(5))).to.deep.equal([true]);
    expect(await lanesOf(() => encode(30))).to.deep.equal([true]); // 510 rows
    expect(await lanesOf(() => encode(32))).to.deep.equal([true, true]); // and the second has 2 pictures
    setThreads(2);
    expect(await lanesOf(() => encode(32))).to.deep.equal([true]);
    setThreads(1);
  });

  it('the same for texts, whose rows are counted as they are laid out', async () => {
    const words = (n: number, length: number) =>
      Array.from({ length: n }, (_, text) => [
        2998,
        ...Array.from({ length: length - 2 }, (_, i) => (text * 31 + i * 7) % 2998),
        2999,
      ]);
    const lanes = (inputIds: readonly (readonly number[])[]) =>
      lanesOf(async () => {
        using features = await clip.encodeText({ inputIds });
        await features.read();
      });
    expect(await lanes(words(16, 32))).to.deep.equal([false]); // 497 rows
    expect(await lanes(words(17, 32))).to.deep.equal([true, true]); // 528
    setThreads(2);
    expect(await lanes(words(33, 32))).to.deep.equal([true]); // 1,024 rows, the start mark counted once
    expect(await lanes(words(34, 32))).to.deep.equal([true, true]);
    setThreads(1);
    const same = words(1, 32)[0]!;
    expect(await lanes(Array.from({ length: 100 }, () => same))).to.deep.equal([false]);
  });

  it('gives each picture the bits that it gets alone', async () => {
    const batch = await encode(32);
    const { pixels: values } = pixels(32);
    for (const i of [0, 29, 30, 31]) {
      const inner = 3 * size * size;
      using alone = await clip.encodeImage({
        pixels: values.subarray(i * inner, (i + 1) * inner),
        shape: [1, 3, size, size],
      });
      expect([...(await alone.read())], `picture ${i}`).to.deep.equal([...batch[i]!]);
    }
  });
});
