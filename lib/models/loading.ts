// What all models do alike when they are loaded from a folder.
import { readdir } from 'node:fs/promises';
import { type Checkpoint, openCheckpoint } from '../checkpoint/folder';
import { folderPath } from '../checkpoint/folder-path';
import { resolveCheckpoint } from '../checkpoint/hub';
import type { Naming } from '../checkpoint/names';
import { device as openDevice } from '../device';
import type { Float, Quantization } from '../dtype';
import { abortError, WarpsightError } from '../errors';
import { native } from '../native';
import { ImageProcessor } from '../preprocess/image-processor';
import { Tokenizer } from '../preprocess/tokenizer';
import type { LoadOptions } from './clip';

/** The checkpoint and the device that a call names; the checkpoint's files are open while `use` runs. `what`: the call, in messages. */
export async function withCheckpoint<T>(
  what: string,
  folderOrHubId: string | URL,
  options: LoadOptions,
  naming: Naming | undefined,
  use: (opened: { readonly checkpoint: Checkpoint; readonly folder: string; readonly device: string }) => Promise<T>,
): Promise<T> {
  const { signal, revision, cacheDir, localFilesOnly } = options;
  if (signal?.aborted) throw abortError(signal);
  const { name: device } = openDevice(options.device ?? 'auto');
  const folder = await resolveCheckpoint(folderPath(what, folderOrHubId), { revision, cacheDir, localFilesOnly });
  const checkpoint = await openCheckpoint(folder, (paths) => native.openCheckpoint(paths), naming);
  try {
    return await use({ checkpoint, folder, device });
  } finally {
    native.dispose(checkpoint.handle);
  }
}

/** A checkpoint without preprocessor_config.json takes pre-processed pixels only. */
export async function imageProcessorOf(folder: string): Promise<ImageProcessor | undefined> {
  try {
    return await ImageProcessor.fromPretrained(folder);
  } catch (error) {
    if (error instanceof WarpsightError && error.code === 'ERR_CHECKPOINT') return undefined;
    throw error;
  }
}

/** A checkpoint without tokenizer files takes ids only. */
export async function tokenizerOf(folder: string, signal: AbortSignal | undefined): Promise<Tokenizer | undefined> {
  const names = new Set(await readdir(folder));
  if (!['tokenizer.json', 'vocab.json', 'vocab.txt'].some((name) => names.has(name))) return undefined;
  return Tokenizer.fromPretrained(folder, signal ? { signal } : {});
}

/** The dtype that a model multiplies in; whether a CPU can do so in bfloat16 is its backend's to say, when the first weight is made. */
export function chooseDtype(asked: Float | 'auto', device: string, stored: string | undefined): Float {
  if (!['auto', 'float32', 'float16', 'bfloat16'].includes(asked)) {
    throw new WarpsightError(
      'ERR_DTYPE',
      `dtype must be 'auto', 'float32', 'float16' or 'bfloat16': it is ${JSON.stringify(asked)}`,
    );
  }
  if (device === 'cpu') {
    if (asked !== 'float16') return asked === 'auto' ? 'float32' : asked;
    throw new WarpsightError(
      'ERR_DTYPE',
      'the CPU multiplies in float32 or bfloat16: float16 needs a CUDA device (weights stay in their stored type in float32)',
    );
  }
  if (asked !== 'auto') return asked;
  return stored === 'BF16' ? 'bfloat16' : 'float16';
}

/** @throws {WarpsightError} ERR_CONFIG for what there is no such thing as, or not on this device */
export function chooseQuantization(asked: Quantization = 'none', device: string): Quantization {
  if (asked !== 'none' && asked !== 'int8') {
    throw new WarpsightError('ERR_CONFIG', `quantization must be 'none' or 'int8': it is ${JSON.stringify(asked)}`);
  }
  if (asked === 'none' || device === 'cpu') return asked;
  throw new WarpsightError('ERR_CONFIG', `quantization 'int8' is for the CPU: ${device} has no kernels for it`);
}

/** @throws {WarpsightError} ERR_TOKENIZER if it knows ids that the model has no embedding for */
export function checkTokenizer(tokenizer: Tokenizer | undefined, vocabularySize: number, folder: string): void {
  if (!tokenizer || tokenizer.largestId < vocabularySize) return;
  throw new WarpsightError(
    'ERR_TOKENIZER',
    `checkpoint ${folder}: the tokenizer has ids up to ${tokenizer.largestId}, the model's vocabulary has ${vocabularySize}`,
  );
}
