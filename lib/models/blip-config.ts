import { JsonObject } from '../checkpoint/json';
import { WarpsightError } from '../errors';
import { kLargestSize, kLargestVocabulary, type TextConfig, textConfig, type VisionConfig, visionConfig } from './tower-config';

/** BLIP for image-text matching: a vision tower, and a text encoder whose layers attend to its features. */
export interface BlipConfig {
  readonly vision: VisionConfig;
  readonly text: TextConfig & { readonly padTokenId: number };
  /** d, the width of embeddings */
  readonly projectionDim: number;
}

// What a field that is not given means.
// source: transformers/models/blip/configuration_blip.py
const visionDefaults = {
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  hidden_act: 'gelu',
  layer_norm_eps: 1e-5,
  image_size: 384,
  patch_size: 16,
};
const textDefaults = {
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 8,
  hidden_act: 'gelu',
  layer_norm_eps: 1e-12,
  vocab_size: 30_524,
  max_position_embeddings: 512,
};

/**
 * Reads the config.json of a BLIP checkpoint for image-text matching.
 *
 * @throws {WarpsightError} ERR_CONFIG: another model or task, or a field that is missing, of a wrong type or absurd
 */
export function parseBlipConfig(json: unknown, file = 'config.json'): BlipConfig {
  const config = JsonObject.parse(file, json);
  config.choice('model_type', { blip: true });
  const architectures = config.get('architectures');
  const architecture: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  if (typeof architecture === 'string' && architecture !== 'BlipForImageTextRetrieval') {
    throw new WarpsightError('ERR_CONFIG', `${file}: ${architecture} is not supported: BlipForImageTextRetrieval is`);
  }
  const visionFields = config.object('vision_config') ?? new JsonObject(file, 'vision_config.', {});
  const textFields = config.object('text_config') ?? new JsonObject(file, 'text_config.', {});
  return {
    vision: visionConfig(visionFields, visionDefaults, visionDefaults.image_size),
    text: {
      ...textConfig(textFields, textDefaults),
      padTokenId: textFields.integer('pad_token_id', 0, kLargestVocabulary, 0),
    },
    projectionDim: config.integer('image_text_hidden_size', 1, kLargestSize, 256),
  };
}
