import { once } from 'node:events';
import { createWriteStream, rmSync, type WriteStream } from 'node:fs';
import { rename } from 'node:fs/promises';
import { endianness } from 'node:os';
import { extname } from 'node:path';
import { WarpsightError } from '../errors';
import { UsageError } from './arguments';
import { stdout } from './terminal';

/** What the rows of a file are. */
export interface Rows {
  readonly kind: 'image' | 'text';
  readonly inputs: readonly string[];
  /** d */
  readonly width: number;
}

export type Format = 'npy' | 'safetensors' | 'jsonl';

/** The format that a file's name asks for. */
export function formatOf(path: string): Format {
  const formats: Readonly<Record<string, Format>> = { '.npy': 'npy', '.safetensors': 'safetensors', '.jsonl': 'jsonl' };
  const format = formats[extname(path).toLowerCase()];
  if (format === undefined) throw new UsageError(`--out must end in .npy, .safetensors or .jsonl: it is ${JSON.stringify(path)}`);
  return format;
}

/** Where features go, a row for each input, in their order. */
export interface FeatureSink {
  /** `features` [d], or why there are none: NaN in a file of numbers, so that row i stays input i. */
  row(input: string, features: Float32Array | WarpsightError): Promise<void>;
  /** Everything is there: the file gets its name. */
  finish(): Promise<void>;
}

export function toStdout({ kind }: Rows): FeatureSink {
  return { row: (input, features) => stdout(jsonLine(kind, input, features)), finish: async () => undefined };
}

/** A file that has its name only once it is complete; before, and after a failure, nothing of that name was touched. */
export async function toFile(path: string, rows: Rows): Promise<FeatureSink> {
  const format = formatOf(path);
  const partial = `${path}.${process.pid}.partial`;
  const stream = createWriteStream(partial);
  process.once('exit', () => rmSync(partial, { force: true }));
  try {
    await once(stream, 'open');
  } catch (cause) {
    throw new WarpsightError(
      'ERR_CHECKPOINT',
      `${path} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
  if (format !== 'jsonl') await write(stream, format === 'npy' ? npyHeader(rows) : safetensorsHeader(rows));
  return {
    row: (input, features) =>
      write(stream, format === 'jsonl' ? jsonLine(rows.kind, input, features) : bytesOf(features, rows.width)),
    async finish() {
      stream.end();
      await once(stream, 'close');
      await rename(partial, path);
    },
  };
}

async function write(stream: WriteStream, data: string | Buffer): Promise<void> {
  if (!stream.write(data)) await once(stream, 'drain');
}

function jsonLine(kind: Rows['kind'], input: string, features: Float32Array | WarpsightError): string {
  if (features instanceof WarpsightError) {
    return `${JSON.stringify({ [kind]: input, error: { code: features.code, message: features.message } })}\n`;
  }
  return `${JSON.stringify({ [kind]: input, embedding: Array.from(features) })}\n`;
}

/** Little-endian float32, as both formats store it. */
function bytesOf(features: Float32Array | WarpsightError, width: number): Buffer {
  const values = features instanceof WarpsightError ? new Float32Array(width).fill(Number.NaN) : Float32Array.from(features);
  const bytes = Buffer.from(values.buffer);
  return endianness() === 'LE' ? bytes : bytes.swap32();
}

// source: numpy.lib.format, version 1.0: magic, version, uint16 length, a Python dict, spaces up to a multiple of 64 bytes, a line feed
function npyHeader({ inputs, width }: Rows): Buffer {
  const dict = `{'descr': '<f4', 'fortran_order': False, 'shape': (${inputs.length}, ${width}), }`;
  const length = Math.ceil((10 + dict.length + 1) / 64) * 64 - 10;
  const start = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, length & 0xff, length >> 8]);
  return Buffer.concat([start, Buffer.from(`${dict.padEnd(length - 1)}\n`, 'latin1')]);
}

// source: the safetensors format: uint64 length, JSON, spaces up to a multiple of 8 bytes
function safetensorsHeader({ kind, inputs, width }: Rows): Buffer {
  const json = Buffer.from(
    JSON.stringify({
      __metadata__: { kind, inputs: JSON.stringify(inputs) },
      embeddings: { dtype: 'F32', shape: [inputs.length, width], data_offsets: [0, inputs.length * width * 4] },
    }),
  );
  const length = Buffer.alloc(8);
  const padding = Buffer.alloc((8 - (json.length % 8)) % 8, ' ');
  length.writeBigUInt64LE(BigInt(json.length + padding.length));
  return Buffer.concat([length, json, padding]);
}
