/**
 * Mid fusion: each modality has an encoder of its own, and layers in between let the tokens of one attend to those of another. What is encoded
 * alone can be kept; what attends has to be computed for each pair.
 */
import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import { type EncoderLayer, encoderLayer, type LayerNorm, type Linear, type Mlp, mlp, norm } from '../nn/encoder-layer';
import { add, attentionRows, linear, multiply } from '../ops';
import { scope, type Tensor } from '../tensor';
import {
  checkEncoderLayer,
  checkLinear,
  checkMlp,
  encoderLayer as encoderLayerOf,
  headWidth,
  type LayerOptions,
  layerNorm,
  linear as linearOf,
  mlp as mlpOf,
  stackedLinear,
} from './blocks';
import {
  besides,
  checkSequences,
  checkTokens,
  constant,
  fillMissing,
  type GivenTokens,
  keyMask,
  requireAlike,
  requireCount,
  requireWidth,
  rowsOf,
  type Tokens,
  whereRows,
} from './modalities';
import { FusionModule } from './module';
import { type FusionLoadOptions, loadModule, type NamedWeights, type WeightSource } from './weight-source';

export type { TokenMask, Tokens } from './modalities';

// ── cross-attention ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface CrossAttentionParts {
  readonly heads: number;
  /** Of one head. */
  readonly headWidth: number;
  /** Of x; the context is taken as it stands. */
  readonly norm: LayerNorm;
  /** [D, D] */
  readonly q: Linear;
  /** [2·D, Dc]: keys above values */
  readonly kv: Linear;
  /** [D, D] */
  readonly out: Linear;
}

/** A layer between two modalities: x [n, T, D] attends to a context. */
export interface CrossBlock {
  /** D */
  readonly width: number;
  /** Dc */
  readonly contextWidth: number;
  readonly device: string;
  /** @internal rows [n·T, D] of x, `context` with its rows */
  rows(x: Tensor<Float>, T: number, context: GivenTokens): Tensor<Float>;
}

/** What both kinds of block share. */
abstract class Cross<Parts extends CrossAttentionParts> extends FusionModule implements CrossBlock {
  constructor(
    /** In messages. */
    private readonly what: string,
    readonly parts: Parts,
  ) {
    super();
    checkCross(what, parts);
  }

  get width(): number {
    return this.parts.heads * this.parts.headWidth;
  }

  get contextWidth(): number {
    return this.parts.kv.weight.shape[1]!;
  }

  get device(): string {
    return this.parts.out.weight.device;
  }

  /** @returns [n, T, D]; the caller disposes it */
  forward(x: Tokens, context: Tokens | undefined): Tensor<Float> {
    this.alive(this.what);
    return forwardBlock(this.what, this, x, context);
  }

  /** @internal */
  abstract rows(x: Tensor<Float>, T: number, context: GivenTokens): Tensor<Float>;
}

/**
 * x + out(softmax(q·kᵀ/√d)·v), queries of norm(x), keys and values of the context. An item without context keeps its x, bit for bit.
 *
 * @see Vaswani et al. 2017, section 3.2.3
 */
export class CrossAttention extends Cross<CrossAttentionParts> {
  constructor(parts: CrossAttentionParts) {
    super('CrossAttention', parts);
  }

  /**
   * Tensors: `norm`, `attention.query` [D, D], `attention.key` and `attention.value` [D, Dc], `attention.out` [D, D], each `.weight` and `.bias`.
   *
   * @throws {WarpsightError} ERR_CHECKPOINT if a tensor is missing, of another shape or not used
   */
  static load(source: WeightSource, options: FusionLoadOptions & Omit<LayerOptions, 'activation'>): Promise<CrossAttention> {
    return loadModule('CrossAttention', source, options, (weights) => new CrossAttention(crossParts(weights, '', options)));
  }

  /** @internal */
  rows(x: Tensor<Float>, T: number, context: GivenTokens): Tensor<Float> {
    this.alive('CrossAttention');
    const { out } = this.parts;
    return linear(crossAttended(x, T, context, this.parts), out.weight, { bias: out.bias, residual: x });
  }
}

export interface GatedCrossAttentionParts extends CrossAttentionParts {
  /** α, before tanh */
  readonly attentionGate: number;
  readonly norm2: LayerNorm;
  readonly mlp: Mlp;
  /** β, before tanh */
  readonly mlpGate: number;
}

/**
 * x += tanh(α)·cross-attention(x, context); x += tanh(β)·mlp(norm₂(x)). With gates of 0 nothing changes: what a trained model does without the
 * context is where training begins. An item without context keeps its x.
 *
 * @see Alayrac et al. 2022, figure 4
 */
export class GatedCrossAttention extends Cross<GatedCrossAttentionParts> {
  constructor(parts: GatedCrossAttentionParts) {
    super('GatedCrossAttention', parts);
    checkMlp('GatedCrossAttention', 'mlp', parts.mlp, parts.heads * parts.headWidth);
  }

  /**
   * Tensors: those of {@link CrossAttention.load}, `attention_gate` [] or [1], `norm2`, `mlp.{fc1,fc2}`, `mlp_gate` [] or [1].
   *
   * @throws {WarpsightError} ERR_CHECKPOINT if a tensor is missing, of another shape or not used
   */
  static load(source: WeightSource, options: FusionLoadOptions & LayerOptions): Promise<GatedCrossAttention> {
    return loadModule('GatedCrossAttention', source, options, (weights) => gatedBlock(weights, '', options));
  }

  /** @internal */
  rows(x: Tensor<Float>, T: number, context: GivenTokens): Tensor<Float> {
    this.alive('GatedCrossAttention');
    const { out, norm2, mlp: inner, attentionGate, mlpGate } = this.parts;
    const gated = (change: Tensor<Float>, gate: number) =>
      multiply(change, constant(new Float32Array(this.width).fill(Math.tanh(gate)), [this.width], change));
    const crossed = linear(crossAttended(x, T, context, this.parts), out.weight, { bias: out.bias });
    const y = add(x, gated(crossed, attentionGate));
    const { fc1, fc2, activation } = inner;
    const hidden = linear(norm(y, norm2), fc1.weight, { bias: fc1.bias, activation });
    return add(y, gated(linear(hidden, fc2.weight, { bias: fc2.bias }), mlpGate));
  }
}

function crossParts(weights: NamedWeights, prefix: string, { heads, eps }: LayerOptions): CrossAttentionParts {
  const [D] = weights.sizeOf(`${prefix}attention.out.weight`);
  const [, Dc] = weights.sizeOf(`${prefix}attention.key.weight`);
  return {
    heads,
    headWidth: headWidth(weights.what, D, heads),
    norm: layerNorm(weights, `${prefix}norm`, D, eps),
    q: linearOf(weights, `${prefix}attention.query`, D, D),
    kv: stackedLinear(weights, [`${prefix}attention.key`, `${prefix}attention.value`], D, Dc),
    out: linearOf(weights, `${prefix}attention.out`, D, D),
  };
}

async function gatedBlock(weights: NamedWeights, prefix: string, options: LayerOptions): Promise<GatedCrossAttention> {
  const parts = crossParts(weights, prefix, options);
  const D = parts.heads * parts.headWidth;
  return new GatedCrossAttention({
    ...parts,
    attentionGate: await weights.number(`${prefix}attention_gate`),
    norm2: layerNorm(weights, `${prefix}norm2`, D, options.eps),
    mlp: mlpOf(weights, `${prefix}mlp`, D, options.activation),
    mlpGate: await weights.number(`${prefix}mlp_gate`),
  });
}

function checkCross(what: string, { heads, headWidth: of, q, kv, out }: CrossAttentionParts): void {
  const D = heads * of;
  checkLinear(what, 'q', q, D, D);
  checkLinear(what, 'kv', kv, 2 * D, kv.weight.shape[1] ?? 0);
  checkLinear(what, 'out', out, D, D);
}

/** softmax(q·kᵀ/√d)·v: x [n·T, D] over the context's tokens. */
function crossAttended(x: Tensor<Float>, T: number, context: GivenTokens, parts: CrossAttentionParts): Tensor<Float> {
  const { heads, headWidth: of, q, kv } = parts;
  const queries = linear(norm(x, parts.norm), q.weight, { bias: q.bias }); // [n·T, D]
  const rows = fillMissing(rowsOf(context), context.seen?.flat(), 0);
  const keysValues = linear(rows, kv.weight, { bias: kv.bias }); // [n·Tc, 2·D]
  const mask = keyMask([context]);
  const offsets = [0, 0, heads * of] as const;
  const layout = { heads, headWidth: of, offsets, maxQueries: T, maxKeys: context.T, ...(mask && { mask }) };
  return attentionRows(queries, keysValues, keysValues, layout);
}

function forwardBlock(what: string, block: CrossBlock, x: Tokens, context: Tokens | undefined): Tensor<Float> {
  const stream = checkSequences(what, 'x', x, 0, block.device);
  requireWidth(what, stream, block.width);
  const given = context && checkContext(what, block, stream, context, 0);
  return scope(() => {
    const rows = rowsOf(stream);
    const y = given ? applied(block, rows, stream.T, given) : rows;
    return y.reshape([stream.n, stream.T, stream.D]);
  });
}

function checkContext(what: string, block: CrossBlock, stream: GivenTokens, context: Tokens, index: number): GivenTokens {
  const given = checkSequences(what, `context ${index}`, context, index, block.device);
  requireAlike(what, [stream, given]);
  requireWidth(what, given, block.contextWidth);
  return given;
}

/** The block for items that have the context, x itself for the others. */
function applied(block: CrossBlock, x: Tensor<Float>, T: number, context: GivenTokens): Tensor<Float> {
  return whereRows(itemRows(context.seen, T), block.rows(x, T, context), x);
}

/** For each of n·T rows whether its item has anything; undefined: all have. */
function itemRows(seen: GivenTokens['seen'], T: number): boolean[] | undefined {
  if (!seen || seen.every((tokens) => tokens.some(Boolean))) return undefined;
  return seen.flatMap((tokens) => Array<boolean>(T).fill(tokens.some(Boolean)));
}

// ── blocks at chosen depths ──────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface Insert {
  /** In front of which layer: 0 … the number of layers, which is behind the last. Several at one depth run in their order. */
  readonly depth: number;
  readonly block: CrossBlock;
  /** Which of the contexts it attends to. */
  readonly context: number;
}

export interface MidFusionParts {
  /** Weights of pre-norm layers, or any functions [n, T, D] → [n, T, D]. */
  readonly layers: readonly (EncoderLayer | ((x: Tensor<Float>) => Tensor<Float>))[];
  readonly inserts: readonly Insert[];
}

export interface MidFusionLoadOptions extends FusionLoadOptions, LayerOptions {
  /** The k-th block's tensors are named `cross.k.…`. */
  readonly inserts: readonly { readonly depth: number; readonly context: number; readonly gated?: boolean }[];
}

/** A stack of layers over one modality, with cross-attention to others between them. Any number of contexts. */
export class MidFusion extends FusionModule {
  /** @throws {WarpsightError} ERR_ARGUMENT, ERR_SHAPE if the parts don't fit together */
  constructor(readonly parts: MidFusionParts) {
    super();
    const { layers, inserts } = parts;
    const [first] = inserts;
    if (!first) throw new WarpsightError('ERR_ARGUMENT', 'MidFusion: at least one block must be inserted');
    const { width } = first.block;
    for (const { depth, block, context } of inserts) {
      if (!Number.isInteger(depth) || depth < 0 || depth > layers.length) {
        throw new WarpsightError('ERR_ARGUMENT', `MidFusion: depth must be from 0 to ${layers.length}: it is ${depth}`);
      }
      if (!Number.isInteger(context) || context < 0) {
        throw new WarpsightError('ERR_ARGUMENT', `MidFusion: context must be the index of one: it is ${context}`);
      }
      if (block.width !== width) {
        throw new WarpsightError('ERR_SHAPE', `MidFusion: one block is ${width} wide, another ${block.width}`);
      }
    }
    layers.forEach((layer, i) => {
      if (typeof layer !== 'function') checkEncoderLayer('MidFusion', `layer ${i}`, layer, width);
    });
  }

  /**
   * Tensors: `layers.i.…` as of EarlyFusion; for the k-th insert `cross.k.…` as of {@link CrossAttention.load} or {@link GatedCrossAttention.load}.
   *
   * @throws {WarpsightError} ERR_CHECKPOINT if a tensor is missing, of another shape or not used
   */
  static load(source: WeightSource, options: MidFusionLoadOptions): Promise<MidFusion> {
    return loadModule('MidFusion', source, options, async (weights) => {
      const inserts: Insert[] = [];
      for (const [k, { depth, context, gated = false }] of options.inserts.entries()) {
        const name = `cross.${k}.`;
        const block = gated ? await gatedBlock(weights, name, options) : new CrossAttention(crossParts(weights, name, options));
        inserts.push({ depth, context, block });
      }
      const D = inserts[0]?.block.width ?? 0;
      const layers = Array.from({ length: weights.count('layers') }, (_, i) =>
        encoderLayerOf(weights, `layers.${i}`, D, options),
      );
      return new MidFusion({ layers, inserts });
    });
  }

  /**
   * @param x tokens [n, T, D]
   * @param contexts tokens [n, T_c, D_c] of each, or undefined where it is missing for the whole batch
   * @returns [n, T, D]; the caller disposes it
   */
  forward(x: Tokens, contexts: readonly (Tokens | undefined)[]): Tensor<Float> {
    this.alive('MidFusion');
    const { layers, inserts } = this.parts;
    requireCount('MidFusion', contexts, Math.max(...inserts.map(({ context }) => context)) + 1);
    const stream = checkSequences('MidFusion', 'x', x, 0, inserts[0]!.block.device);
    requireWidth('MidFusion', stream, inserts[0]!.block.width);
    const { n, T, D } = stream;
    const given = inserts.map(({ block, context }) => {
      const tokens = contexts[context];
      return tokens && checkContext('MidFusion', block, stream, tokens, context);
    });
    return scope(() => {
      const mask = keyMask([stream]);
      let rows = fillMissing(rowsOf(stream), stream.seen?.flat(), 0); // [n·T, D]
      for (let depth = 0; depth <= layers.length; depth++) {
        inserts.forEach((insert, k) => {
          const context = given[k];
          if (insert.depth === depth && context) rows = applied(insert.block, rows, T, context);
        });
        const layer = layers[depth];
        if (typeof layer === 'function') rows = layer(rows.reshape([n, T, D])).reshape([n * T, D]);
        else if (layer) rows = encoderLayer(rows, layer, { maxQueries: T, maxKeys: T, ...(mask && { mask }) });
      }
      return rows.reshape([n, T, D]);
    });
  }
}

// ── co-attention ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface CoAttentionStream {
  readonly heads: number;
  /** Of one head. */
  readonly headWidth: number;
  readonly norm1: LayerNorm;
  /** [D, D] */
  readonly q: Linear;
  /** For each stream but this one, [2·D, width of that one]: keys above values. */
  readonly from: readonly (Linear | undefined)[];
  /** [D, D] */
  readonly out: Linear;
  readonly norm2: LayerNorm;
  readonly mlp: Mlp;
}

/**
 * Streams that attend to each other: x_i += attention of norm₁(x_i) to the tokens norm₁(x_j) of all others; x_i += mlp(norm₂(x_i)). All of them read
 * what the others were before. A stream whose item has no other goes through its MLP alone.
 *
 * @see Lu et al. 2019, figure 2, there with the norms behind the sums
 */
export class CoAttention extends FusionModule {
  /** @throws {WarpsightError} ERR_ARGUMENT, ERR_SHAPE if the streams don't fit together */
  constructor(readonly streams: readonly CoAttentionStream[]) {
    super();
    if (streams.length < 2)
      throw new WarpsightError('ERR_ARGUMENT', `CoAttention: it needs two streams or more: ${streams.length}`);
    const widths = streams.map(({ heads, headWidth: of }) => heads * of);
    streams.forEach(({ q, from, out, mlp: inner }, i) => {
      const D = widths[i]!;
      checkLinear('CoAttention', `q of stream ${i}`, q, D, D);
      checkLinear('CoAttention', `out of stream ${i}`, out, D, D);
      checkMlp('CoAttention', `mlp of stream ${i}`, inner, D);
      widths.forEach((other, j) => {
        const kv = from[j];
        if (i === j) return;
        if (!kv) throw new WarpsightError('ERR_ARGUMENT', `CoAttention: stream ${i} has no keys and values of stream ${j}`);
        checkLinear('CoAttention', `keys and values of stream ${i} from ${j}`, kv, 2 * D, other);
      });
    });
  }

  /**
   * Tensors, for each stream i: `streams.i.norm1`, `streams.i.attention.{query,out}` [D_i, D_i], `streams.i.attention.from.j.{key,value}` [D_i, D_j],
   * `streams.i.norm2`, `streams.i.mlp.{fc1,fc2}`, each `.weight` and `.bias`.
   *
   * @param options heads: of each stream
   * @throws {WarpsightError} ERR_CHECKPOINT if a tensor is missing, of another shape or not used
   */
  static load(
    source: WeightSource,
    options: FusionLoadOptions & Omit<LayerOptions, 'heads'> & { readonly heads: readonly number[] },
  ): Promise<CoAttention> {
    return loadModule('CoAttention', source, options, (weights) => {
      const count = weights.count('streams');
      const { heads, eps, activation } = options;
      if (!Array.isArray(heads) || heads.length !== count) {
        throw new WarpsightError('ERR_ARGUMENT', `CoAttention: heads must be ${count} numbers, one for each stream`);
      }
      const widths = heads.map((_, i) => weights.sizeOf(`streams.${i}.attention.out.weight`)[0]);
      return new CoAttention(
        widths.map((D, i): CoAttentionStream => {
          const name = `streams.${i}`;
          const from = (j: number) => ['key', 'value'].map((part) => `${name}.attention.from.${j}.${part}`);
          return {
            heads: heads[i]!,
            headWidth: headWidth('CoAttention', D, heads[i]!),
            norm1: layerNorm(weights, `${name}.norm1`, D, eps),
            q: linearOf(weights, `${name}.attention.query`, D, D),
            from: widths.map((other, j) => (i === j ? undefined : stackedLinear(weights, from(j), D, other))),
            out: linearOf(weights, `${name}.attention.out`, D, D),
            norm2: layerNorm(weights, `${name}.norm2`, D, eps),
            mlp: mlpOf(weights, `${name}.mlp`, D, activation),
          };
        }),
      );
    });
  }

  /**
   * @param streams tokens [n, T_i, D_i] of each, or undefined where it is missing for the whole batch
   * @returns [n, T_i, D_i] of each that was given; the caller disposes them
   */
  forward(streams: readonly (Tokens | undefined)[]): (Tensor<Float> | undefined)[] {
    this.alive('CoAttention');
    requireCount('CoAttention', streams, this.streams.length);
    const given = checkTokens('CoAttention', streams, this.streams[0]!.out.weight.device);
    for (const each of given) {
      const { heads, headWidth: of } = this.streams[each.index]!;
      requireWidth('CoAttention', each, heads * of);
    }
    const made = scope(() => {
      const states = given.map((each) => {
        const rows = fillMissing(rowsOf(each), each.seen?.flat(), 0);
        return { ...each, rows, normed: norm(rows, this.streams[each.index]!.norm1) };
      });
      return states.map((own) => {
        const stream = this.streams[own.index]!;
        const others = states.filter((other) => other !== own);
        const attended = others.length > 0 ? this.#attended(own, others) : own.rows;
        return mlp(norm(attended, stream.norm2), stream.mlp, attended).reshape([own.n, own.T, own.D]);
      });
    });
    const result: (Tensor<Float> | undefined)[] = streams.map(() => undefined);
    given.forEach((each, i) => {
      result[each.index] = made[i];
    });
    return result;
  }

  /** x + attention to the others, [n·T, D]; x itself for items that have no other. */
  #attended(own: StreamState, others: readonly StreamState[]): Tensor<Float> {
    const { heads, headWidth: of, q, from, out } = this.streams[own.index]!;
    const queries = linear(own.normed, q.weight, { bias: q.bias });
    const parts = others.map((other) => {
      const kv = from[other.index]!;
      return { ...other, rows: linear(other.normed, kv.weight, { bias: kv.bias }) };
    });
    const keysValues = besides(parts); // [n·ΣT, 2·D]
    const mask = keyMask(others);
    const maxKeys = others.reduce((sum, { T }) => sum + T, 0);
    const offsets = [0, 0, own.D] as const;
    const layout = { heads, headWidth: of, offsets, maxQueries: own.T, maxKeys, ...(mask && { mask }) };
    const attended = attentionRows(queries, keysValues, keysValues, layout);
    const y = linear(attended, out.weight, { bias: out.bias, residual: own.rows });
    const any = Array.from({ length: own.n }, (_, item) =>
      others.map(({ seen }) => seen?.[item]?.some(Boolean) ?? true).some(Boolean),
    );
    return whereRows(any.every(Boolean) ? undefined : any.flatMap((has) => Array<boolean>(own.T).fill(has)), y, own.rows);
  }
}

interface StreamState extends GivenTokens {
  /** [n·T, D] */
  readonly rows: Tensor<Float>;
  readonly normed: Tensor<Float>;
}
