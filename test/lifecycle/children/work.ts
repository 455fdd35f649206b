// Work of every kind, in flight when this returns: loading, decoding, tokenising, programs in both lanes, reads.
import { CLIP, device, ops, Tensor } from '../../../lib';

export interface Work {
  /** Fulfilled when some of the work is done and most is not. */
  readonly begun: Promise<unknown>;
  readonly all: Promise<unknown>;
}

/** @param micro, large folders of checkpoints: a small one, and one that takes a while to load */
export async function startWork(micro: string, large: string): Promise<Work> {
  const clip = await CLIP.fromPretrained(micro, { device: 'cpu' });
  const shipped = await CLIP.fromPretrained(undefined, { device: 'cpu' });
  const long = device('cpu').compile(
    (x) => {
      let y = x as Tensor<'float32'>;
      for (let i = 0; i < 100; i++) y = ops.softmax(y);
      return y;
    },
    [{ shape: [256, 1024] }],
  );
  const x = Tensor.from(new Float32Array(256 * 1024), [256, 1024]);
  const pixels = { pixels: new Float32Array(3 * 32 * 32), shape: [1, 3, 32, 32] };
  const picture = { data: new Uint8Array(800 * 600 * 3), width: 800, height: 600, channels: 3 as const };
  const runs = [true, false, true, false].map((bulk) => long.run([x], { bulk }));
  const jobs: Promise<unknown>[] = [
    ...runs.map(async (run) => (await run).read()),
    ...Array.from({ length: 50 }, async () => (await clip.encodeImage(pixels)).read()),
    ...Array.from({ length: 10 }, async () => (await shipped.encodeImage(picture)).read()),
    ...Array.from({ length: 10 }, async (_, i) => (await shipped.encodeText(`a red circle ${i}`)).read()),
    CLIP.fromPretrained(large, { device: 'cpu' }),
  ];
  return { begun: Promise.any(jobs), all: Promise.all(jobs) };
}
