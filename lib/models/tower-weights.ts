// The weights of CLIP's and SigLIP's towers, by the names of transformers' checkpoints.
import type { WeightLoader } from '../checkpoint/weight-loader';
import type { Float } from '../dtype';
import type { EncoderLayer, LayerNorm, Linear, Mlp, PooledLayer } from '../nn/encoder-layer';
import type { ClipModelConfig } from './clip-config';
import type { LayerNames } from './layer-names';
import type { TowerConfig } from './tower-config';

// ── towers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Layers of which the last one is read in some rows only. */
export function tower(
  load: WeightLoader,
  prefix: string,
  config: TowerConfig,
  names: LayerNames,
): { layers: EncoderLayer[]; lastLayer: PooledLayer } {
  const layers = encoderLayers(load, prefix, { ...config, layers: config.layers - 1 }, names);
  return { layers, lastLayer: pooledLayer(load, `${prefix}${config.layers - 1}`, config, names) };
}

/** The first `config.layers` layers, named `${prefix}0`, `${prefix}1`, … */
export function encoderLayers(load: WeightLoader, prefix: string, config: TowerConfig, names: LayerNames): EncoderLayer[] {
  return Array.from({ length: config.layers }, (_, i) => {
    const layer = `${prefix}${i}`;
    return { ...layerParts(load, layer, config, names), qkv: attentionInput(load, layer, 0, 3, config, names) };
  });
}

function pooledLayer(load: WeightLoader, layer: string, config: TowerConfig, names: LayerNames): PooledLayer {
  return {
    ...layerParts(load, layer, config, names),
    q: attentionInput(load, layer, 0, 1, config, names),
    kv: attentionInput(load, layer, 1, 2, config, names),
  };
}

/** Of queries, keys and values, `count` from `first` on, in one product. */
function attentionInput(
  load: WeightLoader,
  layer: string,
  first: number,
  count: number,
  { hiddenSize: D }: TowerConfig,
  { qkv, qkvBias }: LayerNames,
): Linear {
  const parts = (of: 'weight' | 'bias') =>
    typeof qkv === 'string'
      ? [{ name: `${layer}.${qkv}.${of}`, first: first * D, count: count * D }]
      : qkv.slice(first, first + count).map((part) => `${layer}.${part}.${of}`);
  return {
    weight: load.matrix(parts('weight'), [count * D, D]),
    bias: qkvBias ? load.vector(parts('bias'), count * D) : undefined,
  };
}

function layerParts(load: WeightLoader, layer: string, config: TowerConfig, names: LayerNames) {
  const { hiddenSize: D, intermediateSize: I, activation } = config;
  return {
    heads: config.heads,
    headWidth: D / config.heads,
    norm1: layerNorm(load, `${layer}.${names.norm1}`, config),
    out: linear(load, `${layer}.${names.out}`, D, D),
    norm2: layerNorm(load, `${layer}.${names.norm2}`, config),
    mlp: {
      fc1: linear(load, `${layer}.${names.fc1}`, I, D),
      fc2: linear(load, `${layer}.${names.fc2}`, D, I),
      activation,
    },
  };
}

export function mlp(load: WeightLoader, name: string, config: TowerConfig): Mlp {
  return {
    fc1: linear(load, `${name}.fc1`, config.intermediateSize, config.hiddenSize),
    fc2: linear(load, `${name}.fc2`, config.hiddenSize, config.intermediateSize),
    activation: config.activation,
  };
}

/** @param compute see WeightLoader.matrix */
export function linear(load: WeightLoader, name: string, rows: number, columns: number, compute?: Float): Linear {
  return { weight: load.matrix([`${name}.weight`], [rows, columns], compute), bias: load.vector([`${name}.bias`], rows) };
}

/** Several linears of one input, one below the other. @param rows of all together */
export function stackedLinear(load: WeightLoader, names: readonly string[], rows: number, columns: number, bias = true): Linear {
  const of = (part: string) => names.map((name) => `${name}.${part}`);
  return { weight: load.matrix(of('weight'), [rows, columns]), bias: bias ? load.vector(of('bias'), rows) : undefined };
}

export function layerNorm(
  load: WeightLoader,
  name: string,
  { hiddenSize, eps }: Pick<TowerConfig, 'hiddenSize' | 'eps'>,
): LayerNorm {
  return { weight: load.vector([`${name}.weight`], hiddenSize), bias: load.vector([`${name}.bias`], hiddenSize), eps };
}

// ── embeddings ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

type VisionConfig = ClipModelConfig['vision'];

export function patches(load: WeightLoader, { hiddenSize, patchSize }: VisionConfig) {
  const columns = 3 * patchSize * patchSize;
  return {
    patch: patchSize,
    weight: load.matrix(['vision_model.embeddings.patch_embedding.weight'], [hiddenSize, columns]),
  };
}

export function visionPositions(load: WeightLoader, { hiddenSize, imageSize, patchSize }: VisionConfig, classTokens: number) {
  const T = Math.floor(imageSize / patchSize) ** 2 + classTokens;
  return load.vector(['vision_model.embeddings.position_embedding.weight'], T * hiddenSize);
}

export function textEmbedding(
  load: WeightLoader,
  text: ClipModelConfig['text'],
): {
  embedding: { tokens: ReturnType<WeightLoader['table']>; positions: ReturnType<WeightLoader['table']> };
} {
  const { vocabularySize, contextLength, hiddenSize } = text;
  return {
    embedding: {
      tokens: load.table('text_model.embeddings.token_embedding.weight', [vocabularySize, hiddenSize]),
      positions: load.table('text_model.embeddings.position_embedding.weight', [contextLength, hiddenSize]),
    },
  };
}
