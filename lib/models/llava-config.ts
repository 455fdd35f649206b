import { JsonObject, shown } from '../checkpoint/json';
import { WarpsightError } from '../errors';
import type { Activation } from '../ops';
import { parseClipVisionConfig } from './clip-config';
import { type LlamaConfig, llamaFields } from './llama-config';
import { activationOf, type VisionConfig } from './tower-config';
import type { FeatureSelection } from './vision-encoder';

/** A LLaVA: CLIP's vision tower, a projector of two layers, a Llama. */
export interface LlavaConfig {
  readonly vision: VisionConfig;
  readonly text: LlamaConfig;
  readonly selection: FeatureSelection;
  readonly projectorActivation: Activation;
  readonly projectorBias: boolean;
  /** Stands for a picture in a prompt. */
  readonly imageTokenId: number;
  /** Rows of features, and image marks, of a picture: what the config's sizes give. */
  readonly tokensPerImage: number;
}

/**
 * Reads the config.json of a llava-hf 1.5 checkpoint.
 *
 * @throws {WarpsightError} ERR_CONFIG: another model, or a field that is missing, of a wrong type or absurd
 */
export function parseLlavaConfig(json: unknown, file = 'config.json'): LlavaConfig {
  const config = JsonObject.parse(file, json);
  const type = config.string('model_type') ?? 'llava';
  if (type === 'llava_next')
    throw new WarpsightError('ERR_CONFIG', `${file}: model_type llava_next is not supported yet; llava is`);
  if (type !== 'llava') throw config.error('model_type', 'llava');
  const tied = config.get('tie_word_embeddings') === undefined ? undefined : config.boolean('tie_word_embeddings');
  const text = llamaFields(config.object('text_config') ?? new JsonObject(file, 'text_config.', {}), tied);
  const vision = parseClipVisionConfig(config);
  const strategy = config.choice('vision_feature_select_strategy', { default: false, full: true }, 'default');
  const idField = config.get('image_token_id') !== undefined ? 'image_token_id' : 'image_token_index';
  const imageTokenId = config.integer(idField, 0, 10_000_000, 32_000);
  if (imageTokenId >= text.vocabularySize) throw config.error(idField, `below text_config.vocab_size, ${text.vocabularySize}`);
  return {
    vision,
    text,
    selection: { states: statesOf(config, vision.layers), classToken: strategy },
    projectorActivation: activationOf(config, 'projector_hidden_act', 'gelu'),
    projectorBias: config.boolean('multimodal_projector_bias', true),
    imageTokenId,
    tokensPerImage: Math.floor(vision.imageSize / vision.patchSize) ** 2 + (strategy ? 1 : 0),
  };
}

/** vision_feature_layer counts from the state that goes into the first layer, 0, to that after the last; negative from the end. */
function statesOf(config: JsonObject, layers: number): number[] {
  const value = config.get('vision_feature_layer') ?? -2;
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  const valid = list.every((index) => Number.isInteger(index) && Number(index) >= -layers - 1 && Number(index) <= layers);
  if (!valid || list.length < 1 || list.length > 8) {
    const rule = `a state of the vision tower from ${-layers - 1} to ${layers}, or a list of up to 8 of them`;
    throw new WarpsightError('ERR_CONFIG', `${config.file}: vision_feature_layer must be ${rule}: it is ${shown(value)}`);
  }
  return list.map((index) => (Number(index) < 0 ? layers + 1 + Number(index) : Number(index)));
}
