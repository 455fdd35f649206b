import { join } from 'node:path';
import { openCheckpoint } from '../checkpoint/folder';
import { folderPath } from '../checkpoint/folder-path';
import { resolveCheckpoint } from '../checkpoint/hub';
import { WeightLoader } from '../checkpoint/weight-loader';
import { abortError } from '../errors';
import { native, packageRoot } from '../native';
import type { EncoderLayer, LayerNorm, Linear, Mlp, PooledLayer } from '../nn/encoder-layer';
import type { Tokenizer } from '../preprocess/tokenizer';
import type { Weight } from '../weight';
import type { ClipComposition, LoadOptions } from './clip';
import { type ClipConfig, type ClipModelConfig, parseClipModelConfig, type SiglipConfig, type TowerConfig } from './clip-config';
import { checkClipTensors } from './clip-tensors';
import { checkTokenizer, chooseDtype, imageProcessorOf, tokenizerOf } from './loading';
import { SiglipTextTransformer, type TextEncoder, TextTransformer } from './text-encoder';
import { SiglipVisionTransformer, type VisionEncoder, VisionTransformer } from './vision-encoder';

/** The model that ships with the package. */
const kShippedModel = 'clip-pictograms';

/**
 * Everything a CLIP is composed of, from a checkpoint.
 *
 * @param device 'cpu', 'cuda:0'
 */
export async function loadClip(
  folderOrHubId: string | URL | undefined,
  device: string,
  options: LoadOptions,
): Promise<{ composition: ClipComposition; weights: readonly Weight[] }> {
  const { signal, dtype: asked = 'auto', onProgress, revision, cacheDir, localFilesOnly } = options;
  const folder = await resolveCheckpoint(pathOf(folderOrHubId), { revision, cacheDir, localFilesOnly });
  const checkpoint = await openCheckpoint(folder, (paths) => native.openCheckpoint(paths));
  try {
    const stated = parseClipModelConfig(checkpoint.config);
    checkClipTensors(checkpoint.tensors, stated);
    const [imageProcessor, tokenizer] = await Promise.all([imageProcessorOf(folder), tokenizerOf(folder, signal)]);
    checkTokenizer(tokenizer, stated.text.vocabularySize, folder);
    const config = withPadOf(tokenizer, stated);
    if (signal?.aborted) throw abortError(signal);

    const stored = checkpoint.tensors.get('vision_model.embeddings.patch_embedding.weight')?.stored.dtype;
    const dtype = chooseDtype(asked, device, stored);
    const loader = new WeightLoader(checkpoint, device, dtype);
    const parts = clipParts(config, loader);
    const logitScale = await loader.scalar('logit_scale');
    const logitBias = config.kind === 'siglip' ? await loader.scalar('logit_bias') : undefined;
    await loader.load({ signal, onProgress });
    return {
      composition: { ...parts, logitScale, logitBias, imageProcessor, tokenizer, device, dtype, config },
      weights: loader.weights,
    };
  } finally {
    native.dispose(checkpoint.handle);
  }
}

function pathOf(folderOrHubId: string | URL | undefined): string {
  if (folderOrHubId === undefined) return join(packageRoot, 'models', kShippedModel);
  return typeof folderOrHubId === 'string' ? folderOrHubId : folderPath('fromPretrained', folderOrHubId);
}

/** SigLIP's texts are filled by their tokenizer; the config's pad_token_id, 1 by default, is another one for SigLIP 2, whose tokenizer says 0. */
function withPadOf(tokenizer: Tokenizer | undefined, config: ClipModelConfig): ClipModelConfig {
  const padTokenId = tokenizer?.padTokenId;
  if (config.kind !== 'siglip' || padTokenId === undefined) return config;
  return { ...config, text: { ...config.text, padTokenId } };
}

/** The parts of a CLIP, by the names of transformers' checkpoints; the loader fills their weights. */
interface ClipParts {
  readonly visionEncoder: VisionEncoder;
  readonly textEncoder: TextEncoder;
  readonly visionProjection: Linear | undefined;
  readonly textProjection: Linear | undefined;
}

function clipParts(config: ClipModelConfig, load: WeightLoader): ClipParts {
  return config.kind === 'siglip' ? siglipParts(config, load) : openaiParts(config, load);
}

function openaiParts(config: ClipConfig, load: WeightLoader): ClipParts {
  const { vision, text, projectionDim } = config;
  const dtype = load.compute;
  const V = 'vision_model';
  const T = 'text_model';
  const visionTower = tower(load, V, vision);
  const textTower = tower(load, T, text);
  return {
    visionEncoder: new VisionTransformer(vision.imageSize, {
      embedding: {
        ...patches(load, vision),
        classToken: load.vector([`${V}.embeddings.class_embedding`], vision.hiddenSize),
        positions: visionPositions(load, vision, 1),
      },
      preNorm: layerNorm(load, `${V}.pre_layrnorm`, vision),
      ...visionTower,
      postNorm: layerNorm(load, `${V}.post_layernorm`, vision),
      dtype,
    }),
    textEncoder: new TextTransformer(text.contextLength, text.vocabularySize, text.eosTokenId, {
      ...textEmbedding(load, text),
      ...textTower,
      finalNorm: layerNorm(load, `${T}.final_layer_norm`, text),
      dtype,
    }),
    visionProjection: { weight: load.matrix(['visual_projection.weight'], [projectionDim, vision.hiddenSize], 'float32') },
    textProjection: { weight: load.matrix(['text_projection.weight'], [projectionDim, text.hiddenSize], 'float32') },
  };
}

function siglipParts(config: SiglipConfig, load: WeightLoader): ClipParts {
  const { vision, text } = config;
  const dtype = load.compute;
  const D = vision.hiddenSize;
  const head = 'vision_model.head';
  const inProjection = (first: number, count: number): Linear => ({
    weight: load.matrix([{ name: `${head}.attention.in_proj_weight`, first, count }], [count, D]),
    bias: load.vector([{ name: `${head}.attention.in_proj_bias`, first, count }], count),
  });
  const layers = Array.from({ length: vision.layers }, (_, i) => encoderLayer(load, `vision_model.encoder.layers.${i}`, vision));
  return {
    visionEncoder: new SiglipVisionTransformer(vision.imageSize, {
      embedding: {
        ...patches(load, vision),
        bias: load.vector(['vision_model.embeddings.patch_embedding.bias'], D),
        positions: visionPositions(load, vision, 0),
      },
      layers,
      postNorm: layerNorm(load, 'vision_model.post_layernorm', vision),
      head: {
        probe: load.table(`${head}.probe`, [1, D]),
        heads: vision.heads,
        headWidth: D / vision.heads,
        q: inProjection(0, D),
        kv: inProjection(D, 2 * D),
        out: linear(load, `${head}.attention.out_proj`, D, D),
        norm: layerNorm(load, `${head}.layernorm`, vision),
        mlp: mlp(load, `${head}.mlp`, vision),
      },
      dtype,
    }),
    textEncoder: new SiglipTextTransformer(text.contextLength, text.vocabularySize, text.padTokenId, {
      ...textEmbedding(load, text),
      ...tower(load, 'text_model', text),
      finalNorm: layerNorm(load, 'text_model.final_layer_norm', text),
      head: {
        weight: load.matrix(['text_model.head.weight'], [config.projectionDim, text.hiddenSize], 'float32'),
        bias: load.vector(['text_model.head.bias'], config.projectionDim),
      },
      dtype,
    }),
    visionProjection: undefined,
    textProjection: undefined,
  };
}

// ── towers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function tower(load: WeightLoader, prefix: string, config: TowerConfig): { layers: EncoderLayer[]; lastLayer: PooledLayer } {
  const names = Array.from({ length: config.layers }, (_, i) => `${prefix}.encoder.layers.${i}`);
  const last = names.pop();
  const layers = names.map((name) => encoderLayer(load, name, config));
  return { layers, lastLayer: pooledLayer(load, last!, config) };
}

function encoderLayer(load: WeightLoader, name: string, config: TowerConfig): EncoderLayer {
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

function mlp(load: WeightLoader, name: string, config: TowerConfig): Mlp {
  return {
    fc1: linear(load, `${name}.fc1`, config.intermediateSize, config.hiddenSize),
    fc2: linear(load, `${name}.fc2`, config.hiddenSize, config.intermediateSize),
    activation: config.activation,
  };
}

function linear(load: WeightLoader, name: string, rows: number, columns: number): Linear {
  return { weight: load.matrix([`${name}.weight`], [rows, columns]), bias: load.vector([`${name}.bias`], rows) };
}

function layerNorm(load: WeightLoader, name: string, { hiddenSize, eps }: TowerConfig): LayerNorm {
  return { weight: load.vector([`${name}.weight`], hiddenSize), bias: load.vector([`${name}.bias`], hiddenSize), eps };
}

// ── embeddings ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

type VisionConfig = ClipModelConfig['vision'];

function patches(load: WeightLoader, { hiddenSize, patchSize }: VisionConfig) {
  const columns = 3 * patchSize * patchSize;
  return {
    patch: patchSize,
    weight: load.matrix(['vision_model.embeddings.patch_embedding.weight'], [hiddenSize, columns]),
  };
}

function visionPositions(load: WeightLoader, { hiddenSize, imageSize, patchSize }: VisionConfig, classTokens: number) {
  const T = Math.floor(imageSize / patchSize) ** 2 + classTokens;
  return load.vector(['vision_model.embeddings.position_embedding.weight'], T * hiddenSize);
}

function textEmbedding(
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
