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
import { attentionRows, concat, embed, gatherRows, linear, patchEmbed } from '../ops';
import type { Tensor } from '../tensor';
import type { Weight } from '../weight';
import { toFloat32 } from './encode-program';

/** Pictures to one row of features each. A composition of CLIP may bring its own. */
export interface VisionEncoder {
  /** Height and width of the pictures in pixels. */
  readonly imageSize: number;
  /** D, the width of the features. */
  readonly width: number;
  /** T, the rows of a picture inside: on the CPU a large batch is computed in parts of not too many. 1 by default */
  readonly tokens?: number;
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
  readonly tokens: number;

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
    this.tokens = Math.floor(imageSize / embedding.patch) ** 2 + 1;
  }

  pooledRow(image: number): number {
    return image * this.tokens;
  }

  forward(pixels: Tensor<'float32'>, pooledRows: Tensor<'int32'>): Tensor<Float> {
    const { embedding, preNorm, layers, lastLayer, postNorm, dtype } = this.parts;
    const T = this.tokens;
    let x = patchEmbed(pixels, embedding.weight, { ...embedding, dtype }); // [n·T, D]
    x = norm(x, preNorm);
    for (const layer of layers) x = encoderLayer(x, layer, { maxQueries: T, maxKeys: T });
    x = pooledLayer(x, lastLayer, pooledRows, { maxQueries: 1, maxKeys: T }); // [n, D]
    return norm(toFloat32(x), postNorm);
  }
}

/** Pictures to several rows of features each. A composition of LLaVA may bring its own. */
export interface FeatureEncoder {
  /** Height and width of the pictures in pixels. */
  readonly imageSize: number;
  /** D, the width of a row. */
  readonly width: number;
  /** Rows of a picture, and image marks in a prompt. */
  readonly rowsPerImage: number;
  /** The rows that `rows` names for picture i. */
  rowsOf(image: number): readonly number[];
  /**
   * Operations only: it is traced once for each bucket of batch sizes.
   *
   * @param pixels [n, 3, imageSize, imageSize]
   * @param rows [n·rowsPerImage] int32, of rowsOf(0) … rowsOf(n − 1)
   * @returns [n·rowsPerImage, D]
   */
  forward(pixels: Tensor<'float32'>, rows: Tensor<'int32'>): Tensor<Float>;
}

/** Where in CLIP's vision tower features are taken. */
export interface FeatureSelection {
  /** States joined side by side: 0 is what goes into the first layer, k what layer k gives. */
  readonly states: readonly number[];
  /** The class token's rows are kept. */
  readonly classToken: boolean;
}

/**
 * CLIP's vision tower up to the states that are read: features of patches, not of the picture.
 *
 * @see Liu et al. 2023, section 4.1
 */
export class VisionFeatures implements FeatureEncoder {
  /** The states' widths together. */
  readonly width: number;
  readonly rowsPerImage: number;
  readonly #tokens: number;

  /** @param parts layers: as many as the last state needs */
  constructor(
    readonly imageSize: number,
    readonly selection: FeatureSelection,
    readonly parts: {
      readonly embedding: PatchEmbedding;
      readonly preNorm: LayerNorm;
      readonly layers: readonly EncoderLayer[];
      readonly dtype: Float;
    },
  ) {
    const patches = Math.floor(imageSize / parts.embedding.patch) ** 2;
    this.#tokens = patches + 1;
    this.rowsPerImage = patches + (selection.classToken ? 1 : 0);
    this.width = parts.preNorm.weight.shape[0]! * selection.states.length;
  }

  rowsOf(image: number): number[] {
    const first = image * this.#tokens + (this.selection.classToken ? 0 : 1);
    return Array.from({ length: this.rowsPerImage }, (_, i) => first + i);
  }

  forward(pixels: Tensor<'float32'>, rows: Tensor<'int32'>): Tensor<Float> {
    const { embedding, preNorm, layers, dtype } = this.parts;
    const T = this.#tokens;
    const states = [norm(patchEmbed(pixels, embedding.weight, { ...embedding, dtype }), preNorm)]; // [n·T, D] each
    for (const layer of layers) states.push(encoderLayer(states.at(-1)!, layer, { maxQueries: T, maxKeys: T }));
    const chosen = this.selection.states.map((index) => gatherRows(states[index]!, rows));
    return chosen.length === 1 ? chosen[0]! : concat(chosen);
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
  readonly tokens: number;

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
    this.tokens = Math.floor(imageSize / parts.embedding.patch) ** 2;
  }

  pooledRow(): number {
    return 0; // of the probe's one row
  }

  forward(pixels: Tensor<'float32'>, pooledRows: Tensor<'int32'>): Tensor<Float> {
    const { embedding, layers, postNorm, head, dtype } = this.parts;
    const T = this.tokens;
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
