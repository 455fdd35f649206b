// concurrent FOLDER PICTURE COUNT [busy]: COUNT encodes of one picture at once, behind other work if busy; the peak of resident memory, and in
// what order they are done.
import { CLIP, device, ops, type Tensor } from '../../../lib';
import { collect, forgetPeak, peakBytes, print, residentBytes } from './measure';

const [folder = '', picture = '', count = '0', busy] = process.argv.slice(2);

/** Holds the lane of short calls for some seconds. */
async function otherWork(): Promise<void> {
  const program = device('cpu').compile(
    (x) => {
      let y = x as Tensor<'float32'>;
      for (let i = 0; i < 5000; i++) y = ops.softmax(y);
      return y;
    },
    [{ shape: [1024, 1024] }],
  );
  (await program.run([new Float32Array(1024 * 1024)])).dispose();
}

async function main(): Promise<void> {
  const clip = await CLIP.fromPretrained(folder, { device: 'cpu' });
  const encode = async () => {
    const image = await clip.encodeImage(picture);
    const numbers = await image.read();
    image.dispose();
    return numbers;
  };
  const expected = String(await encode());
  await collect();
  forgetPeak();
  const before = residentBytes();
  if (busy) await otherWork();
  const order: number[] = [];
  let wrong = 0;
  await Promise.all(
    Array.from({ length: Number(count) }, async (_, i) => {
      if (String(await encode()) !== expected) wrong++;
      order.push(i);
    }),
  );
  const displaced = Math.max(...order.map((call, place) => Math.abs(call - place)));
  print({ peak: peakBytes() - before, wrong, displaced });
}

main();
