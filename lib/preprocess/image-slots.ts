import { availableParallelism } from 'node:os';
import { abortError } from '../errors';

// Decoding runs on libuv's threads, which fs, dns and crypto share: one of them is always left to those.
const poolSize = Number(process.env.UV_THREADPOOL_SIZE) || 4;
let free = Math.max(1, Math.min(availableParallelism(), poolSize - 1));
const waiting: (() => void)[] = [];

/** Pictures that can be decoded at a time. */
export const kDecodeSlots = free;

/** Decoding is faster than a model: beyond so many bytes of pixels that wait for one, no further picture is decoded. */
const kMostHeldBytes = 64 << 20;
let heldBytes = 0;

/** Runs `work` when one of the process's decoding slots is free, first come, first served; that bounds memory as well as threads. */
export async function inDecodeSlot<T>(work: () => Promise<T>): Promise<T> {
  await new Promise<void>((go) => {
    waiting.push(go);
    grant();
  });
  try {
    return await work();
  } finally {
    free++;
    grant();
  }
}

/** Decoded pixels have been queued for a model; the same number of bytes is released when it has read them. */
export function holdDecoded(bytes: number): void {
  heldBytes += bytes;
}

export function releaseDecoded(bytes: number): void {
  heldBytes -= bytes;
  grant();
}

function grant(): void {
  while (free > 0 && heldBytes < kMostHeldBytes) {
    const next = waiting.shift();
    if (next === undefined) return;
    free--;
    next();
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
