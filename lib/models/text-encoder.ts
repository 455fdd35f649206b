import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import {
  type EncoderLayer,
  encoderLayer,
  type LayerNorm,
  type Linear,
  norm,
  type PooledLayer,
  pooledLayer,
} from '../nn/encoder-layer';
import { embed, linear } from '../ops';
import { endOfTextIndex, planPaddedBatch, planTextBatch, type TextBatchPlan } from '../preprocess/text-batch';
import type { Tensor } from '../tensor';
import type { Weight } from '../weight';
import { toFloat32 } from './encode-program';

/** A batch of texts as a text encoder gets it: {@link TextBatchPlan} on the device. */
export interface TextInputs {
  /** [T] int32 */
  readonly ids: Tensor<'int32'>;
  /** [T] int32 */
  readonly positions: Tensor<'int32'>;
  /** [S, 6] int32 */
  readonly segments: Tensor<'int32'>;
  /** [B] int32 */
  readonly lastRows: Tensor<'int32'>;
  /** [B, 6] int32 */
  readonly lastSegments: Tensor<'int32'>;
}

/** Texts to one row of features each. A composition of CLIP may bring its own. */
export interface TextEncoder {
  /** The most tokens a text may have, its marks included. */
  readonly contextLength: number;
  /** D, the width of the features. */
  readonly width: number;
  readonly vocabularySize: number;
  /** How a batch is laid out: ragged, with shared prefixes, or padded. */
  layout(rows: readonly Int32Array[]): TextBatchPlan;
  /** Operations only: it is traced once for each bucket of batch sizes. @returns [B, D] */
  forward(inputs: TextInputs): Tensor<Float>;
}

interface TextEmbedding {
  readonly tokens: Weight<'table'>;
  readonly positions: Weight<'table'>;
}

/**
 * CLIP's text tower: causal, so that padding is never computed and what all texts begin with is computed once; the end mark's row is read.
 *
 * @see Radford et al. 2021, section 2.4
 */
export class TextTransformer implements TextEncoder {
  readonly width: number;

  constructor(
    readonly contextLength: number,
    readonly vocabularySize: number,
    readonly eosTokenId: number,
    readonly parts: {
      readonly embedding: TextEmbedding;
      readonly layers: readonly EncoderLayer[];
      readonly lastLayer: PooledLayer;
      readonly finalNorm: LayerNorm;
      readonly dtype: Float;
    },
  ) {
    this.width = parts.lastLayer.heads * parts.lastLayer.headWidth;
  }

  layout(rows: readonly Int32Array[]): TextBatchPlan {
    // What stands behind the row that is read can't reach it.
    const cut = rows.map((row) => row.subarray(0, endOfTextIndex(row, this.eosTokenId) + 1));
    cut.forEach((row, i) => {
      if (row.length > this.contextLength) throw tooLong(i, row.length, this.contextLength);
    });
    return planTextBatch(cut, { sharePrefix: true });
  }

  forward({ ids, positions, segments, lastRows, lastSegments }: TextInputs): Tensor<Float> {
    const { embedding, layers, lastLayer, finalNorm, dtype } = this.parts;
    const longest = { maxQueries: this.contextLength, maxKeys: this.contextLength, causal: true };
    let x = embed(ids, embedding.tokens, { positions, positionTable: embedding.positions, dtype }); // [T, D]
    for (const layer of layers) x = encoderLayer(x, layer, { ...longest, segments });
    x = pooledLayer(x, lastLayer, lastRows, { ...longest, maxQueries: 1, segments: lastSegments }); // [B, D]
    return norm(toFloat32(x), finalNorm);
  }
}

/**
 * SigLIP's text tower: bidirectional and trained with its padding, which therefore is computed; the last position is read, a pad mostly.
 *
 * @see Zhai et al. 2023
 */
export class SiglipTextTransformer implements TextEncoder {
  readonly width: number;

  constructor(
    readonly contextLength: number,
    readonly vocabularySize: number,
    readonly padTokenId: number,
    readonly parts: {
      readonly embedding: TextEmbedding;
      readonly layers: readonly EncoderLayer[];
      readonly lastLayer: PooledLayer;
      readonly finalNorm: LayerNorm;
      readonly head: Linear;
      readonly dtype: Float;
    },
  ) {
    this.width = parts.head.weight.shape[0]!;
  }

  layout(rows: readonly Int32Array[]): TextBatchPlan {
    rows.forEach((row, i) => {
      if (row.length > this.contextLength) throw tooLong(i, row.length, this.contextLength);
    });
    return planPaddedBatch(rows, { contextLength: this.contextLength, padTokenId: this.padTokenId });
  }

  forward({ ids, positions, segments, lastRows, lastSegments }: TextInputs): Tensor<Float> {
    const { embedding, layers, lastLayer, finalNorm, head, dtype } = this.parts;
    const longest = { maxQueries: this.contextLength, maxKeys: this.contextLength };
    let x = embed(ids, embedding.tokens, { positions, positionTable: embedding.positions, dtype }); // [T, D]
    for (const layer of layers) x = encoderLayer(x, layer, { ...longest, segments });
    x = pooledLayer(x, lastLayer, lastRows, { ...longest, maxQueries: 1, segments: lastSegments }); // [B, D]
    return linear(norm(toFloat32(x), finalNorm), head.weight, { bias: head.bias });
  }
}

function tooLong(index: number, length: number, most: number): WarpsightError {
  return new WarpsightError('ERR_ARGUMENT', `text ${index} has ${length} tokens, the model reads at most ${most}`);
}
