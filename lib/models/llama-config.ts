import { JsonObject, shown } from '../checkpoint/json';
import type { Float } from '../dtype';
import { WarpsightError } from '../errors';

/** How the angles of the rotary embedding are stretched for longer contexts. */
export type RopeScaling =
  | { readonly kind: 'none' }
  | { readonly kind: 'linear'; readonly factor: number }
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalContextLength: number;
    };

/** A Llama: RMS norms, rotary positions, grouped-query attention, SwiGLU. */
export interface LlamaConfig {
  readonly vocabularySize: number;
  /** D, the width of a token */
  readonly hiddenSize: number;
  /** I, the width inside the SwiGLU */
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  /** Each serves heads / kvHeads neighbouring query heads. */
  readonly kvHeads: number;
  /** Of one head; D / heads where the file says nothing. */
  readonly headWidth: number;
  /** The most positions a sequence may have. */
  readonly contextLength: number;
  /** Of every RMS norm. */
  readonly eps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  /** The output head is the token embedding. */
  readonly tied: boolean;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
  readonly eosTokenIds: readonly number[];
  readonly dtype: Float | undefined;
}

// Bounds keep products of sizes far from overflow; the largest real models are ten times smaller.
const kLargestSize = 1_000_000;
const kMostLayers = 1000;
const kLargestVocabulary = 10_000_000;
const kLargestContext = 100_000_000;

/**
 * Reads the config.json of a Llama.
 *
 * @throws {WarpsightError} ERR_CONFIG: another model, or a field that is missing, of a wrong type or absurd
 */
export function parseLlamaConfig(json: unknown, file = 'config.json'): LlamaConfig {
  return llamaFields(JsonObject.parse(file, json));
}

/**
 * The fields of a Llama: of a file, or of its text_config. What is left out has the default of transformers' LlamaConfig.
 *
 * @param tied what tie_word_embeddings says one level up, where it does
 */
export function llamaFields(config: JsonObject, tied?: boolean): LlamaConfig {
  const type = config.string('model_type') ?? 'llama';
  if (type !== 'llama' && type !== 'mistral') throw config.error('model_type', 'llama (or mistral without a sliding window)');
  if (config.get('quantization_config') !== undefined) {
    throw new WarpsightError(
      'ERR_CONFIG',
      `${config.file}: quantization_config is set: only float32, float16 and bfloat16 checkpoints are read`,
    );
  }
  const hiddenSize = config.integer('hidden_size', 1, kLargestSize, 4096);
  const heads = config.integer('num_attention_heads', 1, 65_536, 32);
  const kvHeads = config.integer('num_key_value_heads', 1, 65_536, type === 'mistral' ? 8 : heads);
  if (heads % kvHeads !== 0) throw config.error('num_key_value_heads', `a divisor of num_attention_heads, ${heads}`);
  if (config.get('head_dim') === undefined && hiddenSize % heads !== 0) {
    throw config.error('hidden_size', `a multiple of num_attention_heads, ${heads}, where there is no head_dim`);
  }
  const headWidth = config.integer('head_dim', 2, 65_536, Math.max(2, Math.floor(hiddenSize / heads)));
  if (headWidth % 2 !== 0) throw config.error('head_dim', 'even: rotary positions turn pairs of components');
  config.choice('hidden_act', { silu: true, swish: true }, 'silu');
  const contextLength = config.integer('max_position_embeddings', 1, kLargestContext, 2048);
  if (config.get('sliding_window') !== undefined && config.integer('sliding_window', 1, kLargestContext) < contextLength) {
    throw config.error('sliding_window', `null, or at least max_position_embeddings, ${contextLength}`);
  }
  const vocabularySize = config.integer('vocab_size', 1, kLargestVocabulary, 32_000);
  return {
    vocabularySize,
    hiddenSize,
    heads,
    kvHeads,
    headWidth,
    contextLength,
    intermediateSize: config.integer('intermediate_size', 1, kLargestSize, 11_008),
    layers: config.integer('num_hidden_layers', 1, kMostLayers, 32),
    eps: config.number('rms_norm_eps', 0, 1, 1e-6),
    ...ropeOf(config, contextLength),
    tied: config.get('tie_word_embeddings') === undefined ? (tied ?? false) : config.boolean('tie_word_embeddings'),
    attentionBias: config.boolean('attention_bias', false),
    mlpBias: config.boolean('mlp_bias', false),
    eosTokenIds: tokenIds(config, 'eos_token_id') ?? [2],
    dtype: dtypeOf(config),
  };
}

/** A token id or a list of them; undefined where the file says nothing. */
export function tokenIds(config: JsonObject, name: string): readonly number[] | undefined {
  const value = config.get(name);
  if (value === undefined) return undefined;
  const ids: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (ids.length > 1000 || !ids.every((id) => typeof id === 'number' && Number.isInteger(id) && id >= 0)) {
    throw config.error(name, 'a token id or a list of them');
  }
  return ids as readonly number[];
}

/** transformers 5 writes rope_parameters, older versions rope_theta and rope_scaling. */
function ropeOf(config: JsonObject, contextLength: number): Pick<LlamaConfig, 'ropeTheta' | 'ropeScaling'> {
  const parameters = config.object('rope_parameters');
  const scaling = parameters ?? config.object('rope_scaling');
  const base = parameters?.get('rope_theta') !== undefined ? parameters : config;
  const ropeTheta = base.number('rope_theta', 1, 1e15, 10_000);
  if (!scaling) return { ropeTheta, ropeScaling: { kind: 'none' } };
  const name = scaling.get('rope_type') !== undefined ? 'rope_type' : 'type';
  const kind = scaling.choice(name, { default: 'none', linear: 'linear', llama3: 'llama3' } as const, 'default');
  if (kind === 'none') return { ropeTheta, ropeScaling: { kind } };
  const factor = scaling.number('factor', 1, 1e6);
  if (kind === 'linear') return { ropeTheta, ropeScaling: { kind, factor } };
  return {
    ropeTheta,
    ropeScaling: {
      kind,
      factor,
      lowFrequencyFactor: scaling.number('low_freq_factor', 1e-6, 1e6),
      highFrequencyFactor: scaling.number('high_freq_factor', 1e-6, 1e6),
      originalContextLength: scaling.integer('original_max_position_embeddings', 1, kLargestContext, contextLength),
    },
  };
}

function dtypeOf(config: JsonObject): Float | undefined {
  const name = config.get('dtype') !== undefined ? 'dtype' : 'torch_dtype';
  const value = config.get(name);
  if (value === undefined || value === 'auto') return undefined;
  if (value === 'float32' || value === 'float16' || value === 'bfloat16') return value;
  throw new WarpsightError('ERR_CONFIG', `${config.file}: ${name} must be float32, float16 or bfloat16: it is ${shown(value)}`);
}

/**
 * The angle by which pair i of a head turns from one position to the next: θ^(−2i/d), stretched.
 *
 * @returns [headWidth / 2]
 * @see Su et al. 2021; Chen et al. 2023 for linear scaling; Grattafiori et al. 2024, Llama 3, for llama3
 */
export function ropeFrequencies({ headWidth, ropeTheta, ropeScaling: scaling }: LlamaConfig): Float32Array {
  return Float32Array.from({ length: headWidth / 2 }, (_, i) => {
    const frequency = ropeTheta ** ((-2 * i) / headWidth);
    switch (scaling.kind) {
      case 'none':
        return frequency;
      case 'linear':
        return frequency / scaling.factor;
      case 'llama3': {
        const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength: original } = scaling;
        const turns = (original * frequency) / (2 * Math.PI); // within the original context
        if (turns >= high) return frequency;
        if (turns <= low) return frequency / factor;
        const share = (turns - low) / (high - low);
        return (1 - share) * (frequency / factor) + share * frequency;
      }
    }
  });
}
