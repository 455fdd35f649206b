import type { ExpectedTensor } from '../checkpoint/expected';
import type { TowerConfig } from './tower-config';

/** How a family of checkpoints names the tensors of a pre-norm layer, within the layer. */
export interface LayerNames {
  readonly norm1: string;
  /** Queries, keys, values; or one tensor that holds the three, one below the other. */
  readonly qkv: string | readonly [q: string, k: string, v: string];
  /** false: their products have no bias. */
  readonly qkvBias: boolean;
  readonly out: string;
  readonly norm2: string;
  readonly fc1: string;
  readonly fc2: string;
}

/** CLIP, SigLIP. */
export const clipLayer: LayerNames = {
  norm1: 'layer_norm1',
  qkv: ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'],
  qkvBias: true,
  out: 'self_attn.out_proj',
  norm2: 'layer_norm2',
  fc1: 'mlp.fc1',
  fc2: 'mlp.fc2',
};

/** BLIP's vision tower. */
export const blipVisionLayer: LayerNames = { ...clipLayer, qkv: 'self_attn.qkv', out: 'self_attn.projection' };

/** ViLT. */
export const viltLayer: LayerNames = {
  norm1: 'layernorm_before',
  qkv: ['attention.attention.query', 'attention.attention.key', 'attention.attention.value'],
  qkvBias: true,
  out: 'attention.output.dense',
  norm2: 'layernorm_after',
  fc1: 'intermediate.dense',
  fc2: 'output.dense',
};

/** The tensors of `layers` layers named `${prefix}0.…`, `${prefix}1.…`. */
export function layerTensors(prefix: string, config: TowerConfig, names: LayerNames): ExpectedTensor[] {
  const { hiddenSize: D, intermediateSize: I } = config;
  const qkv = (layer: string): ExpectedTensor[] => {
    const parts = typeof names.qkv === 'string' ? [names.qkv] : names.qkv;
    return parts.flatMap((part) => linearTensors(`${layer}.${part}`, (3 / parts.length) * D, D, names.qkvBias));
  };
  return Array.from({ length: config.layers }, (_, i) => `${prefix}${i}`).flatMap((layer) => [
    ...normTensors(`${layer}.${names.norm1}`, D),
    ...qkv(layer),
    ...linearTensors(`${layer}.${names.out}`, D, D),
    ...normTensors(`${layer}.${names.norm2}`, D),
    ...linearTensors(`${layer}.${names.fc1}`, I, D),
    ...linearTensors(`${layer}.${names.fc2}`, D, I),
  ]);
}

export function linearTensors(name: string, rows: number, columns: number, bias = true): ExpectedTensor[] {
  return [[`${name}.weight`, [rows, columns]], ...(bias ? [[`${name}.bias`, [rows]] as const] : [])];
}

export function normTensors(name: string, D: number): ExpectedTensor[] {
  return [
    [`${name}.weight`, [D]],
    [`${name}.bias`, [D]],
  ];
}
