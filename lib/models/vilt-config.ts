import { JsonObject, shown } from '../checkpoint/json';
import { WarpsightError } from '../errors';
import { kLargestSize, kLargestVocabulary, type TextConfig, textConfig, type VisionConfig, visionConfig } from './tower-config';

/** ViLT: one encoder of pre-norm layers over the tokens of a text and the patches of a picture. */
export interface ViltConfig {
  /** The encoder, and the pictures that the position table was trained with: others may be larger, smaller and of any form. */
  readonly vision: VisionConfig;
  /** The same encoder, and the texts. */
  readonly text: TextConfig & { readonly padTokenId: number };
  /** Rows of the table of modalities: 0 is text, 1 a picture. */
  readonly modalities: number;
  readonly tokenTypes: number;
  readonly qkvBias: boolean;
  /** Names of the answers by index, as far as id2label has them. */
  readonly labels: ReadonlyMap<number, string>;
}

// What a field that is not given means.
// source: transformers/models/vilt/configuration_vilt.py
const viltDefaults = {
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  hidden_act: 'gelu',
  layer_norm_eps: 1e-12,
  image_size: 384,
  patch_size: 32,
  vocab_size: 30_522,
  max_position_embeddings: 40,
};

/** Heads that are another task's. */
const refused: Readonly<Record<string, string>> = {
  ViltForImagesAndTextClassification: 'it judges several pictures together (NLVR2)',
  ViltForMaskedLM: 'it fills masks in a text',
  ViltForTokenClassification: 'it labels the tokens of a text',
  ViltModel: 'it has no head',
};

/**
 * Reads the config.json of a ViLT checkpoint.
 *
 * @throws {WarpsightError} ERR_CONFIG: another model or task, or a field that is missing, of a wrong type or absurd
 */
export function parseViltConfig(json: unknown, file = 'config.json'): ViltConfig {
  const config = JsonObject.parse(file, json);
  config.choice('model_type', { vilt: true });
  const architectures = config.get('architectures');
  const architecture: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  const reason = typeof architecture === 'string' && Object.hasOwn(refused, architecture) ? refused[architecture] : undefined;
  if (reason !== undefined) {
    const wanted = 'ViltForImageAndTextRetrieval and ViltForQuestionAnswering are supported';
    throw new WarpsightError('ERR_CONFIG', `${file}: ${String(architecture)} is not supported, ${reason}; ${wanted}`);
  }
  const vision = visionConfig(config, viltDefaults, viltDefaults.image_size);
  return {
    vision,
    text: { ...textConfig(config, viltDefaults), padTokenId: config.integer('pad_token_id', 0, kLargestVocabulary, 0) },
    modalities: config.integer('modality_type_vocab_size', 2, kLargestSize, 2),
    tokenTypes: config.integer('type_vocab_size', 1, kLargestSize, 2),
    qkvBias: config.boolean('qkv_bias', true),
    labels: labelsOf(config),
  };
}

function labelsOf(config: JsonObject): ReadonlyMap<number, string> {
  const fields = config.object('id2label')?.fields ?? {};
  return new Map(
    Object.entries(fields).map(([id, label]) => {
      if (/^\d{1,9}$/.test(id) && typeof label === 'string') return [Number(id), label];
      const given = `it has ${shown(id)}: ${shown(label)}`;
      throw new WarpsightError('ERR_CONFIG', `${config.file}: id2label must give a name for each index: ${given}`);
    }),
  );
}
