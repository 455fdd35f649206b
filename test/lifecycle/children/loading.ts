// loading CLIP|LLaVA WARM FOLDER: the peak of resident memory while FOLDER is loaded, in a process that has loaded WARM before.
import { CLIP, LLaVA } from '../../../lib';
import { collect, forgetPeak, peakBytes, print, residentBytes } from './measure';

const [kind, warm = '', folder = ''] = process.argv.slice(2);
const load = (path: string): Promise<CLIP | LLaVA> => (kind === 'LLaVA' ? LLaVA : CLIP).fromPretrained(path, { device: 'cpu' });

async function main(): Promise<void> {
  (await load(warm)).dispose();
  await collect();
  forgetPeak();
  const before = residentBytes();
  const model = await load(folder);
  print({ peak: peakBytes() - before, weights: model.memoryUsage().weights });
}

main();
