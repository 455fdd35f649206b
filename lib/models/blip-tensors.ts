import { checkTensors, type ExpectedTensor } from '../checkpoint/expected';
import type { CheckpointTensor } from '../checkpoint/folder';
import { type Naming, nameOfWeight } from '../checkpoint/names';
import type { WeightLoader } from '../checkpoint/weight-loader';
import type { Linear } from '../nn/encoder-layer';
import type { CrossAttention, PooledPostNormLayer, PostNormLayer } from '../nn/post-norm-layer';
import type { BlipParts } from './blip';
import type { BlipConfig } from './blip-config';
import { blipVisionLayer, layerTensors, linearTensors, normTensors } from './layer-names';
import { encoderLayers, layerNorm, linear, stackedLinear } from './tower-weights';

export const blipNaming: Naming = {
  canonical: nameOfWeight,
  refuse: (names) => (names.has('itm_head.weight') ? undefined : 'it has no matching head, "itm_head.weight"'),
};

const kVision = 'vision_model';
const kVisionLayers = `${kVision}.encoder.layers.`;
const kEmbeddings = 'text_encoder.embeddings';
const kTextLayers = 'text_encoder.encoder.layer.';

/** The patch embedding: its stored dtype stands for the checkpoint's. */
export const kBlipPatches = `${kVision}.embeddings.patch_embedding.weight`;

/** Every tensor that a BLIP of this config needs. */
export function blipTensors(config: BlipConfig): ExpectedTensor[] {
  const { vision, text, projectionDim } = config;
  const [Dv, D, I] = [vision.hiddenSize, text.hiddenSize, text.intermediateSize];
  const attention = (name: string, context: number) => [
    ...linearTensors(`${name}.self.query`, D, D),
    ...linearTensors(`${name}.self.key`, D, context),
    ...linearTensors(`${name}.self.value`, D, context),
    ...linearTensors(`${name}.output.dense`, D, D),
    ...normTensors(`${name}.output.LayerNorm`, D),
  ];
  return [
    [`${kVision}.embeddings.class_embedding`, [1, 1, Dv]],
    [kBlipPatches, [Dv, 3, vision.patchSize, vision.patchSize]],
    [`${kVision}.embeddings.patch_embedding.bias`, [Dv]],
    [`${kVision}.embeddings.position_embedding`, [1, tokensOf(config), Dv]],
    ...layerTensors(kVisionLayers, vision, blipVisionLayer),
    ...normTensors(`${kVision}.post_layernorm`, Dv),
    [`${kEmbeddings}.word_embeddings.weight`, [text.vocabularySize, D]],
    [`${kEmbeddings}.position_embeddings.weight`, [text.contextLength, D]],
    ...normTensors(`${kEmbeddings}.LayerNorm`, D),
    ...Array.from({ length: text.layers }, (_, i) => `${kTextLayers}${i}`).flatMap((layer) => [
      ...attention(`${layer}.attention`, D),
      ...attention(`${layer}.crossattention`, Dv),
      ...linearTensors(`${layer}.intermediate.dense`, I, D),
      ...linearTensors(`${layer}.output.dense`, D, I),
      ...normTensors(`${layer}.output.LayerNorm`, D),
    ]),
    ...linearTensors('vision_proj', projectionDim, Dv),
    ...linearTensors('text_proj', projectionDim, D),
    ...linearTensors('itm_head', 2, D),
  ];
}

/** Rows of a picture: patches and the class token. */
export function tokensOf({ vision }: BlipConfig): number {
  return Math.floor(vision.imageSize / vision.patchSize) ** 2 + 1;
}

/** @throws {WarpsightError} ERR_CHECKPOINT: see checkTensors */
export function checkBlipTensors(tensors: ReadonlyMap<string, CheckpointTensor>, config: BlipConfig): void {
  checkTensors(tensors, blipTensors(config), [
    { name: 'vision_model', prefix: kVisionLayers, layers: config.vision.layers },
    { name: 'text_encoder', prefix: kTextLayers, layers: config.text.layers },
  ]);
}

/** The parts of a BLIP; the loader fills their weights. */
export function blipParts(config: BlipConfig, load: WeightLoader): BlipParts {
  const { vision, text, projectionDim } = config;
  const [Dv, D] = [vision.hiddenSize, text.hiddenSize];
  const layers = Array.from({ length: text.layers - 1 }, (_, i): PostNormLayer => {
    const name = `${kTextLayers}${i}`;
    return {
      ...textLayerParts(load, name, config),
      qkv: joined(load, `${name}.attention.self`, ['query', 'key', 'value'], D, D),
    };
  });
  const last = `${kTextLayers}${text.layers - 1}`;
  const lastLayer: PooledPostNormLayer = {
    ...textLayerParts(load, last, config),
    q: joined(load, `${last}.attention.self`, ['query'], D, D),
    kv: joined(load, `${last}.attention.self`, ['key', 'value'], D, D),
  };
  return {
    vision: {
      embedding: {
        patch: vision.patchSize,
        weight: load.matrix([kBlipPatches], [Dv, 3 * vision.patchSize ** 2]),
        bias: load.vector([`${kVision}.embeddings.patch_embedding.bias`], Dv),
        classToken: load.vector([`${kVision}.embeddings.class_embedding`], Dv),
        positions: load.vector([`${kVision}.embeddings.position_embedding`], tokensOf(config) * Dv),
      },
      layers: encoderLayers(load, kVisionLayers, vision, blipVisionLayer),
      postNorm: layerNorm(load, `${kVision}.post_layernorm`, vision),
    },
    text: {
      tokens: load.table(`${kEmbeddings}.word_embeddings.weight`, [text.vocabularySize, D]),
      positions: load.table(`${kEmbeddings}.position_embeddings.weight`, [text.contextLength, D]),
      norm: layerNorm(load, `${kEmbeddings}.LayerNorm`, text),
      layers,
      lastLayer,
    },
    visionProjection: linear(load, 'vision_proj', projectionDim, Dv, 'float32'),
    textProjection: linear(load, 'text_proj', projectionDim, D, 'float32'),
    matchingHead: linear(load, 'itm_head', 2, D, 'float32'),
    dtype: load.activations,
  };
}

function textLayerParts(load: WeightLoader, layer: string, { vision, text }: BlipConfig) {
  const { hiddenSize: D, intermediateSize: I, heads, activation } = text;
  const crossName = `${layer}.crossattention`;
  const cross: CrossAttention = {
    q: joined(load, `${crossName}.self`, ['query'], D, D),
    kv: joined(load, `${crossName}.self`, ['key', 'value'], D, vision.hiddenSize),
    out: linear(load, `${crossName}.output.dense`, D, D),
    norm: layerNorm(load, `${crossName}.output.LayerNorm`, text),
  };
  return {
    heads,
    headWidth: D / heads,
    out: linear(load, `${layer}.attention.output.dense`, D, D),
    norm1: layerNorm(load, `${layer}.attention.output.LayerNorm`, text),
    cross,
    mlp: {
      fc1: linear(load, `${layer}.intermediate.dense`, I, D),
      fc2: linear(load, `${layer}.output.dense`, D, I),
      activation,
    },
    norm2: layerNorm(load, `${layer}.output.LayerNorm`, text),
  };
}

/** Products of one input, one below the other. */
function joined(load: WeightLoader, name: string, parts: readonly string[], D: number, columns: number): Linear {
  const names = parts.map((part) => `${name}.${part}`);
  return stackedLinear(load, names, parts.length * D, columns);
}
