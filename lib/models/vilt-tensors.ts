import { checkTensors, type ExpectedTensor } from '../checkpoint/expected';
import type { CheckpointTensor } from '../checkpoint/folder';
import { type Naming, nameOfWeight } from '../checkpoint/names';
import type { WeightLoader } from '../checkpoint/weight-loader';
import { WarpsightError } from '../errors';
import { Weight } from '../weight';
import { layerTensors, linearTensors, normTensors, viltLayer } from './layer-names';
import { layerNorm, linear, tower } from './tower-weights';
import type { ViltHead, ViltParts } from './vilt';
import type { ViltConfig } from './vilt-config';

export const viltNaming: Naming = {
  canonical: nameOfWeight,
  refuse: (names) =>
    [...names].some((name) => name.startsWith('vilt.')) ? undefined : 'none of its tensors has a name of a ViLT, "vilt.…"',
};

/** Which head a checkpoint has. */
export type ViltHeadKind = 'retrieval' | 'answers';

const kPatches = 'vilt.embeddings.patch_embeddings.projection';
const kText = 'vilt.embeddings.text_embeddings';
const kLayers = 'vilt.encoder.layer.';
const kRank = 'rank_output';
const kAnswers = 'classifier.3';

/** The token embeddings: their stored dtype stands for the checkpoint's. */
export const kViltTokens = `${kText}.word_embeddings.weight`;

/**
 * The head that is there: `rank_output` scores a pair, `classifier` the answers to a question.
 *
 * @throws {WarpsightError} ERR_CHECKPOINT if there is none
 */
export function viltHeadOf(tensors: ReadonlyMap<string, CheckpointTensor>): { kind: ViltHeadKind; outputs: number } {
  if (tensors.has(`${kRank}.weight`)) return { kind: 'retrieval', outputs: 1 };
  const [outputs] = tensors.get(`${kAnswers}.weight`)?.stored.shape ?? [];
  if (outputs !== undefined && outputs > 0) return { kind: 'answers', outputs };
  const wanted = `"${kRank}.weight" (retrieval) or "${kAnswers}.weight" (question answering)`;
  throw new WarpsightError('ERR_CHECKPOINT', `the checkpoint has no head: ${wanted} must be there`);
}

/** Every tensor that a ViLT of this config and head needs. */
export function viltTensors(config: ViltConfig, head: ViltHeadKind, outputs: number): ExpectedTensor[] {
  const { vision, text } = config;
  const D = vision.hiddenSize;
  const grid = Math.floor(vision.imageSize / vision.patchSize);
  return [
    [kViltTokens, [text.vocabularySize, D]],
    [`${kText}.position_embeddings.weight`, [text.contextLength, D]],
    [`${kText}.token_type_embeddings.weight`, [config.tokenTypes, D]],
    ...normTensors(`${kText}.LayerNorm`, D),
    ['vilt.embeddings.cls_token', [1, 1, D]],
    ['vilt.embeddings.position_embeddings', [1, grid * grid + 1, D]],
    [`${kPatches}.weight`, [D, 3, vision.patchSize, vision.patchSize]],
    [`${kPatches}.bias`, [D]],
    ['vilt.embeddings.token_type_embeddings.weight', [config.modalities, D]],
    ...layerTensors(kLayers, vision, { ...viltLayer, qkvBias: config.qkvBias }),
    ...normTensors('vilt.layernorm', D),
    ...linearTensors('vilt.pooler.dense', D, D),
    ...(head === 'retrieval'
      ? linearTensors(kRank, outputs, D)
      : [
          ...linearTensors('classifier.0', 2 * D, D),
          ...normTensors('classifier.1', 2 * D),
          ...linearTensors(kAnswers, outputs, 2 * D),
        ]),
  ];
}

/** @throws {WarpsightError} ERR_CHECKPOINT: see checkTensors */
export function checkViltTensors(tensors: ReadonlyMap<string, CheckpointTensor>, config: ViltConfig): void {
  const { kind, outputs } = viltHeadOf(tensors);
  const { layers } = config.vision;
  checkTensors(tensors, viltTensors(config, kind, outputs), [{ name: 'the encoder', prefix: kLayers, layers }]);
}

/** The parts of a ViLT; the loader fills their weights. Small tables that are added to each other are read and added here. */
export async function viltParts(config: ViltConfig, load: WeightLoader): Promise<ViltParts> {
  const { vision, text } = config;
  const D = vision.hiddenSize;
  const { kind, outputs } = viltHeadOf(load.checkpoint.tensors);
  const [positions, tokenTypes, modalities, textBias, imagePositions] = await Promise.all([
    load.numbers(`${kText}.position_embeddings.weight`),
    load.numbers(`${kText}.token_type_embeddings.weight`),
    load.numbers('vilt.embeddings.token_type_embeddings.weight'),
    load.numbers(`${kText}.LayerNorm.bias`),
    load.numbers('vilt.embeddings.position_embeddings'),
  ]);
  const { device } = load;
  return {
    text: {
      tokens: load.table(kViltTokens, [text.vocabularySize, D]),
      // Every token is of type 0.
      positions: Weight.table(plusRow(positions, tokenTypes.subarray(0, D)), [text.contextLength, D], { device }),
      norm: {
        weight: load.vector([`${kText}.LayerNorm.weight`], D),
        bias: Weight.vector(plusRow(textBias, modalities.subarray(0, D)), { device }),
        eps: text.eps,
      },
    },
    image: {
      patch: vision.patchSize,
      weight: load.matrix([`${kPatches}.weight`], [D, 3 * vision.patchSize ** 2]),
      bias: load.vector([`${kPatches}.bias`], D),
      classToken: load.vector(['vilt.embeddings.cls_token'], D),
      positions: plusRow(imagePositions, modalities.subarray(D, 2 * D)),
      grid: Math.floor(vision.imageSize / vision.patchSize),
    },
    ...tower(load, kLayers, vision, { ...viltLayer, qkvBias: config.qkvBias }),
    finalNorm: layerNorm(load, 'vilt.layernorm', vision),
    pooler: linear(load, 'vilt.pooler.dense', D, D, 'float32'),
    head: viltHead(kind, outputs, config, load),
    dtype: load.activations,
  };
}

function viltHead(kind: ViltHeadKind, outputs: number, { vision, labels }: ViltConfig, load: WeightLoader): ViltHead {
  const D = vision.hiddenSize;
  if (kind === 'retrieval') return { kind, linear: linear(load, kRank, outputs, D, 'float32') };
  return {
    kind,
    fc1: linear(load, 'classifier.0', 2 * D, D, 'float32'),
    norm: layerNorm(load, 'classifier.1', { hiddenSize: 2 * D, eps: 1e-5 }), // torch's default, whatever the config says
    fc2: linear(load, kAnswers, outputs, 2 * D, 'float32'),
    labels: Array.from({ length: outputs }, (_, i) => labels.get(i) ?? `LABEL_${i}`),
  };
}

/** `row` added to each row of `table`, summed in double. */
function plusRow(table: Float32Array, row: Float32Array): Float32Array {
  return table.map((value, i) => value + row[i % row.length]!);
}
