import type { CheckpointTensor } from '../checkpoint/folder';
import type { Naming } from '../checkpoint/names';
import type { WeightLoader } from '../checkpoint/weight-loader';
import { WarpsightError } from '../errors';
import type { DecoderLayer } from '../nn/decoder-layer';
import type { Linear } from '../nn/encoder-layer';
import { type Shape, sameShape } from '../shape';
import { Weight } from '../weight';
import type { LanguageParts } from './language-model';
import { type LlamaConfig, ropeFrequencies } from './llama-config';

// The names that models ask for are those of transformers 5: `model.language_model.…` without its `model.`, and `lm_head.weight`.
const renames: readonly (readonly [RegExp, string])[] = [
  [/^language_model\.lm_head\./, 'lm_head.'],
  [/^language_model\.model\./, 'language_model.'],
  [/^model\.(?=language_model\.|vision_tower\.|multi_modal_projector\.|image_newline)/, ''],
  [/^model\.(?=embed_tokens\.|layers\.|norm\.)/, 'language_model.'],
  [/^vision_tower\.(?!vision_model\.)/, 'vision_tower.vision_model.'],
  [/^vision_tower\./, ''],
];

/** The token embeddings: their stored dtype stands for the checkpoint's. */
export const kTokens = 'language_model.embed_tokens.weight';

/** Buffers that some versions stored: not weights. */
const buffers = /(^|\.)(position_ids|rotary_emb\.inv_freq)$/;

/** The name that models use for a stored tensor of a Llama or a LLaVA; undefined for what is no weight. */
export function canonicalLlamaName(stored: string): string | undefined {
  if (buffers.test(stored)) return undefined;
  return renames.reduce((name, [pattern, replacement]) => name.replace(pattern, replacement), stored);
}

export const llamaNaming: Naming = { canonical: canonicalLlamaName, refuse: () => undefined };

/** Every tensor that a Llama of this config needs, by canonical name. */
export function llamaTensors(config: LlamaConfig): [string, Shape][] {
  const { hiddenSize: D, intermediateSize: I, heads, kvHeads, headWidth: d, vocabularySize: V } = config;
  const linear = (name: string, rows: number, columns: number, bias: boolean): [string, Shape][] => [
    [`${name}.weight`, [rows, columns]],
    ...(bias ? [[`${name}.bias`, [rows]] as [string, Shape]] : []),
  ];
  const layers = Array.from({ length: config.layers }, (_, i) => `language_model.layers.${i}`).flatMap(
    (layer): [string, Shape][] => [
      [`${layer}.input_layernorm.weight`, [D]],
      ...linear(`${layer}.self_attn.q_proj`, heads * d, D, config.attentionBias),
      ...linear(`${layer}.self_attn.k_proj`, kvHeads * d, D, config.attentionBias),
      ...linear(`${layer}.self_attn.v_proj`, kvHeads * d, D, config.attentionBias),
      ...linear(`${layer}.self_attn.o_proj`, D, heads * d, config.attentionBias),
      [`${layer}.post_attention_layernorm.weight`, [D]],
      ...linear(`${layer}.mlp.gate_proj`, I, D, config.mlpBias),
      ...linear(`${layer}.mlp.up_proj`, I, D, config.mlpBias),
      ...linear(`${layer}.mlp.down_proj`, D, I, config.mlpBias),
    ],
  );
  return [
    [kTokens, [V, D]],
    ...layers,
    ['language_model.norm.weight', [D]],
    ...(config.tied ? [] : [['lm_head.weight', [V, D]] as [string, Shape]]),
  ];
}

/**
 * Compares a checkpoint with what its config needs, so that nothing stays unfilled and nothing is read that isn't there.
 *
 * @throws {WarpsightError} ERR_CHECKPOINT: a tensor is missing, of another shape, no float, or of a layer that the config doesn't have
 */
export function checkTensors(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  expected: readonly (readonly [string, Shape])[],
  layers: number,
): void {
  for (const [name, shape] of expected) {
    const tensor = tensors.get(name);
    if (!tensor) {
      const hint = name === 'lm_head.weight' ? ', and the config does not tie the head to the embedding' : '';
      throw new WarpsightError('ERR_CHECKPOINT', `the checkpoint has no tensor "${name}"${hint}`);
    }
    const { stored, fileName } = tensor;
    const says = `checkpoint "${fileName}": "${stored.name}" is`;
    if (!sameShape(stored.shape, shape)) {
      throw new WarpsightError('ERR_CHECKPOINT', `${says} [${stored.shape.join(', ')}], the config says [${shape.join(', ')}]`);
    }
    if (!['F32', 'F16', 'BF16'].includes(stored.dtype)) {
      throw new WarpsightError('ERR_CHECKPOINT', `${says} ${stored.dtype}; weights must be F32, F16 or BF16`);
    }
  }
  for (const [name, { stored, fileName }] of tensors) {
    const [, layer] = /^language_model\.layers\.(\d+)\./.exec(name) ?? [];
    if (layer === undefined || Number(layer) < layers) continue;
    throw new WarpsightError(
      'ERR_CHECKPOINT',
      `checkpoint "${fileName}": it has "${stored.name}", but the config says that there are ${layers} layers`,
    );
  }
}

/** The parts of a Llama; the loader fills their weights. */
export function llamaParts(config: LlamaConfig, load: WeightLoader): LanguageParts {
  const { hiddenSize: D, vocabularySize: V, eps } = config;
  const embedding = kTokens;
  const head = load.matrix([config.tied ? embedding : 'lm_head.weight'], [V, D]);
  return {
    tokens: config.tied ? head : load.table(embedding, [V, D]),
    layers: Array.from({ length: config.layers }, (_, i) => decoderLayer(load, `language_model.layers.${i}`, config)),
    norm: { weight: load.vector(['language_model.norm.weight'], D), eps },
    head: { weight: head },
    frequencies: Weight.vector(ropeFrequencies(config), { device: load.device }),
    dtype: load.compute,
  };
}

function decoderLayer(load: WeightLoader, name: string, config: LlamaConfig): DecoderLayer {
  const { hiddenSize: D, intermediateSize: I, heads, kvHeads, headWidth, eps, attentionBias, mlpBias } = config;
  const joined = (names: readonly string[], rows: number, columns: number, bias: boolean): Linear => ({
    weight: load.matrix(
      names.map((part) => `${name}.${part}.weight`),
      [rows, columns],
    ),
    bias: bias
      ? load.vector(
          names.map((part) => `${name}.${part}.bias`),
          rows,
        )
      : undefined,
  });
  const projections = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'];
  return {
    heads,
    kvHeads,
    headWidth,
    norm1: { weight: load.vector([`${name}.input_layernorm.weight`], D), eps },
    qkv: joined(projections, (heads + 2 * kvHeads) * headWidth, D, attentionBias),
    out: joined(['self_attn.o_proj'], D, heads * headWidth, attentionBias),
    norm2: { weight: load.vector([`${name}.post_attention_layernorm.weight`], D), eps },
    gateUp: joined(['mlp.gate_proj', 'mlp.up_proj'], 2 * I, D, mlpBias),
    down: joined(['mlp.down_proj'], D, I, mlpBias),
  };
}
