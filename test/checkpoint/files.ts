import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { type ErrorCode, WarpsightError } from '../../lib/errors';
import { elements, type Shape } from '../../lib/shape';

/** Folders that exist while a test runs. */
export class TemporaryFolders {
  readonly #made: string[] = [];

  make(files: Readonly<Record<string, string | Uint8Array | object>> = {}): string {
    const folder = realpathSync(mkdtempSync(join(tmpdir(), "warpsight 'é' ")));
    this.#made.push(folder);
    for (const [name, content] of Object.entries(files)) write(join(folder, name), content);
    return folder;
  }

  removeAll(): void {
    for (const folder of this.#made.splice(0)) rmSync(folder, { recursive: true });
  }
}

/** Text and bytes as they are, anything else as JSON; folders on the way are made. */
export function write(path: string, content: string | Uint8Array | object): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content));
}

export interface StoredShape {
  readonly dtype: 'F32' | 'F16' | 'BF16' | 'I64';
  readonly shape: Shape;
}

const sizes = { F32: 4, F16: 2, BF16: 2, I64: 8 };

/** A safetensors file of zeros; a header of text is taken as it is, in front of `data` bytes. */
export function safetensors(header: Readonly<Record<string, StoredShape>> | string, data = 0): Buffer {
  let end = 0;
  const entries = typeof header === 'string' ? [] : Object.entries(header);
  const placed = entries.map(([name, { dtype, shape }]) => {
    const begin = end;
    end += elements(shape) * sizes[dtype];
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(Object.fromEntries(placed)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, Buffer.alloc(end + data)]);
}

/** One float32 tensor of the given names each. */
export function floats(...names: string[]): Buffer {
  return safetensors(Object.fromEntries(names.map((name) => [name, { dtype: 'F32', shape: [1] }])));
}

export function errorOf(act: () => unknown): WarpsightError {
  try {
    act();
  } catch (error) {
    if (error instanceof WarpsightError) return error;
    throw error;
  }
  throw new Error('no error was thrown');
}

/** Code and whole message of what a call throws. */
export function expectError(act: () => unknown, code: ErrorCode, message: string): void {
  const error = errorOf(act);
  expect(error.message).to.equal(message);
  expect(error.code).to.equal(code);
}

/** Code and whole message of what a promise rejects with. */
export async function expectRejection(promise: Promise<unknown>, code: ErrorCode, message: string | RegExp): Promise<void> {
  const outcome = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(outcome instanceof WarpsightError)) throw new Error(`no WarpsightError, but ${String(outcome)}`);
  if (typeof message === 'string') expect(outcome.message).to.equal(message);
  else expect(outcome.message).to.match(message);
  expect(outcome.code).to.equal(code);
}
