import { JsonObject } from '../checkpoint/json';
import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import {
  dtypeOf,
  kLargestSize,
  kLargestVocabulary,
  type TextConfig,
  type TowerDefaults,
  textConfig,
  type VisionConfig,
  visionConfig,
} from './tower-config';

export interface ClipTextConfig extends TextConfig {
  /** The row that is read is the first one with this id; 2 stands for "the row of the largest id", as in configs of before 2023. */
  readonly eosTokenId: number;
}

export interface SiglipTextConfig extends TextConfig {
  /** Texts are filled with it up to `contextLength`. */
  readonly padTokenId: number;
}

/** CLIP: class token, causal text, softmax. */
export interface ClipConfig {
  readonly kind: 'clip';
  readonly vision: VisionConfig;
  readonly text: ClipTextConfig;
  /** d, the width of embeddings */
  readonly projectionDim: number;
  /** What `dtype` or `torch_dtype` says; the tensors themselves decide. */
  readonly dtype: Float | undefined;
}

/** SigLIP: attention pooling, bidirectional padded text, sigmoid. */
export interface SiglipConfig {
  readonly kind: 'siglip';
  readonly vision: VisionConfig;
  readonly text: SiglipTextConfig;
  /** d, the width of embeddings: that of the vision tower */
  readonly projectionDim: number;
  readonly dtype: Float | undefined;
}

export type ClipModelConfig = ClipConfig | SiglipConfig;

// What a field that is not given means: files often leave out what equals the default of its class.
// source: transformers/models/clip/configuration_clip.py, siglip/configuration_siglip.py
const base: Pick<TowerDefaults, 'hidden_size' | 'intermediate_size' | 'num_hidden_layers' | 'num_attention_heads'> = {
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
};
const clipAct = { hidden_act: 'quick_gelu', layer_norm_eps: 1e-5 };
const siglipAct = { hidden_act: 'gelu_pytorch_tanh', layer_norm_eps: 1e-6 };
const clipVision = { ...base, ...clipAct, patch_size: 32 };
const clipText = {
  ...clipAct,
  hidden_size: 512,
  intermediate_size: 2048,
  num_hidden_layers: 12,
  num_attention_heads: 8,
  vocab_size: 49_408,
  max_position_embeddings: 77,
};
const siglipVision = { ...base, ...siglipAct, patch_size: 16 };
const siglipText = { ...base, ...siglipAct, vocab_size: 32_000, max_position_embeddings: 64 };

/**
 * Reads the config.json of a CLIP or SigLIP checkpoint.
 *
 * @param json the parsed file
 * @param file its name in messages
 * @throws {WarpsightError} ERR_CONFIG: another model, or a field that is missing, of a wrong type or absurd
 */
export function parseClipModelConfig(json: unknown, file = 'config.json'): ClipModelConfig {
  const config = JsonObject.parse(file, json);
  return kindOf(config) === 'siglip' ? siglipConfig(config) : clipConfig(config);
}

// LLaVA without a vision_config: CLIP ViT-L/14 at 336 pixels.
// source: transformers/models/llava/configuration_llava.py
const llavaVision = {
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  patch_size: 14,
  image_size: 336,
};

/**
 * The vision_config of a model whose vision tower is CLIP's.
 *
 * @throws {WarpsightError} ERR_CONFIG, also for another tower
 */
export function parseClipVisionConfig(config: JsonObject): VisionConfig {
  const fields = config.object('vision_config') ?? new JsonObject(config.file, 'vision_config.', llavaVision);
  fields.choice('model_type', { clip_vision_model: true }, 'clip_vision_model');
  return visionConfig(fields, clipVision);
}

/** @throws {WarpsightError} ERR_CONFIG, also for a SigLIP */
export function parseClipConfig(json: unknown, file = 'config.json'): ClipConfig {
  const config = parseClipModelConfig(json, file);
  if (config.kind === 'clip') return config;
  throw new WarpsightError('ERR_CONFIG', `${file} describes a SigLIP model, a CLIP was asked for`);
}

/** @throws {WarpsightError} ERR_CONFIG, also for a CLIP */
export function parseSiglipConfig(json: unknown, file = 'config.json'): SiglipConfig {
  const config = parseClipModelConfig(json, file);
  if (config.kind === 'siglip') return config;
  throw new WarpsightError('ERR_CONFIG', `${file} describes a CLIP model, a SigLIP was asked for`);
}

function kindOf(config: JsonObject): 'clip' | 'siglip' {
  const { file } = config;
  const architectures = config.get('architectures');
  const architecture = Array.isArray(architectures) ? architectures[0] : undefined;
  const type = config.string('model_type') ?? { CLIPModel: 'clip', SiglipModel: 'siglip' }[String(architecture)];
  const refuse = (why: string) => new WarpsightError('ERR_CONFIG', `${file}: ${why}`);

  if (config.get('quantization_config') !== undefined) {
    throw refuse('quantization_config is set: only float32, float16 and bfloat16 checkpoints are read');
  }
  if (typeof architecture === 'string' && /^(CLIP|Siglip)(Vision|Text)/.test(architecture)) {
    throw refuse(`it describes one tower alone (${architecture}): CLIP needs a vision and a text tower`);
  }
  if (type !== undefined && /^(clip|siglip|siglip2|metaclip_2)_(vision|text)_model$/.test(type)) {
    throw refuse(`it describes one tower alone (model_type ${type}): CLIP needs a vision and a text tower`);
  }
  switch (type) {
    case 'clip':
    case 'metaclip_2':
      return 'clip';
    case 'siglip':
      return 'siglip';
    case 'siglip2':
      throw refuse(
        'model_type siglip2 is the NaFlex form with variable patch grids, which is not supported; ' +
          'SigLIP 2 of one resolution has model_type siglip',
      );
    default:
      throw config.error('model_type', 'clip, metaclip_2 or siglip');
  }
}

function clipConfig(config: JsonObject): ClipConfig {
  const text = towerFields(config, 'text_config');
  const eosTokenId = text.integer('eos_token_id', 0, kLargestVocabulary, 49_407);
  const vocabularySize = text.integer('vocab_size', 1, kLargestVocabulary, clipText.vocab_size);
  if (text.get('eos_token_id') !== undefined && eosTokenId !== 2 && eosTokenId >= vocabularySize) {
    throw text.error('eos_token_id', `2, or below vocab_size, ${vocabularySize}`);
  }
  if (eosTokenId === 2 && config.get('model_type') === 'metaclip_2') {
    // There 2 is a true id, where CLIP's files mean "the largest id"; the texts go through another tokenizer as well.
    throw new WarpsightError('ERR_CONFIG', `${config.file}: model_type metaclip_2 with eos_token_id 2 is not supported`);
  }
  return {
    kind: 'clip',
    vision: visionConfig(towerFields(config, 'vision_config'), clipVision),
    text: { ...textConfig(text, clipText), eosTokenId },
    projectionDim: config.integer('projection_dim', 1, kLargestSize, 512),
    dtype: dtypeOf(config),
  };
}

function siglipConfig(config: JsonObject): SiglipConfig {
  const textFields = towerFields(config, 'text_config');
  const visionFields = towerFields(config, 'vision_config');
  const vision = visionConfig(visionFields, siglipVision);
  const text = textConfig(textFields, siglipText);
  if (!visionFields.boolean('vision_use_head', true)) {
    throw new WarpsightError(
      'ERR_CONFIG',
      `${config.file}: vision_config.vision_use_head is false: without its pooling head a SigLIP has no image embedding`,
    );
  }
  const projectionDim = textFields.integer('projection_size', 1, kLargestSize, text.hiddenSize);
  if (projectionDim !== vision.hiddenSize) {
    throw new WarpsightError(
      'ERR_CONFIG',
      `${config.file}: text embeddings are ${projectionDim} wide (text_config.projection_size), image embeddings ` +
        `${vision.hiddenSize} (vision_config.hidden_size); they must be equal`,
    );
  }
  const padTokenId = textFields.integer('pad_token_id', 0, kLargestVocabulary, 1);
  if (padTokenId >= text.vocabularySize) throw textFields.error('pad_token_id', `below vocab_size, ${text.vocabularySize}`);
  return { kind: 'siglip', vision, text: { ...text, padTokenId }, projectionDim, dtype: dtypeOf(config) };
}

/**
 * The fields of a tower. text_config_dict, which older versions of transformers wrote beside text_config, wins as a whole: what it leaves
 * out takes the class's default, not the value of text_config. A tower that is not described at all has the defaults.
 */
function towerFields(config: JsonObject, name: 'text_config' | 'vision_config'): JsonObject {
  const fields = config.object(`${name}_dict`) ?? config.object(name);
  return fields ?? new JsonObject(config.file, `${name}.`, {});
}
