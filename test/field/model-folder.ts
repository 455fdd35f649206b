// Checkpoints of any shape with seeded random weights, as Hugging Face folders; the numbers stay at hand for the reference.
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fromFloat16Bits } from '../../bench/stored-numbers';
import { parseClipModelConfig } from '../../lib/models/clip-config';
import { clipTensors } from '../../lib/models/clip-tensors';
import { elements, type Shape } from '../../lib/shape';
import { normal, toBfloat16Bits, toFloat16Bits } from '../support/numbers';

export type Json = Record<string, unknown>;
export type StoredDType = 'F32' | 'F16' | 'BF16';

/** Text and bytes as they are, anything else as JSON. */
export type Files = Readonly<Record<string, string | object>>;

/** A tensor as the file holds it: the values are exactly those that were stored. */
export interface Stored {
  readonly shape: Shape;
  readonly values: Float32Array;
}

export type Tensors = Map<string, Stored>;

/** A CLIP of a few thousand numbers. The largest id, 99, is no end mark; 98 is. */
export function tinyClip(fields: { readonly text?: Json; readonly vision?: Json; readonly top?: Json } = {}): Json {
  const tower = { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2 };
  return {
    model_type: 'clip',
    projection_dim: 12,
    text_config: { ...tower, vocab_size: 100, max_position_embeddings: 16, eos_token_id: 98, ...fields.text },
    vision_config: { ...tower, image_size: 16, patch_size: 8, ...fields.vision },
    ...fields.top,
  };
}

export function tinySiglip(fields: { readonly text?: Json; readonly vision?: Json; readonly top?: Json } = {}): Json {
  const tower = { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2 };
  return {
    model_type: 'siglip',
    text_config: { ...tower, vocab_size: 100, max_position_embeddings: 16, ...fields.text },
    vision_config: { ...tower, image_size: 16, patch_size: 8, ...fields.vision },
    ...fields.top,
  };
}

/** Every tensor that the config asks for; `dtype` is what the numbers are rounded to. */
export function randomTensors(config: Json, options: { readonly seed?: number; readonly dtype?: StoredDType } = {}): Tensors {
  return randomOf(clipTensors(parseClipModelConfig(config)), options);
}

/** Seeded numbers for tensors by name and shape, of a size that keeps activations near one. */
export function randomOf(
  wanted: Iterable<readonly [name: string, shape: Shape]>,
  { seed = 1, dtype = 'F32' }: { readonly seed?: number; readonly dtype?: StoredDType } = {},
): Tensors {
  const tensors: Tensors = new Map();
  let n = 0;
  for (const [name, shape] of wanted) {
    const count = elements(shape);
    const width = shape.length > 1 ? count / shape[0]! : 1;
    const random = normal(count, seed * 1000 + n++, /embed|probe/.test(name) ? 0.5 : 1 / Math.sqrt(width));
    if (/norm\w*\.weight$/i.test(name)) for (let i = 0; i < count; i++) random[i] = 1 + 0.2 * random[i]!;
    else if (/bias$/.test(name)) for (let i = 0; i < count; i++) random[i] = 0.2 * random[i]!;
    if (name === 'logit_scale') random[0] = 2.6592;
    if (name === 'logit_bias') random[0] = -1.5;
    tensors.set(name, { shape, values: widened(rounded(random, dtype), dtype) });
  }
  return tensors;
}

type Bits = Float32Array | Uint16Array;

function rounded(values: Float32Array, dtype: StoredDType): Bits {
  switch (dtype) {
    case 'F32':
      return values;
    case 'F16':
      return toFloat16Bits(values);
    case 'BF16':
      return toBfloat16Bits(values);
  }
}

function widened(bits: Bits, dtype: StoredDType): Float32Array {
  switch (dtype) {
    case 'F32':
      return Float32Array.from(bits);
    case 'F16':
      return Float32Array.from(bits, fromFloat16Bits);
    case 'BF16':
      return new Float32Array(Uint32Array.from(bits, (word) => word * 65_536).buffer);
  }
}

/**
 * A safetensors file.
 *
 * @param options.headerPadding spaces behind the header: an odd length of it makes every tensor unaligned
 */
export function safetensorsFile(
  tensors: ReadonlyMap<string, Stored>,
  options: { readonly dtype?: StoredDType; readonly headerPadding?: number } = {},
): Buffer {
  const { dtype = 'F32', headerPadding = 0 } = options;
  let end = 0;
  const pieces: Buffer[] = [];
  const header = Object.fromEntries(
    [...tensors].map(([name, { shape, values }]) => {
      const bits = rounded(values, dtype);
      pieces.push(Buffer.from(bits.buffer, bits.byteOffset, bits.byteLength));
      const begin = end;
      end += bits.byteLength;
      return [name, { dtype, shape, data_offsets: [begin, end] }];
    }),
  );
  const text = Buffer.from(JSON.stringify(header) + ' '.repeat(headerPadding));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...pieces]);
}

/** Folders that go away after the suite that asked for them. */
export class ModelFolders {
  readonly #made: string[] = [];

  constructor() {
    after(() => this.removeAll());
  }

  make(files: Files): string {
    const folder = realpathSync(mkdtempSync(join(tmpdir(), 'warpsight-field-')));
    this.#made.push(folder);
    for (const [name, content] of Object.entries(files)) {
      const bytes = typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content);
      writeFileSync(join(folder, name), bytes);
    }
    return folder;
  }

  /** A checkpoint of a config; `files` are added, or replace what would be there. */
  model(
    config: Json,
    options: {
      readonly tensors?: Tensors;
      readonly dtype?: StoredDType;
      readonly files?: Files;
    } = {},
  ): string {
    const { dtype = 'F32', tensors = randomTensors(config, { dtype }), files = {} } = options;
    return this.make({ 'config.json': config, 'model.safetensors': safetensorsFile(tensors, { dtype }), ...files });
  }

  removeAll(): void {
    for (const folder of this.#made.splice(0)) rmSync(folder, { recursive: true, force: true });
  }
}

/** A CLIP tokenizer whose vocabulary is letters: "a cat" is one token for each letter. Ids: letters from 0, with </w> from 26, marks last. */
export const kLetterTokenizer = letterTokenizer();

function letterTokenizer(): {
  readonly 'vocab.json': string;
  readonly 'merges.txt': string;
  readonly 'tokenizer_config.json': string;
} {
  const letters = Array.from('abcdefghijklmnopqrstuvwxyz');
  const tokens = [...letters, ...letters.map((letter) => `${letter}</w>`), '<|startoftext|>', '<|endoftext|>'];
  const vocabulary = Object.fromEntries(tokens.map((token, id) => [token, id]));
  return {
    'vocab.json': JSON.stringify(vocabulary),
    'merges.txt': '#version: 0.2\n',
    'tokenizer_config.json': JSON.stringify({ tokenizer_class: 'CLIPTokenizer' }),
  };
}

/** Of `kLetterTokenizer`. */
export const kLetterMarks = { start: 52, end: 53, size: 54 } as const;
