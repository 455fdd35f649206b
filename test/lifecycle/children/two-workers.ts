// two-workers MICRO: the same model in the main thread and in two workers at once, on the same inputs.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { CLIP, device } from '../../../lib';
import { print } from './measure';

const kRuns = 50;

async function results(folder: string): Promise<string[]> {
  const clip = await CLIP.fromPretrained(folder, { device: 'cpu' });
  const seen = new Set<string>();
  for (let i = 0; i < kRuns; i++) {
    const pixels = Float32Array.from({ length: 3 * 32 * 32 }, (_, j) => Math.sin(j));
    const image = await clip.encodeImage({ pixels, shape: [1, 3, 32, 32] });
    const text = await clip.encodeText({ inputIds: [[1, 2, 3, 511]] });
    const numbers = await Promise.all([image.read(), text.read()]);
    seen.add(numbers.map((array) => Buffer.from(array.buffer).toString('hex')).join(' '));
  }
  return [...seen];
}

async function main(): Promise<void> {
  const [folder = ''] = process.argv.slice(2);
  const inWorkers = [1, 2].map(() => {
    const worker = new Worker(__filename, { workerData: folder });
    return new Promise<string[]>((resolve, reject) => {
      worker.on('message', resolve);
      worker.on('error', reject);
    });
  });
  const all = await Promise.all([results(folder), ...inWorkers]);
  const clip = await CLIP.fromPretrained(folder, { device: 'cpu' });
  print({ different: new Set(all.flat()).size, weights: device('cpu').memory().weights, oneModel: clip.memoryUsage().weights });
  process.exit(0);
}

if (isMainThread) main();
else
  results(workerData).then((seen) => {
    parentPort?.postMessage(seen);
    parentPort?.on('message', () => undefined); // stays, with its weights
  });
