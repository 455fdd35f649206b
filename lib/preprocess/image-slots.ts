import { availableParallelism } from 'node:os';
import { abortError } from '../errors';

// Decoding runs on libuv's threads, which fs, dns and crypto share: one of them is always left to those.
const poolSize = Number(process.env.UV_THREADPOOL_SIZE) || 4;
let free = Math.max(1, Math.min(availableParallelism(), poolSize - 1));
const waiting: (() => void)[] = [];

/** Pictures that can be decoded at a time. */
export const kDecodeSlots = free;

/** Runs `work` when one of the process's decoding slots is free, first come, first served; that bounds memory as well as threads. */
export async function inDecodeSlot<T>(work: () => Promise<T>): Promise<T> {
  if (free > 0) free--;
  else await new Promise<void>((go) => waiting.push(go));
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next === undefined) free++;
    else next();
  }
}

/** The promise, or ERR_ABORTED as soon as the signal fires; the work itself ends in its own time and its result is dropped. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(abortError(signal));
    if (signal.aborted) abort();
    const callbacks = callbacksOf(signal);
    callbacks.add(abort);
    work.then(resolve, reject).finally(() => callbacks.delete(abort));
  });
}

const callbacksBySignal = new WeakMap<AbortSignal, Set<() => void>>();

/** One listener for each signal, however many pictures wait for it: Node warns of a leak from the eleventh on. */
function callbacksOf(signal: AbortSignal): Set<() => void> {
  const known = callbacksBySignal.get(signal);
  if (known !== undefined) return known;
  const callbacks = new Set<() => void>();
  callbacksBySignal.set(signal, callbacks);
  signal.addEventListener(
    'abort',
    () => {
      for (const callback of callbacks) callback();
    },
    { once: true },
  );
  return callbacks;
}
