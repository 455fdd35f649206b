import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { type ErrorCode, WarpsightError } from '../errors';

/** How a value stands in a message: `"twelve"`, `3.5`, `null`, `[1, 2]`; cut after 80 characters. */
export function shown(value: unknown): string {
  const text = value === undefined ? 'missing' : (JSON.stringify(value) ?? String(value)).replaceAll(',', ', ');
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}

/**
 * One object of a JSON file, read field by field. A field that is absent or null takes the default; without a default it is an error.
 * Errors name file, field, rule and value: `config.json: vision_config.hidden_size must be an integer from 1 to 65536: it is "wide"`.
 */
export class JsonObject {
  constructor(
    /** As messages name it. */
    readonly file: string,
    /** '' or 'vision_config.' */
    readonly prefix: string,
    readonly fields: Readonly<Record<string, unknown>>,
    readonly code: ErrorCode = 'ERR_CONFIG',
  ) {}

  /** @throws {WarpsightError} where `value` is no object */
  static parse(file: string, value: unknown, code: ErrorCode = 'ERR_CONFIG'): JsonObject {
    if (isRecord(value)) return new JsonObject(file, '', value, code);
    throw new WarpsightError(code, `${file} must hold an object: it holds ${shown(value)}`);
  }

  /** Undefined if the field is absent or null. */
  get(name: string): unknown {
    return Object.hasOwn(this.fields, name) ? (this.fields[name] ?? undefined) : undefined;
  }

  /** An error about a field: `must` is the rule, the value is added. */
  error(name: string, must: string): WarpsightError {
    const value = this.get(name);
    const given = value === undefined ? 'it is missing' : `it is ${shown(value)}`;
    return new WarpsightError(this.code, `${this.file}: ${this.prefix}${name} must be ${must}: ${given}`);
  }

  integer(name: string, min: number, max: number, otherwise?: number): number {
    const value = this.get(name) ?? otherwise;
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
    throw this.error(name, `an integer from ${min} to ${max}`);
  }

  number(name: string, min: number, max: number, otherwise?: number): number {
    const value = this.get(name) ?? otherwise;
    if (typeof value === 'number' && value >= min && value <= max) return value;
    throw this.error(name, `a number from ${min} to ${max}`);
  }

  boolean(name: string, otherwise?: boolean): boolean {
    const value = this.get(name) ?? otherwise;
    if (typeof value === 'boolean') return value;
    throw this.error(name, 'true or false');
  }

  /** One of the keys of `choices`, as what it stands for. */
  choice<T>(name: string, choices: Readonly<Record<string, T>>, otherwise?: string): T {
    const value = this.get(name) ?? otherwise;
    if (typeof value === 'string' && Object.hasOwn(choices, value)) return choices[value]!;
    throw this.error(name, `one of ${Object.keys(choices).join(', ')}`);
  }

  string(name: string): string | undefined {
    const value = this.get(name);
    if (value === undefined || typeof value === 'string') return value;
    throw this.error(name, 'a string');
  }

  /** Undefined if the field is absent or null. */
  object(name: string): JsonObject | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (isRecord(value)) return new JsonObject(this.file, `${this.prefix}${name}.`, value, this.code);
    throw this.error(name, 'an object');
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * A JSON file of limited size. A folder or a named pipe is refused without waiting for it.
 *
 * @returns undefined if there is no such file
 * @throws {WarpsightError} `code`, with the path: not a file, too large, not UTF-8, not JSON
 */
export async function readJson(path: string, maxBytes: number, code: ErrorCode): Promise<unknown> {
  const bytes = await readBounded(path, maxBytes, code);
  if (bytes === undefined) return undefined;
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new WarpsightError(code, `${path} is not JSON: ${reason(cause)}`, { cause });
  }
}

async function readBounded(path: string, maxBytes: number, code: ErrorCode): Promise<Uint8Array | undefined> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (cause) {
    if (isMissing(cause)) return undefined;
    throw new WarpsightError(code, `${path} cannot be read: ${reason(cause)}`, { cause });
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new WarpsightError(code, `${path} is not a regular file`);
    if (stat.size > maxBytes) throw new WarpsightError(code, `${path} has ${stat.size} bytes; at most ${maxBytes} are read`);
    const buffer = new Uint8Array(stat.size);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return buffer.subarray(0, length);
  } catch (cause) {
    if (cause instanceof WarpsightError) throw cause;
    throw new WarpsightError(code, `${path} cannot be read: ${reason(cause)}`, { cause });
  } finally {
    await file.close();
  }
}

/** Whether a file system error says that there is no such file or folder. */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');
}

export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
