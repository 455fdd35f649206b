// What the configs of all towers have in common.
import { JsonObject, shown } from '../checkpoint/json';
import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import type { Activation } from '../ops';

/** A transformer. */
export interface TowerConfig {
  /** D, the width of a token */
  readonly hiddenSize: number;
  /** Width inside the MLP. */
  readonly intermediateSize: number;
  readonly layers: number;
  /** H; D is a multiple of it. */
  readonly heads: number;
  /** Of the MLP. */
  readonly activation: Activation;
  /** Of every layer norm. */
  readonly eps: number;
}

export interface VisionConfig extends TowerConfig {
  /** Height and width of the pictures in pixels. */
  readonly imageSize: number;
  /** Height and width of a patch; ⌊imageSize / patchSize⌋² patches, what is left over at the right and at the bottom is not seen. */
  readonly patchSize: number;
}

export interface TextConfig extends TowerConfig {
  readonly vocabularySize: number;
  /** The most tokens a text may have, its marks included. */
  readonly contextLength: number;
}

// Bounds keep products of sizes far from overflow; real models are a hundred times smaller.
export const kLargestSize = 1_000_000;
const kMostLayers = 1000;
const kMostHeads = 65_536;
const kLargestImage = 16_384;
export const kLargestVocabulary = 100_000_000;

// The names of transformers' activations that mean the same function.
// source: transformers/activations.py, ACT2FN
const activations: Readonly<Record<string, Activation>> = {
  quick_gelu: 'quickGelu',
  gelu: 'gelu',
  gelu_python: 'gelu',
  gelu_new: 'geluTanh',
  gelu_pytorch_tanh: 'geluTanh',
  gelu_python_tanh: 'geluTanh',
  gelu_fast: 'geluTanh',
  gelu_accurate: 'geluTanh',
  relu: 'relu',
  silu: 'silu',
  swish: 'silu',
  tanh: 'tanh',
  sigmoid: 'sigmoid',
  linear: 'none',
};

const dtypes: Readonly<Record<string, Float>> = { float32: 'float32', float16: 'float16', bfloat16: 'bfloat16' };

export interface TowerDefaults {
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly hidden_act: string;
  readonly layer_norm_eps: number;
}

/** The activation that a field names. */
export function activationOf(config: JsonObject, name: string, otherwise: string): Activation {
  return config.choice(name, activations, otherwise);
}

export function towerConfig(fields: JsonObject, defaults: TowerDefaults): TowerConfig {
  const hiddenSize = fields.integer('hidden_size', 1, kLargestSize, defaults.hidden_size);
  const heads = fields.integer('num_attention_heads', 1, kMostHeads, defaults.num_attention_heads);
  if (hiddenSize % heads !== 0) {
    throw new WarpsightError(
      'ERR_CONFIG',
      `${fields.file}: ${fields.prefix}hidden_size must be a multiple of num_attention_heads: it is ${hiddenSize}, with ${heads} heads`,
    );
  }
  return {
    hiddenSize,
    heads,
    intermediateSize: fields.integer('intermediate_size', 1, kLargestSize, defaults.intermediate_size),
    layers: fields.integer('num_hidden_layers', 1, kMostLayers, defaults.num_hidden_layers),
    activation: fields.choice('hidden_act', activations, defaults.hidden_act),
    eps: fields.number('layer_norm_eps', 0, 1, defaults.layer_norm_eps),
  };
}

export function visionConfig(
  fields: JsonObject,
  defaults: TowerDefaults & { readonly patch_size: number },
  defaultImageSize = 224,
): VisionConfig {
  if (fields.integer('num_channels', 1, kLargestSize, 3) !== 3) throw fields.error('num_channels', '3 (red, green, blue)');
  const imageSize = square(fields, 'image_size', defaultImageSize);
  const patchSize = square(fields, 'patch_size', defaults.patch_size);
  if (patchSize > imageSize) throw fields.error('patch_size', `at most image_size, ${imageSize}`);
  return { ...towerConfig(fields, defaults), imageSize, patchSize };
}

export function textConfig(
  fields: JsonObject,
  defaults: TowerDefaults & { readonly vocab_size: number; readonly max_position_embeddings: number },
): TextConfig {
  return {
    ...towerConfig(fields, defaults),
    vocabularySize: fields.integer('vocab_size', 1, kLargestVocabulary, defaults.vocab_size),
    contextLength: fields.integer('max_position_embeddings', 1, kLargestSize, defaults.max_position_embeddings),
  };
}

/** A size in pixels, or [height, width] if both are the same. */
export function square(fields: JsonObject, name: string, otherwise: number): number {
  const value = fields.get(name);
  if (!Array.isArray(value)) return fields.integer(name, 1, kLargestImage, otherwise);
  const [height] = value;
  const equal = (value.length === 1 || value.length === 2) && value.every((size) => size === height);
  if (!equal) throw fields.error(name, 'one integer, or height and width that are equal');
  return new JsonObject(fields.file, fields.prefix, { [name]: height }, fields.code).integer(name, 1, kLargestImage);
}

/** transformers 5 writes `dtype`, older versions `torch_dtype`. */
export function dtypeOf(config: JsonObject): Float | undefined {
  const name = config.get('dtype') !== undefined ? 'dtype' : 'torch_dtype';
  const value = config.get(name);
  if (value === undefined || value === 'auto') return undefined;
  const dtype = typeof value === 'string' ? dtypes[value.replace(/^torch\./, '')] : undefined;
  if (dtype !== undefined) return dtype;
  throw new WarpsightError('ERR_CONFIG', `${config.file}: ${name} must be float32, float16 or bfloat16: it is ${shown(value)}`);
}
