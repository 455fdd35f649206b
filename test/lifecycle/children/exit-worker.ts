// exit-worker HOW MICRO LARGE ROUNDS: workers end while their work is in flight; the main thread then still computes, and ends.
import { setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { CLIP, device } from '../../../lib';
import { collect, print } from './measure';
import { startWork } from './work';

interface Plan {
  readonly how: string;
  readonly micro: string;
  readonly large: string;
}

async function inWorker({ how, micro, large }: Plan): Promise<void> {
  const { begun } = await startWork(micro, large);
  parentPort?.postMessage('started');
  await begun;
  if (how === 'process.exit()') process.exit(0);
  if (how === 'uncaught exception') throw new Error('planned');
}

/** Starts a worker; fulfilled with how it ended: its exit code, or its error. */
async function round(plan: Plan, delayMs: number): Promise<string> {
  const worker = new Worker(__filename, { workerData: plan });
  const ended = new Promise<string>((resolve) => {
    worker.on('error', ({ message }) => resolve(message));
    worker.on('exit', (code) => resolve(String(code)));
  });
  await new Promise((resolve) => worker.once('message', resolve));
  if (plan.how === 'terminate()') {
    await sleep(delayMs);
    await worker.terminate();
  }
  return ended;
}

async function main(): Promise<void> {
  const [how = '', micro = '', large = '', rounds = '1'] = process.argv.slice(2);
  const plan = { how, micro, large };
  if (how === 'process.exit() in the main thread') {
    void round(plan, 0);
    void round(plan, 0);
    const { begun } = await startWork(micro, large);
    await begun;
    process.exit(0);
  }
  const ends: string[] = [];
  for (let i = 0; i < Number(rounds); i++) {
    ends.push(...(await Promise.all([round(plan, i * 3), round(plan, i * 5)]))); // at another point each time
  }
  const clip = await CLIP.fromPretrained(micro, { device: 'cpu' });
  const text = await clip.encodeText({ inputIds: [[1, 2, 511]] });
  const numbers = await text.read();
  text.dispose();
  clip.dispose();
  const held = () => device('cpu').memory().weights + device('cpu').memory().tensors;
  // A loader's thread ends in its own time.
  for (let i = 0; i < 100 && held() > 0; i++) await collect();
  const { weights, tensors } = device('cpu').memory();
  print({ ends: [...new Set(ends)], finite: numbers.every(Number.isFinite), weights, tensors });
}

if (isMainThread) main();
else inWorker(workerData);
