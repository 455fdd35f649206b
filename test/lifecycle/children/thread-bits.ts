// Prints a digest of what a model computes for pictures and texts at each number of threads that is given.
import { createHash } from 'node:crypto';
import { CLIP, setThreads } from '../../../lib';
import { normal } from '../../support/numbers';

async function main(): Promise<void> {
  const clip = await CLIP.fromPretrained(undefined, { device: 'cpu' });
  const size = 64;
  const images = { pixels: normal(20 * 3 * size * size, 1), shape: [20, 3, size, size] };
  const texts = Array.from({ length: 12 }, (_, i) => `a drawing of a ${['red', 'green', 'small'][i % 3]} thing, number ${i}`);
  const digests: string[] = [];
  for (const count of process.argv.slice(2)) {
    setThreads(Number(count));
    const hash = createHash('sha256');
    for (const encoded of [clip.encodeImage(images), clip.encodeText(texts)]) {
      const features = await encoded;
      hash.update(await features.read());
      features.dispose();
    }
    digests.push(hash.digest('hex'));
  }
  console.log(JSON.stringify(digests));
}

main();
