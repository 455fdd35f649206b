import { readFile } from 'node:fs/promises';
import { WarpsightError } from '../errors';
import { UsageError } from './arguments';
import { Progress, printable } from './terminal';

/** Inputs that go to the model at a time. */
const kBatch = 32;

/** What the model made of one input, or why it could not. */
export type Outcome<T> =
  | { readonly input: string; readonly value: T }
  | { readonly input: string; readonly error: WarpsightError };

/** The paths of the command line; '-' stands for a list on stdin. */
export async function picturePaths(operands: readonly string[]): Promise<string[]> {
  if (operands.filter((path) => path === '-').length > 1) throw new UsageError('"-" (a list of paths on stdin) is given twice');
  const lists = await Promise.all(operands.map(async (path) => (path === '-' ? linesOf('stdin', await readStdin()) : [path])));
  const paths = lists.flat();
  if (paths.length === 0) throw new UsageError('no pictures: give paths, or "-" and a list of paths on stdin');
  return paths;
}

/** The lines of a text file that are not blank. */
export async function readLines(path: string): Promise<string[]> {
  try {
    return linesOf(path, await readFile(path));
  } catch (cause) {
    if (cause instanceof WarpsightError || !(cause instanceof Error)) throw cause;
    const missing = 'code' in cause && cause.code === 'ENOENT';
    throw new WarpsightError('ERR_CHECKPOINT', `${path}: ${missing ? 'no such file' : `cannot be read: ${cause.message}`}`, {
      cause,
    });
  }
}

async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

/** One entry a line; or between NUL bytes, as `find -print0` writes them. */
function linesOf(name: string, bytes: Buffer): string[] {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new UsageError(`${name} must hold UTF-8 text, one entry a line`, { cause });
  }
  return text.split(text.includes('\0') ? '\0' : /\r?\n/).filter((line) => line.trim() !== '');
}

/**
 * Runs `work` on batches. A picture that can't be read doesn't stop the others: its batch is run again one by one, and it is reported on
 * stderr. Any other error ends the run.
 */
export async function* inBatches<T>(
  inputs: readonly string[],
  work: (batch: string[]) => Promise<readonly T[]>,
): AsyncGenerator<Outcome<T>> {
  const progress = new Progress();
  for (let start = 0; start < inputs.length; start += kBatch) {
    for (const outcome of await oneBatch(inputs.slice(start, start + kBatch), work)) {
      if ('error' in outcome) {
        progress.clear();
        process.stderr.write(`warpsight: ${printable(outcome.error.message)}\n`);
      }
      yield outcome;
    }
    progress.update(`${Math.min(start + kBatch, inputs.length)} of ${inputs.length}`);
  }
  progress.clear();
}

async function oneBatch<T>(batch: string[], work: (batch: string[]) => Promise<readonly T[]>): Promise<Outcome<T>[]> {
  try {
    const values = await work(batch);
    return batch.map((input, i) => ({ input, value: values[i]! }));
  } catch (error) {
    if (!(error instanceof WarpsightError) || error.code !== 'ERR_IMAGE') throw error;
    const [input] = batch;
    if (batch.length === 1 && input !== undefined) return [{ input, error }];
    const outcomes: Outcome<T>[] = [];
    for (const each of batch) outcomes.push(...(await oneBatch([each], work)));
    return outcomes;
  }
}
