import type { Float } from '../dtype';
import {
  type EncoderLayer,
  encoderLayer,
  type LayerNorm,
  type Linear,
  type Mlp,
  mlp,
  norm,
  type PooledLayer,
  pooledLayer,
} from '../nn/encoder-layer';
import { attentionRows, embed, linear, patchEmbed } from '../ops';
import type { Tensor } from '../tensor';
import type { Weight } from '../weight';
import { toFloat32 } from './encode-program';

/** Pictures to one row of features each. A composition of CLIP may bring its own. */
export interface VisionEncoder {
  /** Height and width of the pictures in pixels. */
  readonly imageSize: number;
  /** D, the width of the features. */
  readonly width: number;
  /** The row that `pooledRows` names for picture i. */
  pooledRow(image: number): number;
  /**
   * Operations only: it is traced once for each bucket of batch sizes.
   *
   * @param pixels [n, 3, imageSize, imageSize]
   * @param pooledRows [n] int32, pooledRow(0) … pooledRow(n − 1)
   * @returns [n, D]
   */
  forward(pixels: Tensor<'float32'>, pooledRows: Tensor<'int32'>): Tensor<Float>;
}

export interface PatchEmbedding {
  readonly patch: number;
  readonly weight: Weight<'matrix'>;
  readonly bias?: Weight<'vector'> | undefined;
  readonly classToken?: Weight<'vector'> | undefined;
  readonly positions: Weight<'vector'>;
}

/**
 * CLIP's vision tower: patches and a class token, a norm in front, pre-norm layers, and the class token's row through a norm.
 *
 * @see Radford et al. 2021, section 2.4; Dosovitskiy et al. 2021
 */
export class VisionTransformer implements VisionEncoder {
  readonly width: number;
  readonly #tokens: number;

  constructor(
    readonly imageSize: number,
    readonly parts: {
      readonly embedding: PatchEmbedding;
      readonly preNorm: LayerNorm;
      readonly layers: readonly EncoderLayer[];
      readonly lastLayer: PooledLayer;
      readonly postNorm: LayerNorm;
      /** Dtype of the activations. */
      readonly dtype: Float;
    },
  ) {
    const { lastLayer, embedding } = parts;
    this.width = lastLayer.heads * lastLayer.headWidth;
    this.#tokens = Math.floor(imageSize / embedding.patch) ** 2 + 1;
  }

  pooledRow(image: number): number {
    return image * this.#tokens;
  }

  forward(pixels: Tensor<'float32'>, pooledRows: Tensor<'int32'>): Tensor<Float> {
    const { embedding, preNorm, layers, lastLayer, postNorm, dtype } = this.parts;
    const T = this.#tokens;
    let x = patchEmbed(pixels, embedding.weight, { ...embedding, dtype }); // [n·T, D]
    x = norm(x, preNorm);
    for (const layer of layers) x = encoderLayer(x, layer, { maxQueries: T, maxKeys: T });
    x = pooledLayer(x, lastLayer, pooledRows, { maxQueries: 1, maxKeys: T }); // [n, D]
    return norm(toFloat32(x), postNorm);
  }
}

/** Attention pooling: a learned query attends to all tokens, then a residual MLP. */
export interface AttentionPooling {
  /** [1, D], the learned query */
  readonly probe: Weight<'table'>;
  readonly heads: number;
  readonly headWidth: number;
  readonly q: Linear;
  readonly kv: Linear;
  readonly out: Linear;
  readonly norm: LayerNorm;
  readonly mlp: Mlp;
}

/**
 * SigLIP's vision tower: patches only, pre-norm layers, a norm over all rows, attention pooling.
 *
 * @see Zhai et al. 2023; Zhai et al. 2022 for the pooling head
 */
export class SiglipVisionTransformer implements VisionEncoder {
  readonly width: number;
  readonly #tokens: number;

  constructor(
    readonly imageSize: number,
    readonly parts: {
      readonly embedding: PatchEmbedding;
      readonly layers: readonly EncoderLayer[];
      readonly postNorm: LayerNorm;
      readonly head: AttentionPooling;
      readonly dtype: Float;
    },
  ) {
    this.width = parts.head.heads * parts.head.headWidth;
    this.#tokens = Math.floor(imageSize / parts.embedding.patch) ** 2;
  }

  pooledRow(): number {
    return 0; // of the probe's one row
  }

  forward(pixels: Tensor<'float32'>, pooledRows: Tensor<'int32'>): Tensor<Float> {
    const { embedding, layers, postNorm, head, dtype } = this.parts;
    const T = this.#tokens;
    let x = patchEmbed(pixels, embedding.weight, { ...embedding, dtype }); // [n·T, D]
    for (const layer of layers) x = encoderLayer(x, layer, { maxQueries: T, maxKeys: T });
    x = norm(x, postNorm);
    const queries = linear(embed(pooledRows, head.probe, { dtype }), head.q.weight, { bias: head.q.bias }); // [n, D]
    const keysValues = linear(x, head.kv.weight, { bias: head.kv.bias }); // [n·T, 2·D]
    const { heads, headWidth } = head;
    const layout = { heads, headWidth, offsets: [0, 0, this.width], maxQueries: 1, maxKeys: T } as const;
    const attended = attentionRows(queries, keysValues, keysValues, layout); // [n, D]
    const y = linear(attended, head.out.weight, { bias: head.out.bias });
    return mlp(norm(y, head.norm), head.mlp, y);
  }
}
