// The weights of CLIP's and SigLIP's towers, by the names of transformers' checkpoints.
import type { WeightLoader } from '../checkpoint/weight-loader';
import type { EncoderLayer, LayerNorm, Linear, Mlp, PooledLayer } from '../nn/encoder-layer';
import type { ClipModelConfig, TowerConfig } from './clip-config';

// ── towers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export function tower(
  load: WeightLoader,
  prefix: string,
  config: TowerConfig,
): { layers: EncoderLayer[]; lastLayer: PooledLayer } {
  const names = Array.from({ length: config.layers }, (_, i) => `${prefix}.encoder.layers.${i}`);
  const last = names.pop();
  const layers = names.map((name) => encoderLayer(load, name, config));
  return { layers, lastLayer: pooledLayer(load, last!, config) };
}

export function encoderLayer(load: WeightLoader, name: string, config: TowerConfig): EncoderLayer {
  return { ...layerParts(load, name, config), qkv: attentionInput(load, name, ['q', 'k', 'v'], config) };
}

function pooledLayer(load: WeightLoader, name: string, config: TowerConfig): PooledLayer {
  return {
    ...layerParts(load, name, config),
    q: attentionInput(load, name, ['q'], config),
    kv: attentionInput(load, name, ['k', 'v'], config),
  };
}

function attentionInput(load: WeightLoader, name: string, which: readonly ('q' | 'k' | 'v')[], config: TowerConfig): Linear {
  const D = config.hiddenSize;
  const names = which.map((part) => `${name}.self_attn.${part}_proj`);
  return {
    weight: load.matrix(
      names.map((part) => `${part}.weight`),
      [names.length * D, D],
    ),
    bias: load.vector(
      names.map((part) => `${part}.bias`),
      names.length * D,
    ),
  };
}

function layerParts(load: WeightLoader, name: string, config: TowerConfig) {
  const D = config.hiddenSize;
  return {
    heads: config.heads,
    headWidth: D / config.heads,
    norm1: layerNorm(load, `${name}.layer_norm1`, config),
    out: linear(load, `${name}.self_attn.out_proj`, D, D),
    norm2: layerNorm(load, `${name}.layer_norm2`, config),
    mlp: mlp(load, `${name}.mlp`, config),
  };
}

export function mlp(load: WeightLoader, name: string, config: TowerConfig): Mlp {
  return {
    fc1: linear(load, `${name}.fc1`, config.intermediateSize, config.hiddenSize),
    fc2: linear(load, `${name}.fc2`, config.hiddenSize, config.intermediateSize),
    activation: config.activation,
  };
}

export function linear(load: WeightLoader, name: string, rows: number, columns: number): Linear {
  return { weight: load.matrix([`${name}.weight`], [rows, columns]), bias: load.vector([`${name}.bias`], rows) };
}

export function layerNorm(load: WeightLoader, name: string, { hiddenSize, eps }: TowerConfig): LayerNorm {
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
