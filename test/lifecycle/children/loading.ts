// loading WARM FOLDER: the peak of resident memory while FOLDER is loaded, in a process that has loaded WARM before.
import { CLIP } from '../../../lib';
import { collect, forgetPeak, peakBytes, print, residentBytes } from './measure';

const [warm = '', folder = ''] = process.argv.slice(2);

async function main(): Promise<void> {
  (await CLIP.fromPretrained(warm, { device: 'cpu' })).dispose();
  await collect();
  forgetPeak();
  const before = residentBytes();
  const clip = await CLIP.fromPretrained(folder, { device: 'cpu' });
  print({ peak: peakBytes() - before, weights: clip.memoryUsage().weights });
}

main();
