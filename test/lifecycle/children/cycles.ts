// cycles FOLDER COUNT: loads, encodes and disposes COUNT times.
import { CLIP, device } from '../../../lib';
import { collect, growth, heldBytes, openFiles, print, threadCount } from './measure';

const [folder = '', count = '0'] = process.argv.slice(2);

async function main(): Promise<void> {
  const samples: number[] = [];
  const files: number[] = [];
  const threads: number[] = [];
  for (let i = 0; i < Number(count); i++) {
    const clip = await CLIP.fromPretrained(folder, { device: 'cpu' });
    const text = await clip.encodeText('a red circle');
    await text.read();
    text.dispose();
    clip.dispose();
    if (i % 2 === 0) continue;
    await collect();
    samples.push(heldBytes());
    if (i % 16 === 9) {
      files.push(openFiles());
      threads.push(threadCount());
    }
  }
  const { weights, tensors } = device('cpu').memory();
  print({
    growth: growth(samples),
    samples,
    files,
    threads,
    weights,
    tensors,
  });
}

main();
