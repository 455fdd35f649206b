import { closeSync, openSync, readSync } from 'node:fs';

/** A safetensors file of float32 or float16 tensors that we wrote ourselves. */
export class StoredNumbers {
  readonly #header: Readonly<Record<string, StoredTensor>>;
  readonly #dataStart: number;

  constructor(readonly path: string) {
    const length = Number(readPart(path, 0, 8).readBigUInt64LE());
    this.#header = JSON.parse(readPart(path, 8, length).toString());
    this.#dataStart = 8 + length;
  }

  shape(name: string): readonly number[] {
    return this.#header[name]!.shape;
  }

  read(name: string): Float32Array {
    const { dtype, data_offsets } = this.#header[name]!;
    const [begin, end] = data_offsets;
    const { buffer, byteOffset } = readPart(this.path, this.#dataStart + begin, end - begin);
    if (dtype === 'F16') return Float32Array.from(new Uint16Array(buffer, byteOffset, (end - begin) / 2), fromFloat16Bits);
    return new Float32Array(buffer, byteOffset, (end - begin) / 4);
  }
}

interface StoredTensor {
  readonly dtype: 'F32' | 'F16';
  readonly shape: number[];
  readonly data_offsets: readonly [number, number];
}

/** The number that these bits are in float16. */
export function fromFloat16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}

function readPart(path: string, position: number, length: number): Buffer {
  const part = Buffer.alloc(length);
  const file = openSync(path, 'r');
  try {
    if (readSync(file, part, 0, length, position) < length) throw new Error(`${path} ends before byte ${position + length}`);
  } finally {
    closeSync(file);
  }
  return part;
}
