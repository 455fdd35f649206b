import { checkTensors, type ExpectedTensor } from '../checkpoint/expected';
import type { CheckpointTensor } from '../checkpoint/folder';
import type { Naming } from '../checkpoint/names';
import type { WeightLoader } from '../checkpoint/weight-loader';
import type { DecoderLayer } from '../nn/decoder-layer';
import type { Linear } from '../nn/encoder-layer';
import { Weight } from '../weight';
import type { LanguageParts } from './language-model';
import { linearTensors } from './layer-names';
import { type LlamaConfig, ropeFrequencies } from './llama-config';
import { stackedLinear } from './tower-weights';

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
export function llamaTensors(config: LlamaConfig): ExpectedTensor[] {
  const { hiddenSize: D, intermediateSize: I, heads, kvHeads, headWidth: d, vocabularySize: V } = config;
  const layers = Array.from({ length: config.layers }, (_, i) => `language_model.layers.${i}`).flatMap(
    (layer): ExpectedTensor[] => [
      [`${layer}.input_layernorm.weight`, [D]],
      ...linearTensors(`${layer}.self_attn.q_proj`, heads * d, D, config.attentionBias),
      ...linearTensors(`${layer}.self_attn.k_proj`, kvHeads * d, D, config.attentionBias),
      ...linearTensors(`${layer}.self_attn.v_proj`, kvHeads * d, D, config.attentionBias),
      ...linearTensors(`${layer}.self_attn.o_proj`, D, heads * d, config.attentionBias),
      [`${layer}.post_attention_layernorm.weight`, [D]],
      ...linearTensors(`${layer}.mlp.gate_proj`, I, D, config.mlpBias),
      ...linearTensors(`${layer}.mlp.up_proj`, I, D, config.mlpBias),
      ...linearTensors(`${layer}.mlp.down_proj`, D, I, config.mlpBias),
    ],
  );
  return [
    [kTokens, [V, D]],
    ...layers,
    ['language_model.norm.weight', [D]],
    ...(config.tied ? [] : [['lm_head.weight', [V, D]] as const]),
  ];
}

/** @throws {WarpsightError} ERR_CHECKPOINT: see checkTensors */
export function checkLlamaTensors(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  expected: readonly ExpectedTensor[],
  { layers }: LlamaConfig,
): void {
  const stack = { name: 'language_model', prefix: 'language_model.layers.', layers };
  const hint = (name: string) => (name === 'lm_head.weight' ? ', and the config does not tie the head to the embedding' : '');
  checkTensors(tensors, expected, [stack], hint);
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
    dtype: load.activations,
  };
}

function decoderLayer(load: WeightLoader, name: string, config: LlamaConfig): DecoderLayer {
  const { hiddenSize: D, intermediateSize: I, heads, kvHeads, headWidth, eps, attentionBias, mlpBias } = config;
  const joined = (parts: readonly string[], rows: number, columns: number, bias: boolean): Linear => {
    const names = parts.map((part) => `${name}.${part}`);
    return stackedLinear(load, names, rows, columns, bias);
  };
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
