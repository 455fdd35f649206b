import type { ExpectedTensor } from '../checkpoint/expected';
import type { WeightLoader } from '../checkpoint/weight-loader';
import type { Linear } from '../nn/encoder-layer';
import { encoder } from './clip-tensors';
import { clipLayer, linearTensors, normTensors } from './layer-names';
import type { Projector } from './llava';
import type { LlavaConfig } from './llava-config';
import { encoderLayers, layerNorm, patches, visionPositions } from './tower-weights';
import { VisionFeatures } from './vision-encoder';

/** Layers of the vision tower that are read: those behind the last state are not loaded. */
function layersRead({ selection }: LlavaConfig): number {
  return Math.max(...selection.states);
}

/** What a LLaVA needs beside its language model, by canonical name. */
export function llavaTensors(config: LlavaConfig): ExpectedTensor[] {
  const { vision, text, selection, projectorBias } = config;
  const D = vision.hiddenSize;
  const tokens = Math.floor(vision.imageSize / vision.patchSize) ** 2 + 1;
  const projector = (name: string, rows: number, columns: number) =>
    linearTensors(`multi_modal_projector.${name}`, rows, columns, projectorBias);
  return [
    ['vision_model.embeddings.class_embedding', [D]],
    ['vision_model.embeddings.patch_embedding.weight', [D, 3, vision.patchSize, vision.patchSize]],
    ['vision_model.embeddings.position_embedding.weight', [tokens, D]],
    ...normTensors('vision_model.pre_layrnorm', D),
    ...encoder('vision_model', { ...vision, layers: layersRead(config) }),
    ...projector('linear_1', text.hiddenSize, D * selection.states.length),
    ...projector('linear_2', text.hiddenSize, text.hiddenSize),
  ];
}

/** Vision tower and projector; the loader fills their weights. */
export function llavaVisionParts(config: LlavaConfig, load: WeightLoader): { visionTower: VisionFeatures; projector: Projector } {
  const { vision, text, selection, projectorBias, projectorActivation } = config;
  const D = vision.hiddenSize;
  const visionTower = new VisionFeatures(vision.imageSize, selection, {
    embedding: {
      ...patches(load, vision),
      classToken: load.vector(['vision_model.embeddings.class_embedding'], D),
      positions: visionPositions(load, vision, 1),
    },
    preNorm: layerNorm(load, 'vision_model.pre_layrnorm', vision),
    layers: encoderLayers(load, 'vision_model.encoder.layers.', { ...vision, layers: layersRead(config) }, clipLayer),
    dtype: load.activations,
  });
  const layer = (name: string, columns: number): Linear => ({
    weight: load.matrix([`multi_modal_projector.${name}.weight`], [text.hiddenSize, columns]),
    bias: projectorBias ? load.vector([`multi_modal_projector.${name}.bias`], text.hiddenSize) : undefined,
  });
  const projector = {
    linear1: layer('linear_1', D * selection.states.length),
    activation: projectorActivation,
    linear2: layer('linear_2', text.hiddenSize),
  };
  return { visionTower, projector };
}
