// node dist/bench/cuda-encode.js [SIZE] [RUNS]: encodes of a CLIP with random weights (make-checkpoint.ts; vit-b-32 by default) on cuda:0, from
// numbers in host memory to features in host memory, warm: the median and the 90th percentile of RUNS (50), and how many a second.
// Prints the table and writes cuda-encode.md to $OUT or bench/results.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CLIP, type Float, type Tensor } from '../lib';
import { writeTable } from './cuda-table';
import { kSizes, makeCheckpoint } from './make-checkpoint';

async function main(name: string, runs: number): Promise<void> {
  const size = kSizes[name];
  if (!size) throw new Error(`SIZE is one of ${Object.keys(kSizes).join(', ')}: it is ${name}`);
  const folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  const rows: string[][] = [];
  try {
    makeCheckpoint(folder, size, { dtype: 'F16' });
    for (const dtype of ['float32', 'float16', 'bfloat16'] satisfies Float[]) {
      using clip = await CLIP.fromPretrained(folder, { device: 'cuda', dtype });
      const { image } = size.vision;
      const { vocabulary, context } = size.text;
      for (const n of [1, 8, 32]) {
        const pixels = new Float32Array(n * 3 * image * image).fill(0.5);
        const ids = Array.from({ length: n }, (_, i) =>
          Int32Array.from({ length: Math.min(8, context) }, (_, t) =>
            t === 7 ? vocabulary - 1 : (31 * i + 7 * t) % (vocabulary - 2),
          ),
        );
        const works: [string, () => Promise<Tensor>][] = [
          [`image ${image} x ${image}`, () => clip.encodeImage({ pixels, shape: [n, 3, image, image] })],
          ['text of 8 tokens', () => clip.encodeText({ inputIds: ids })],
        ];
        for (const [what, encode] of works) {
          const ms = await times(encode, runs);
          const median = ms[Math.floor(runs / 2)]!;
          const late = ms[Math.floor(runs * 0.9)]!;
          rows.push([what, String(n), dtype, median.toFixed(3), late.toFixed(3), ((1000 * n) / median).toFixed(0)]);
        }
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  writeTable(`cuda-encode-${name}`, ['input', 'batch', 'dtype', 'median ms', '90 % ms', 'per second'], rows);
}

/** Milliseconds of each run, rising; three go before. */
async function times(encode: () => Promise<Tensor>, runs: number): Promise<number[]> {
  const ms: number[] = [];
  for (let i = -3; i < runs; i++) {
    const begun = performance.now();
    const features = await encode();
    await features.read();
    if (i >= 0) ms.push(performance.now() - begun);
    features.dispose();
  }
  return ms.sort((a, b) => a - b);
}

void main(process.argv[2] ?? 'vit-b-32', Number(process.argv[3] ?? 50));
