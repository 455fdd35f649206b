import { join } from 'node:path';
import { WeightLoader } from '../checkpoint/weight-loader';
import { abortError } from '../errors';
import { packageRoot } from '../native';
import type { Linear } from '../nn/encoder-layer';
import type { Tokenizer } from '../preprocess/tokenizer';
import type { Weight } from '../weight';
import type { ClipComposition, LoadOptions } from './clip';
import { type ClipConfig, type ClipModelConfig, parseClipModelConfig, type SiglipConfig } from './clip-config';
import { checkClipTensors } from './clip-tensors';
import { clipLayer } from './layer-names';
import { checkTokenizer, chooseDtype, chooseQuantization, imageProcessorOf, tokenizerOf, withCheckpoint } from './loading';
import { SiglipTextTransformer, type TextEncoder, TextTransformer } from './text-encoder';
import { encoderLayers, layerNorm, linear, mlp, patches, textEmbedding, tower, visionPositions } from './tower-weights';
import { SiglipVisionTransformer, type VisionEncoder, VisionTransformer } from './vision-encoder';

/** The model that ships with the package. */
const kShippedModel = 'clip-pictograms';

/** Everything a CLIP is composed of, from a checkpoint. */
export async function loadClip(
  folderOrHubId: string | URL | undefined,
  options: LoadOptions,
): Promise<{ composition: ClipComposition; weights: readonly Weight[] }> {
  const { signal, dtype: asked = 'auto', onProgress } = options;
  const path = folderOrHubId ?? join(packageRoot, 'models', kShippedModel);
  return withCheckpoint('CLIP.fromPretrained', path, options, undefined, async ({ checkpoint, folder, device }) => {
    const stated = parseClipModelConfig(checkpoint.config);
    checkClipTensors(checkpoint.tensors, stated);
    const [imageProcessor, tokenizer] = await Promise.all([imageProcessorOf(folder), tokenizerOf(folder, signal)]);
    checkTokenizer(tokenizer, stated.text.vocabularySize, folder);
    const config = withPadOf(tokenizer, stated);
    if (signal?.aborted) throw abortError(signal);

    const stored = checkpoint.tensors.get('vision_model.embeddings.patch_embedding.weight')?.stored.dtype;
    const dtype = chooseDtype(asked, device, stored);
    const quantization = chooseQuantization(options.quantization, device);
    const loader = new WeightLoader(checkpoint, device, dtype, quantization);
    const parts = clipParts(config, loader);
    const logitScale = await loader.scalar('logit_scale');
    const logitBias = config.kind === 'siglip' ? await loader.scalar('logit_bias') : undefined;
    await loader.load({ signal, onProgress });
    return {
      composition: { ...parts, logitScale, logitBias, imageProcessor, tokenizer, device, dtype, quantization, config },
      weights: loader.weights,
    };
  });
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
  const dtype = load.activations;
  const V = 'vision_model';
  const T = 'text_model';
  const visionTower = tower(load, `${V}.encoder.layers.`, vision, clipLayer);
  const textTower = tower(load, `${T}.encoder.layers.`, text, clipLayer);
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
  const dtype = load.activations;
  const D = vision.hiddenSize;
  const head = 'vision_model.head';
  const inProjection = (first: number, count: number): Linear => ({
    weight: load.matrix([{ name: `${head}.attention.in_proj_weight`, first, count }], [count, D]),
    bias: load.vector([{ name: `${head}.attention.in_proj_bias`, first, count }], count),
  });
  const layers = encoderLayers(load, 'vision_model.encoder.layers.', vision, clipLayer);
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
      ...tower(load, 'text_model.encoder.layers.', text, clipLayer),
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
