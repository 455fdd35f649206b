// node dist/bench/make-checkpoint.js SIZE FOLDER [F32|F16|BF16]: a CLIP in Hugging Face format with random weights. It says nothing about any
// picture, but takes the memory and the time that a trained one of its size takes.
import { closeSync, copyFileSync, mkdirSync, openSync, readdirSync, writeFileSync, writeSync } from 'node:fs';
import { join, resolve } from 'node:path';

export interface TowerSize {
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
}

export interface CheckpointSize {
  readonly vision: TowerSize & { readonly image: number; readonly patch: number };
  readonly text: TowerSize & { readonly vocabulary: number; readonly context: number };
  /** Width of the embeddings. */
  readonly projection: number;
}

export type StoredType = 'F32' | 'F16' | 'BF16';

export interface CheckpointOptions {
  readonly dtype?: StoredType;
  /** A folder whose tokenizer files are copied; without it the model takes ids only. */
  readonly tokenizer?: string;
}

const kText = { width: 512, layers: 12, heads: 8, vocabulary: 49_408, context: 77 };

/** Table 20 of Radford et al. 2021; `micro` runs in a fraction of a millisecond, `loading` has 30 million weights and little else. */
export const kSizes: Readonly<Record<string, CheckpointSize>> = {
  micro: {
    vision: { width: 32, layers: 2, heads: 2, image: 32, patch: 16 },
    text: { width: 32, layers: 2, heads: 2, vocabulary: 512, context: 16 },
    projection: 16,
  },
  loading: {
    vision: { width: 768, layers: 3, heads: 12, image: 224, patch: 32 },
    text: { width: 256, layers: 2, heads: 4, vocabulary: 20_000, context: 77 },
    projection: 256,
  },
  'vit-b-32': { vision: { width: 768, layers: 12, heads: 12, image: 224, patch: 32 }, text: kText, projection: 512 },
  'vit-b-16': { vision: { width: 768, layers: 12, heads: 12, image: 224, patch: 16 }, text: kText, projection: 512 },
  'vit-l-14': {
    vision: { width: 1024, layers: 24, heads: 16, image: 224, patch: 14 },
    text: { ...kText, width: 768, heads: 12 },
    projection: 768,
  },
  'vit-l-14-336': {
    vision: { width: 1024, layers: 24, heads: 16, image: 336, patch: 14 },
    text: { ...kText, width: 768, heads: 12 },
    projection: 768,
  },
};

/** Writes config.json, preprocessor_config.json, model.safetensors and, if asked for, a tokenizer; the same bytes each time. */
export function makeCheckpoint(folder: string, size: CheckpointSize, { dtype = 'F32', tokenizer }: CheckpointOptions = {}): void {
  mkdirSync(folder, { recursive: true });
  writeJson(join(folder, 'config.json'), config(size));
  writeJson(join(folder, 'preprocessor_config.json'), preprocessor(size.vision.image));
  writeWeights(join(folder, 'model.safetensors'), tensorsOf(size), dtype);
  if (tokenizer === undefined) return;
  for (const name of readdirSync(tokenizer)) {
    if (/^(tokenizer.*|vocab|special_tokens_map|added_tokens)\.json$|^merges\.txt$/.test(name))
      copyFileSync(join(tokenizer, name), join(folder, name));
  }
}

export function writeJson(path: string, value: unknown): void {
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);
}

// ── config ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function config({ vision, text, projection }: CheckpointSize) {
  return {
    architectures: ['CLIPModel'],
    model_type: 'clip',
    projection_dim: projection,
    vision_config: { ...tower(vision), image_size: vision.image, patch_size: vision.patch, num_channels: 3 },
    text_config: {
      ...tower(text),
      vocab_size: text.vocabulary,
      max_position_embeddings: text.context,
      bos_token_id: text.vocabulary - 2,
      eos_token_id: text.vocabulary - 1,
    },
  };
}

export function tower({ width, layers, heads }: TowerSize) {
  return {
    hidden_size: width,
    intermediate_size: 4 * width,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    hidden_act: 'quick_gelu',
    layer_norm_eps: 1e-5,
  };
}

/** As openai/clip-vit-base-patch32 has it. */
export function preprocessor(image: number) {
  return {
    do_resize: true,
    size: image,
    resample: 3,
    do_center_crop: true,
    crop_size: image,
    do_normalize: true,
    image_mean: [0.48145466, 0.4578275, 0.40821073],
    image_std: [0.26862954, 0.26130258, 0.27577711],
  };
}

// ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface TensorSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** random: magnitudes of about 1 / √inputs, either sign */
  readonly fill: 'random' | 'ones' | 'zeros';
}

export function random(name: string, shape: readonly number[]): TensorSpec {
  return { name, shape, fill: 'random' };
}

function norm(name: string, D: number): TensorSpec[] {
  return [
    { name: `${name}.weight`, shape: [D], fill: 'ones' },
    { name: `${name}.bias`, shape: [D], fill: 'zeros' },
  ];
}

export function linear(name: string, rows: number, columns: number): TensorSpec[] {
  return [random(`${name}.weight`, [rows, columns]), { name: `${name}.bias`, shape: [rows], fill: 'zeros' }];
}

function layers(prefix: string, { width: D, layers }: TowerSize): TensorSpec[] {
  return Array.from({ length: layers }, (_, i) => `${prefix}.encoder.layers.${i}`).flatMap((layer) => [
    ...norm(`${layer}.layer_norm1`, D),
    ...['q_proj', 'k_proj', 'v_proj', 'out_proj'].flatMap((part) => linear(`${layer}.self_attn.${part}`, D, D)),
    ...norm(`${layer}.layer_norm2`, D),
    ...linear(`${layer}.mlp.fc1`, 4 * D, D),
    ...linear(`${layer}.mlp.fc2`, D, 4 * D),
  ]);
}

export function visionTensors(vision: CheckpointSize['vision']): TensorSpec[] {
  const { width: Dv, image, patch } = vision;
  return [
    random('vision_model.embeddings.class_embedding', [Dv]),
    random('vision_model.embeddings.patch_embedding.weight', [Dv, 3, patch, patch]),
    random('vision_model.embeddings.position_embedding.weight', [Math.floor(image / patch) ** 2 + 1, Dv]),
    ...norm('vision_model.pre_layrnorm', Dv),
    ...layers('vision_model', vision),
    ...norm('vision_model.post_layernorm', Dv),
  ];
}

/** Every tensor by the names of transformers' `CLIPModel`. */
export function tensorsOf({ vision, text, projection }: CheckpointSize): TensorSpec[] {
  return [
    ...visionTensors(vision),
    random('visual_projection.weight', [projection, vision.width]),
    random('text_model.embeddings.token_embedding.weight', [text.vocabulary, text.width]),
    random('text_model.embeddings.position_embedding.weight', [text.context, text.width]),
    ...layers('text_model', text),
    ...norm('text_model.final_layer_norm', text.width),
    random('text_projection.weight', [projection, text.width]),
    { name: 'logit_scale', shape: [], fill: 'ones' },
  ];
}

/** Sign, exponent and 10 bits of mantissa are chosen, so that every type holds its numbers exactly as drawn. */
interface Encoding {
  readonly bytes: number;
  /** ±(1 + mantissa / 1024) · 2^exponent as bits */
  encode(negative: number, exponent: number, mantissa: number): number;
}

const kEncodings: Readonly<Record<StoredType, Encoding>> = {
  F32: {
    bytes: 4,
    encode: (negative, exponent, mantissa) => ((negative << 31) | ((127 + exponent) << 23) | (mantissa << 13)) >>> 0,
  },
  F16: { bytes: 2, encode: (negative, exponent, mantissa) => (negative << 15) | ((15 + exponent) << 10) | mantissa },
  BF16: { bytes: 2, encode: (negative, exponent, mantissa) => (negative << 15) | ((127 + exponent) << 7) | (mantissa >> 3) },
};

export function writeWeights(path: string, tensors: readonly TensorSpec[], dtype: StoredType, seed = 20_261_125): void {
  const encoding = kEncodings[dtype];
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const { name, shape } of tensors) {
    const begin = end;
    end += count(shape) * encoding.bytes;
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.alloc(Math.ceil(text.length / 8) * 8, ' ');
  text.copy(padded);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));

  const file = openSync(path, 'w');
  try {
    writeSync(file, length);
    writeSync(file, padded);
    const random = generator(seed);
    for (const tensor of tensors) writeSync(file, numbersOf(tensor, encoding, random));
  } finally {
    closeSync(file);
  }
}

/** Larger tensors repeat their first numbers: drawing the billions of a language model would take minutes. */
const kDrawn = 1 << 22;

function numbersOf({ shape, fill }: TensorSpec, { bytes, encode }: Encoding, random: () => number): Uint8Array {
  const numbers = bytes === 4 ? new Uint32Array(count(shape)) : new Uint16Array(count(shape));
  if (fill === 'ones') numbers.fill(encode(0, 0, 0));
  if (fill === 'random') {
    const inputs = count(shape.slice(1));
    const exponent = -Math.round(Math.log2(1.5 * Math.sqrt(inputs))); // magnitudes are 1.5 · 2^exponent on average
    const drawnCount = Math.min(numbers.length, kDrawn);
    for (let i = 0; i < drawnCount; i++) {
      const drawn = random();
      numbers[i] = encode(drawn >>> 31, exponent, drawn & 1023);
    }
    for (let i = kDrawn; i < numbers.length; i *= 2) numbers.copyWithin(i, 0, Math.min(i, numbers.length - i));
  }
  return new Uint8Array(numbers.buffer);
}

/** xorshift32 (Marsaglia 2003) */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function count(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

if (require.main === module) {
  const [name = '', folder, dtype = 'F32'] = process.argv.slice(2);
  const size = kSizes[name];
  if (!size || folder === undefined || !(dtype === 'F32' || dtype === 'F16' || dtype === 'BF16')) {
    console.error(`usage: node dist/bench/make-checkpoint.js ${Object.keys(kSizes).join('|')} FOLDER [F32|F16|BF16]`);
    process.exitCode = 2;
  } else {
    makeCheckpoint(resolve(folder), size, { dtype });
  }
}
