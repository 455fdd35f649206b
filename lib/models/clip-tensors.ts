import type { CheckpointTensor } from '../checkpoint/folder';
import { WarpsightError } from '../errors';
import { elements, type Shape, sameShape } from '../shape';
import type { ClipModelConfig, TowerConfig, VisionConfig } from './clip-config';

/** Every tensor that a model of this config needs, by canonical name. A scalar may be stored as [] or [1]. */
export function clipTensors(config: ClipModelConfig): ReadonlyMap<string, Shape> {
  const { vision, text, projectionDim } = config;
  const Dv = vision.hiddenSize;
  const Dt = text.hiddenSize;
  const patches = Math.floor(vision.imageSize / vision.patchSize) ** 2;
  const common: [string, Shape][] = [
    ['vision_model.embeddings.patch_embedding.weight', [Dv, 3, vision.patchSize, vision.patchSize]],
    ...encoder('vision_model', vision),
    ...norm('vision_model.post_layernorm', Dv),
    ['text_model.embeddings.token_embedding.weight', [text.vocabularySize, Dt]],
    ['text_model.embeddings.position_embedding.weight', [text.contextLength, Dt]],
    ...encoder('text_model', text),
    ...norm('text_model.final_layer_norm', Dt),
    ['logit_scale', []],
  ];
  switch (config.kind) {
    case 'clip':
      return new Map([
        ...common,
        ['vision_model.embeddings.class_embedding', [Dv]],
        ['vision_model.embeddings.position_embedding.weight', [patches + 1, Dv]],
        ...norm('vision_model.pre_layrnorm', Dv),
        ['visual_projection.weight', [projectionDim, Dv]],
        ['text_projection.weight', [projectionDim, Dt]],
      ]);
    case 'siglip':
      return new Map([
        ...common,
        ['vision_model.embeddings.patch_embedding.bias', [Dv]],
        ['vision_model.embeddings.position_embedding.weight', [patches, Dv]],
        ...poolingHead(vision),
        ...linear('text_model.head', projectionDim, Dt),
        ['logit_bias', []],
      ]);
  }
}

/**
 * Compares a checkpoint with what its config needs, so that nothing stays unfilled and nothing is read that isn't there.
 *
 * @throws {WarpsightError} ERR_CHECKPOINT: a tensor is missing, of another shape, no float, or of a layer that the config doesn't have
 */
export function checkClipTensors(tensors: ReadonlyMap<string, CheckpointTensor>, config: ClipModelConfig): void {
  const expected = clipTensors(config);
  for (const tower of ['vision_model', 'text_model']) {
    if (![...tensors.keys()].some((name) => name.startsWith(`${tower}.`))) {
      throw new WarpsightError('ERR_CHECKPOINT', `the checkpoint has no ${tower}: a ${config.kind} model needs both towers`);
    }
  }
  for (const [name, shape] of expected) {
    const tensor = tensors.get(name);
    if (!tensor) throw new WarpsightError('ERR_CHECKPOINT', `the checkpoint has no tensor "${name}"`);
    const { stored, fileName } = tensor;
    const says = `checkpoint "${fileName}": "${stored.name}" is`;
    const same = shape.length === 0 ? stored.shape.length <= 1 && elements(stored.shape) === 1 : sameShape(stored.shape, shape);
    if (!same) {
      const given = `[${stored.shape.join(', ')}]`;
      throw new WarpsightError('ERR_CHECKPOINT', `${says} ${given}, the config says [${shape.join(', ')}]`);
    }
    if (!['F32', 'F16', 'BF16'].includes(stored.dtype)) {
      throw new WarpsightError('ERR_CHECKPOINT', `${says} ${stored.dtype}; weights must be F32, F16 or BF16`);
    }
  }
  // A config with too few layers would give plausible, wrong numbers.
  const layers = { vision_model: config.vision.layers, text_model: config.text.layers };
  for (const [name, { stored, fileName }] of tensors) {
    const [, tower, layer] = /^(vision_model|text_model)\.encoder\.layers\.(\d+)\./.exec(name) ?? [];
    if ((tower !== 'vision_model' && tower !== 'text_model') || Number(layer) < layers[tower]) continue;
    throw new WarpsightError(
      'ERR_CHECKPOINT',
      `checkpoint "${fileName}": it has "${stored.name}", but the config says that ${tower} has ${layers[tower]} layers`,
    );
  }
}

/** Layers of a tower. */
export function encoder(tower: string, { layers, hiddenSize: D, intermediateSize }: TowerConfig): [string, Shape][] {
  return Array.from({ length: layers }, (_, i) => `${tower}.encoder.layers.${i}`).flatMap((layer) => [
    ...norm(`${layer}.layer_norm1`, D),
    ...['q_proj', 'k_proj', 'v_proj', 'out_proj'].flatMap((part) => linear(`${layer}.self_attn.${part}`, D, D)),
    ...norm(`${layer}.layer_norm2`, D),
    ...mlp(`${layer}.mlp`, D, intermediateSize),
  ]);
}

/** A learned query that attends to all patches, and an MLP. */
function poolingHead({ hiddenSize: D, intermediateSize }: VisionConfig): [string, Shape][] {
  const head = 'vision_model.head';
  return [
    [`${head}.probe`, [1, 1, D]],
    [`${head}.attention.in_proj_weight`, [3 * D, D]],
    [`${head}.attention.in_proj_bias`, [3 * D]],
    ...linear(`${head}.attention.out_proj`, D, D),
    ...norm(`${head}.layernorm`, D),
    ...mlp(`${head}.mlp`, D, intermediateSize),
  ];
}

function mlp(name: string, D: number, inner: number): [string, Shape][] {
  return [...linear(`${name}.fc1`, inner, D), ...linear(`${name}.fc2`, D, inner)];
}

export function linear(name: string, rows: number, columns: number): [string, Shape][] {
  return [
    [`${name}.weight`, [rows, columns]],
    [`${name}.bias`, [rows]],
  ];
}

export function norm(name: string, D: number): [string, Shape][] {
  return [
    [`${name}.weight`, [D]],
    [`${name}.bias`, [D]],
  ];
}
