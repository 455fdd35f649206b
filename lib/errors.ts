import type { Shape } from './shape';

/** Stable identifiers: code may switch on them; messages are for people and may change. */
export type ErrorCode =
  | 'ERR_ARGUMENT'
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_DEVICE'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_CHECKPOINT'
  | 'ERR_CONFIG'
  | 'ERR_IMAGE'
  | 'ERR_TOKENIZER'
  | 'ERR_DISPOSED'
  | 'ERR_ABORTED'
  | 'ERR_OVERLOADED'
  | 'ERR_DEVICE_LOST'
  | 'ERR_ADDON'
  | 'ERR_INTERNAL';

/** The one class of errors that warpsight throws; `cause` keeps the original error where there was one. */
export class WarpsightError extends Error {
  override readonly name = 'WarpsightError';

  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: { readonly cause?: unknown },
  ) {
    super(message, options);
  }
}

/** "linear: inner dimensions must agree: x is [2, 77, 512], weight is [512, 768]" */
export function shapeError(op: string, rule: string, shapes: Readonly<Record<string, Shape>>): WarpsightError {
  const given = Object.entries(shapes).map(([name, shape]) => `${name} is [${shape.join(', ')}]`);
  return new WarpsightError('ERR_SHAPE', `${op}: ${rule}: ${given.join(', ')}`);
}

/** The error that a promise rejects with when its AbortSignal fires; `cause` is the signal's reason. */
export function abortError(signal: AbortSignal): WarpsightError {
  return new WarpsightError('ERR_ABORTED', 'the operation was aborted', { cause: signal.reason });
}
