import type { CLIP } from '../models/clip';
import { type Arguments, UsageError } from './arguments';
import { waitFor } from './terminal';

/** The model that --model, --device, --dtype and --threads ask for. */
export async function loadModel(args: Arguments, folder = args.text('model')): Promise<CLIP> {
  const device = deviceName(args);
  const dtype = args.choice('dtype', ['auto', 'float32', 'float16', 'bfloat16']) ?? 'auto';
  const threads = args.count('threads', 1024);
  const { CLIP, setThreads } = await import('../index.js'); // late: --help and usage errors need no addon
  if (threads !== undefined) setThreads(threads);
  return waitFor(`loading ${folder ?? 'the model that ships'}`, CLIP.fromPretrained(folder, { device, dtype }));
}

function deviceName(args: Arguments): 'auto' | 'cpu' | 'cuda' | `cuda:${number}` {
  const text = args.text('device') ?? 'auto';
  if (text === 'auto' || text === 'cpu' || text === 'cuda') return text;
  const index = /^cuda:(\d{1,3})$/.exec(text)?.[1];
  if (index !== undefined) return `cuda:${Number(index)}`;
  throw new UsageError(`--device must be auto, cpu, cuda or cuda:N: it is ${JSON.stringify(text)}`);
}
