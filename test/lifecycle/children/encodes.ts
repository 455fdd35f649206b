// encodes FOLDER COUNT: encodes a picture, pixels and a text COUNT times each and disposes the results.
import { CLIP, device } from '../../../lib';
import { collect, growth, heldBytes, print } from './measure';

const [folder = '', count = '0'] = process.argv.slice(2);
const kSamples = 40;

async function main(): Promise<void> {
  const clip = await CLIP.fromPretrained(folder, { device: 'cpu' });
  const pixels = { pixels: new Float32Array(3 * 32 * 32).fill(0.5), shape: [1, 3, 32, 32] };
  const picture = { data: new Uint8Array(40 * 36 * 3).fill(99), width: 40, height: 36, channels: 3 as const };
  const samples: number[] = [];
  for (let sample = 0; sample < kSamples; sample++) {
    for (let i = 0; i < Number(count) / kSamples; i++) {
      const tensors = [
        await clip.encodeImage(pixels),
        await clip.encodeImage(picture, { normalize: true }),
        await clip.encodeText({ inputIds: [[1, 2 + (i % 100), 511]] }),
      ];
      if (i % 2 === 0) await Promise.all(tensors.map((tensor) => tensor.read()));
      for (const tensor of tensors) tensor.dispose();
    }
    await collect();
    samples.push(heldBytes());
  }
  print({ encodes: 3 * Number(count), growth: growth(samples), samples, tensors: device('cpu').memory().tensors });
}

main();
