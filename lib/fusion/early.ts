/**
 * Early fusion: the tokens of all modalities form one sequence, and one encoder reads it. Every token meets every other in every layer; nothing
 * can be computed before the whole input is known.
 */
import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import { type EncoderLayer, encoderLayer, type LayerNorm, norm } from '../nn/encoder-layer';
import { add, embed } from '../ops';
import { scope, type Tensor } from '../tensor';
import type { Weight } from '../weight';
import { checkEncoderLayer, encoderLayer as encoderLayerOf, type LayerOptions, layerNorm } from './blocks';
import {
  besides,
  checkTokens,
  fillMissing,
  integers,
  keyMask,
  requireCount,
  requireWidth,
  rowsOf,
  type Tokens,
} from './modalities';
import { FusionModule } from './module';
import { type FusionLoadOptions, loadModule, type WeightSource } from './weight-source';

export type { TokenMask, Tokens } from './modalities';

export interface EarlyFusionParts {
  /** [M, D], added to every token of modality m; without it modalities are told apart by nothing but their tokens. */
  readonly modalityEmbeddings?: Weight<'table'> | undefined;
  readonly layers: readonly EncoderLayer[];
  /** Behind the last layer. */
  readonly norm?: LayerNorm | undefined;
}

export interface FusedTokens {
  /** [n, ΣT, D]; rows of tokens that are missing hold nothing of meaning */
  readonly tokens: Tensor<Float>;
  /** [n][ΣT] */
  readonly mask: readonly (readonly boolean[])[];
  /** Where each modality's tokens begin; undefined for one that was missing. */
  readonly starts: readonly (number | undefined)[];
  dispose(): void;
}

/**
 * Modality embeddings, concatenation, and an encoder of pre-norm layers over all tokens.
 *
 * @see Kim et al. 2021, section 3.1
 */
export class EarlyFusion extends FusionModule {
  readonly #width: number;

  /** @throws {WarpsightError} ERR_SHAPE, ERR_ARGUMENT if the parts don't fit together */
  constructor(readonly parts: EarlyFusionParts) {
    super();
    const { layers, modalityEmbeddings } = parts;
    const [first] = layers;
    if (!first) throw new WarpsightError('ERR_ARGUMENT', 'EarlyFusion: at least one layer is needed');
    this.#width = first.heads * first.headWidth;
    layers.forEach((layer, i) => {
      checkEncoderLayer('EarlyFusion', `layer ${i}`, layer, this.#width);
    });
    const D = modalityEmbeddings?.shape[1] ?? this.#width;
    if (D !== this.#width) {
      throw new WarpsightError('ERR_SHAPE', `EarlyFusion: modality embeddings are ${D} wide, the layers ${this.#width}`);
    }
  }

  /**
   * Tensors: `modality_embeddings.weight` [M, D] (may be absent); for each layer `layers.i.norm1`, `layers.i.attention.{query,key,value,out}`,
   * `layers.i.norm2`, `layers.i.mlp.{fc1,fc2}`, each `.weight` and `.bias`; `norm` (may be absent).
   *
   * @throws {WarpsightError} ERR_CHECKPOINT if a tensor is missing, of another shape or not used
   */
  static load(source: WeightSource, options: FusionLoadOptions & LayerOptions): Promise<EarlyFusion> {
    return loadModule('EarlyFusion', source, options, (weights) => {
      const count = weights.count('layers');
      if (count === 0) throw weights.error('has no "layers.0…"');
      const [D] = weights.sizeOf('layers.0.attention.out.weight');
      return new EarlyFusion({
        modalityEmbeddings: weights.has('modality_embeddings.weight') ? weights.table('modality_embeddings.weight') : undefined,
        layers: Array.from({ length: count }, (_, i) => encoderLayerOf(weights, `layers.${i}`, D, options)),
        norm: weights.has('norm.weight') ? layerNorm(weights, 'norm', D, options.eps) : undefined,
      });
    });
  }

  /** @param modalities tokens [n, T_m, D] of each, or undefined where it is missing for the whole batch */
  forward(modalities: readonly (Tokens | undefined)[]): FusedTokens {
    this.alive('EarlyFusion');
    const { modalityEmbeddings: table, layers, norm: last } = this.parts;
    if (table) requireCount('EarlyFusion', modalities, table.shape[0]!);
    const given = checkTokens('EarlyFusion', modalities, layers[0]!.out.weight.device);
    for (const each of given) requireWidth('EarlyFusion', each, this.#width);
    const [{ n, x: first }] = given;
    const T = given.reduce((sum, each) => sum + each.T, 0);
    const tokens = scope(() => {
      const parts = given.map((each) => {
        const rows = fillMissing(rowsOf(each), each.seen?.flat(), 0); // [n·T_m, D]
        if (!table) return { ...each, rows };
        const own = embed(integers([each.index], first), table, { dtype: first.dtype }).reshape([this.#width]);
        return { ...each, rows: add(rows, own) };
      });
      const mask = keyMask(given);
      let x = besides(parts); // [n·ΣT, D]
      for (const layer of layers) x = encoderLayer(x, layer, { maxQueries: T, maxKeys: T, ...(mask && { mask }) });
      return (last ? norm(x, last) : x).reshape([n, T, this.#width]);
    });
    let next = 0;
    const starts: (number | undefined)[] = modalities.map(() => undefined);
    for (const each of given) {
      starts[each.index] = next;
      next += each.T;
    }
    const mask = Array.from({ length: n }, (_, item) =>
      given.flatMap((each) => each.seen?.[item] ?? Array<boolean>(each.T).fill(true)),
    );
    return { tokens, mask, starts, dispose: () => tokens.dispose() };
  }
}
