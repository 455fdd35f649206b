import { checkTensors, type ExpectedTensor } from '../checkpoint/expected';
import type { CheckpointTensor } from '../checkpoint/folder';
import { WarpsightError } from '../errors';
import type { Shape } from '../shape';
import type { ClipModelConfig } from './clip-config';
import { clipLayer, layerTensors, linearTensors, normTensors } from './layer-names';
import type { TowerConfig, VisionConfig } from './tower-config';

/** Every tensor that a model of this config needs, by canonical name. A scalar may be stored as [] or [1]. */
export function clipTensors(config: ClipModelConfig): ReadonlyMap<string, Shape> {
  const { vision, text, projectionDim } = config;
  const Dv = vision.hiddenSize;
  const Dt = text.hiddenSize;
  const patches = Math.floor(vision.imageSize / vision.patchSize) ** 2;
  const common: ExpectedTensor[] = [
    ['vision_model.embeddings.patch_embedding.weight', [Dv, 3, vision.patchSize, vision.patchSize]],
    ...encoder('vision_model', vision),
    ...normTensors('vision_model.post_layernorm', Dv),
    ['text_model.embeddings.token_embedding.weight', [text.vocabularySize, Dt]],
    ['text_model.embeddings.position_embedding.weight', [text.contextLength, Dt]],
    ...encoder('text_model', text),
    ...normTensors('text_model.final_layer_norm', Dt),
    ['logit_scale', []],
  ];
  switch (config.kind) {
    case 'clip':
      return new Map([
        ...common,
        ['vision_model.embeddings.class_embedding', [Dv]],
        ['vision_model.embeddings.position_embedding.weight', [patches + 1, Dv]],
        ...normTensors('vision_model.pre_layrnorm', Dv),
        ['visual_projection.weight', [projectionDim, Dv]],
        ['text_projection.weight', [projectionDim, Dt]],
      ]);
    case 'siglip':
      return new Map([
        ...common,
        ['vision_model.embeddings.patch_embedding.bias', [Dv]],
        ['vision_model.embeddings.position_embedding.weight', [patches, Dv]],
        ...poolingHead(vision),
        ...linearTensors('text_model.head', projectionDim, Dt),
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
  const stack = (name: string, { layers }: TowerConfig) => ({ name, prefix: `${name}.encoder.layers.`, layers });
  checkTensors(tensors, expected, [stack('vision_model', config.vision), stack('text_model', config.text)]);
}

/** Layers of a tower of CLIP or SigLIP. */
export function encoder(tower: string, config: TowerConfig): ExpectedTensor[] {
  return layerTensors(`${tower}.encoder.layers.`, config, clipLayer);
}

/** A learned query that attends to all patches, and an MLP. */
function poolingHead({ hiddenSize: D, intermediateSize }: VisionConfig): ExpectedTensor[] {
  const head = 'vision_model.head';
  return [
    [`${head}.probe`, [1, 1, D]],
    [`${head}.attention.in_proj_weight`, [3 * D, D]],
    [`${head}.attention.in_proj_bias`, [3 * D]],
    ...linearTensors(`${head}.attention.out_proj`, D, D),
    ...normTensors(`${head}.layernorm`, D),
    ...mlp(`${head}.mlp`, D, intermediateSize),
  ];
}

function mlp(name: string, D: number, inner: number): ExpectedTensor[] {
  return [...linearTensors(`${name}.fc1`, inner, D), ...linearTensors(`${name}.fc2`, D, inner)];
}
