// generations FOLDER COUNT: generates COUNT times, four at once, each stopped in one of the ways there are.
import { device, LLaVA } from '../../../lib';
import { generateAndStop } from '../../support/generations';
import { collect, growth, heldBytes, print } from './measure';

const [folder = '', count = '0'] = process.argv.slice(2);
const kSamples = 20;

async function main(): Promise<void> {
  const llava = await LLaVA.fromPretrained(folder, { device: 'cpu', cacheTokens: 1024 });
  const images = { pixels: new Float32Array(2 * 3 * 32 * 32).fill(0.5), shape: [2, 3, 32, 32] };
  const prompt = `<image> and <image> ${'word '.repeat(30)}`;
  const generate = (i: number) => generateAndStop(llava, i, { prompt, images });
  const samples: number[] = [];
  for (let sample = 0; sample < kSamples; sample++) {
    for (let i = 0; i < Number(count) / kSamples; i += 4) await Promise.all([i, i + 1, i + 2, i + 3].map(generate));
    await collect();
    samples.push(heldBytes());
  }
  llava.dispose(); // its cache of keys and values is a tensor too
  await collect();
  print({ growth: growth(samples), samples, tensors: device('cpu').memory().tensors });
}

main();
