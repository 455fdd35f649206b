// Three models of one width and depth with random weights, one for each way of joining modalities, for bench:fusion.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ExpectedTensor } from '../lib/checkpoint/expected';
import { parseBlipConfig } from '../lib/models/blip-config';
import { blipTensors } from '../lib/models/blip-tensors';
import { parseClipModelConfig } from '../lib/models/clip-config';
import { clipTensors } from '../lib/models/clip-tensors';
import { parseViltConfig } from '../lib/models/vilt-config';
import { viltTensors } from '../lib/models/vilt-tensors';
import { type TensorSpec, writeJson, writeWeights } from './make-checkpoint';

export interface FusionSize {
  /** D, of every tower */
  readonly width: number;
  /** Of every tower */
  readonly layers: number;
  readonly heads: number;
  /** Side of a picture in pixels. */
  readonly image: number;
  readonly patch: number;
  readonly vocabulary: number;
  readonly context: number;
}

export type Strategy = 'early' | 'mid' | 'late';

/** Writes ViLT (early), BLIP (mid) and CLIP (late) folders. @param seed other numbers for each */
export function makeFusion(folder: string, size: FusionSize, seed: number): Record<Strategy, string> {
  const { width, layers, heads, image, patch, vocabulary, context } = size;
  const tower = {
    hidden_size: width,
    intermediate_size: 4 * width,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    hidden_act: 'gelu',
  };
  const picture = { image_size: image, patch_size: patch };
  const text = { vocab_size: vocabulary, max_position_embeddings: context };
  const configs = {
    early: { model_type: 'vilt', ...tower, ...picture, ...text },
    mid: {
      model_type: 'blip',
      image_text_hidden_size: 256,
      vision_config: { ...tower, ...picture },
      text_config: { ...tower, ...text },
    },
    late: {
      model_type: 'clip',
      projection_dim: 256,
      vision_config: { ...tower, ...picture },
      text_config: { ...tower, ...text, eos_token_id: vocabulary - 1 },
    },
  };
  const tensors: Record<Strategy, Iterable<ExpectedTensor>> = {
    early: viltTensors(parseViltConfig(configs.early), 'retrieval', 1),
    mid: blipTensors(parseBlipConfig(configs.mid)),
    late: clipTensors(parseClipModelConfig(configs.late)),
  };
  const write = (strategy: Strategy): string => {
    const path = join(folder, strategy);
    mkdirSync(path, { recursive: true });
    writeJson(join(path, 'config.json'), configs[strategy]);
    writeWeights(join(path, 'model.safetensors'), Array.from(tensors[strategy], specOf), 'F32', seed);
    return path;
  };
  return { early: write('early'), mid: write('mid'), late: write('late') };
}

function specOf([name, shape]: ExpectedTensor): TensorSpec {
  if (/norm\w*\.weight$/i.test(name)) return { name, shape, fill: 'ones' };
  return { name, shape, fill: /bias$/.test(name) ? 'zeros' : 'random' };
}
