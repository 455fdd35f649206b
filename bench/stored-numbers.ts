import { closeSync, openSync, readSync } from 'node:fs';

/** A safetensors file of float32 tensors that we wrote ourselves. */
export class StoredNumbers {
  readonly #header: Readonly<Record<string, { readonly shape: number[]; readonly data_offsets: readonly [number, number] }>>;
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
    const [begin, end] = this.#header[name]!.data_offsets;
    const { buffer, byteOffset } = readPart(this.path, this.#dataStart + begin, end - begin);
    return new Float32Array(buffer, byteOffset, (end - begin) / 4);
  }
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
