import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from 'mocha';
import type { TypedArray } from '../../lib/native';
import { packageRoot } from '../../lib/native';

/** Checkpoints, inputs and expected values made by independent references; see README.md there. */
export const fixtures = process.env.WARPSIGHT_FIXTURES ?? join(packageRoot, '..', 'shared', 'fixtures');

/** Real tokenizers and pictures. */
export const data = process.env.WARPSIGHT_DATA ?? join(packageRoot, '..', 'shared', 'data');

/** Skips the test, and says why, where the fixtures are not there. */
export function needsFixtures(test: Context): void {
  if (existsSync(fixtures)) return;
  console.log(`skipped: there is no folder ${fixtures}; WARPSIGHT_FIXTURES names another`);
  test.skip();
}

export interface Numbers {
  readonly shape: readonly number[];
  readonly dtype: 'F32' | 'F16' | 'BF16' | 'I32' | 'U8' | 'I64';
  readonly data: TypedArray;
}

/** A plain reader for files that we trust; the product's own is native/src/safetensors.cpp. */
export function readSafetensors(path: string): Map<string, Numbers> {
  const file = readFileSync(path);
  const headerLength = Number(file.readBigUInt64LE(0));
  const header: Record<string, { dtype: Numbers['dtype']; shape: number[]; data_offsets: [number, number] }> = JSON.parse(
    file.subarray(8, 8 + headerLength).toString(),
  );
  const tensors = new Map<string, Numbers>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [begin, end] = data_offsets;
    const bytes = Uint8Array.prototype.slice.call(file, 8 + headerLength + begin, 8 + headerLength + end);
    tensors.set(name, { shape, dtype, data: view(dtype, bytes) });
  }
  return tensors;
}

function view(dtype: Numbers['dtype'], { buffer }: Uint8Array): TypedArray {
  switch (dtype) {
    case 'F32':
      return new Float32Array(buffer);
    case 'I32':
      return new Int32Array(buffer);
    case 'F16':
    case 'BF16':
      return new Uint16Array(buffer);
    case 'U8':
    case 'I64':
      return new Uint8Array(buffer);
  }
}

export function readFixture(folder: string, file: string): Map<string, Numbers> {
  return readSafetensors(join(fixtures, folder, `${file}.safetensors`));
}

export function readMeta<T>(folder: string): T {
  return JSON.parse(readFileSync(join(fixtures, folder, 'meta.json'), 'utf8'));
}
