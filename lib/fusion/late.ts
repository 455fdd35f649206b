/**
 * Late fusion: each modality is encoded alone, and what is joined is one row of features for each item. Cheap, because features can be
 * computed once and kept; shallow, because no token of one modality ever meets a token of another.
 *
 * Every form takes an entry for each modality: `{ features: [n, D], present? }`, or undefined where it is missing for the whole batch. An item
 * that lacks a modality gets what it would get without that modality. All of them can be traced by `device.compile`.
 */
import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import type { Linear } from '../nn/encoder-layer';
import { type Activation, activate, add, linear, maximum, multiply, sigmoid } from '../ops';
import { scope, type Tensor } from '../tensor';
import type { Weight } from '../weight';
import { checkLinear, linear as linearOf } from './blocks';
import {
  checkFeatures,
  concatAll,
  constant,
  type Features,
  fillMissing,
  type GivenFeatures,
  requireCount,
  requireWidth,
} from './modalities';
import { FusionModule } from './module';
import { type FusionLoadOptions, loadModule, type NamedWeights, type WeightSource } from './weight-source';

export type { Features } from './modalities';

// ── concatenation and an MLP ─────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface ConcatMlpParts {
  /** W₁ in blocks of columns, one for each modality: [H, D_m] */
  readonly blocks: readonly Weight<'matrix'>[];
  /** [H] */
  readonly bias?: Weight<'vector'> | undefined;
  /** 'gelu' by default */
  readonly activation?: Activation | undefined;
  /** [C, H] */
  readonly fc2: Linear;
}

/** y = W₂·act(W₁·[x₁; …; x_M] + b₁) + b₂. A modality that is missing adds nothing to the hidden layer. */
export class ConcatMlp extends FusionModule {
  constructor(readonly parts: ConcatMlpParts) {
    super();
    const { blocks, bias, fc2 } = parts;
    const [H = 0] = fc2.weight.shape.slice(1);
    if (blocks.length === 0) throw new WarpsightError('ERR_ARGUMENT', 'ConcatMlp: at least one block is needed');
    blocks.forEach((weight, m) => {
      checkLinear('ConcatMlp', `block ${m}`, { weight, bias }, H, weight.shape[1] ?? 0);
    });
    checkLinear('ConcatMlp', 'fc2', fc2, fc2.weight.shape[0] ?? 0, H);
  }

  /**
   * Tensors: `fc1.0.weight` [H, D₀], `fc1.1.weight` [H, D₁], … (the columns of W₁ that meet each modality), `fc1.bias` [H], `fc2.weight` [C, H],
   * `fc2.bias` [C]; biases may be absent.
   *
   * @throws {WarpsightError} ERR_CHECKPOINT if a tensor is missing, of another shape or not used
   */
  static load(
    source: WeightSource,
    options: FusionLoadOptions & { readonly activation?: Activation | undefined } = {},
  ): Promise<ConcatMlp> {
    return loadModule('ConcatMlp', source, options, (weights) => {
      const [C, H] = weights.sizeOf('fc2.weight');
      const blocks = columnsOf(weights, 'fc1').map((D, m) => weights.matrix([`fc1.${m}.weight`], H, D));
      const bias = weights.has('fc1.bias') ? weights.vector(['fc1.bias'], H) : undefined;
      return new ConcatMlp({ blocks, bias, activation: options.activation, fc2: linearOf(weights, 'fc2', C, H) });
    });
  }

  /**
   * @param modalities features [n, D_m]
   * @returns [n, C]; the caller disposes it
   */
  forward(modalities: readonly (Features | undefined)[]): Tensor<Float> {
    this.alive('ConcatMlp');
    const { blocks, bias, activation = 'gelu', fc2 } = this.parts;
    requireCount('ConcatMlp', modalities, blocks.length);
    const given = checkFeatures('ConcatMlp', modalities, blocks[0]!.device);
    for (const each of given) requireWidth('ConcatMlp', each, blocks[each.index]!.shape[1]!);
    return scope(() => {
      let hidden: Tensor<Float> | undefined; // [n, H]
      for (const { index, x, present } of given) {
        const known = fillMissing(x, present, 0);
        hidden = linear(known, blocks[index]!, hidden ? { residual: hidden } : { bias });
      }
      return linear(activate(hidden!, activation), fc2.weight, { bias: fc2.bias });
    });
  }
}

/** The columns of `name`.0.weight, `name`.1.weight, … */
function columnsOf(weights: NamedWeights, name: string): number[] {
  const count = weights.count(name);
  if (count === 0) throw weights.error(`has no "${name}.0.weight"`);
  return Array.from({ length: count }, (_, m) => weights.sizeOf(`${name}.${m}.weight`)[1]);
}

// ── sums ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** y = Σ w_m·x_m / Σ w_m over the modalities that an item has. */
export class WeightedSum extends FusionModule {
  /** @param weights one for each modality: numbers >= 0 */
  constructor(readonly weights: readonly number[]) {
    super();
    requireWeights('WeightedSum', weights, weights.length);
  }

  /** Tensors: `weights` [M]. */
  static load(source: WeightSource, options: FusionLoadOptions = {}): Promise<WeightedSum> {
    return loadModule('WeightedSum', source, options, async (weights) => new WeightedSum(await weights.numbers('weights')));
  }

  /**
   * @param modalities features [n, D], all of one width
   * @returns [n, D]; the caller disposes it
   */
  forward(modalities: readonly (Features | undefined)[]): Tensor<Float> {
    this.alive('WeightedSum');
    return weightedSum('WeightedSum', modalities, this.weights);
  }
}

/**
 * The mean of each modality's scores, weighed where weights are given, over the modalities that an item has.
 *
 * @param modalities scores [n, C]: probabilities, or logits of one scale
 * @param weights one for each modality: numbers >= 0
 * @returns [n, C]; the caller disposes it
 */
export function averageScores(modalities: readonly (Features | undefined)[], weights?: readonly number[]): Tensor<Float> {
  if (weights) requireWeights('averageScores', weights, modalities.length);
  return weightedSum('averageScores', modalities, weights ?? modalities.map(() => 1));
}

function weightedSum(what: string, modalities: readonly (Features | undefined)[], weights: readonly number[]): Tensor<Float> {
  requireCount(what, modalities, weights.length);
  const given = checkFeatures(what, modalities);
  requireOneWidth(what, given);
  const totals = Array.from({ length: given[0].n }, (_, item) =>
    given.reduce((sum, { index, present }) => sum + ((present?.[item] ?? true) ? weights[index]! : 0), 0),
  );
  const lost = totals.indexOf(0);
  if (lost >= 0) throw new WarpsightError('ERR_ARGUMENT', `${what}: the weights of what item ${lost} has sum to 0`);
  return scope(() => {
    const terms = given.map(({ index, x, present }) => {
      const share = totals.map((total, item) => ((present?.[item] ?? true) ? weights[index]! / total : 0));
      return multiply(fillMissing(x, present, 0), constant(Float32Array.from(share), [share.length, 1], x));
    });
    return terms.reduce((sum, term) => add(sum, term)); // [n, D]
  });
}

function requireWeights(what: string, weights: readonly number[], count: number): void {
  const fits = Array.isArray(weights) && weights.length === count && weights.every((w) => Number.isFinite(w) && w >= 0);
  if (fits && count > 0) return;
  throw new WarpsightError(
    'ERR_ARGUMENT',
    `${what}: weights must be a finite number >= 0 for each modality: they are ${String(weights)}`,
  );
}

export interface GatedSumParts {
  /** For each modality: W_m [H, D_m], b_m [H] */
  readonly hidden: readonly Linear[];
  /** For each modality: V_m [H, ΣD], c_m [H] */
  readonly gates: readonly Linear[];
}

/**
 * The gated multimodal unit for any number of modalities: h_m = tanh(W_m·x_m + b_m), g_m = σ(V_m·[x₁; …; x_M] + c_m), y = Σ g_m ⊙ h_m.
 * A missing modality adds neither its h_m nor anything to the gates of the others.
 *
 * @see Arevalo et al. 2017, section 3.1
 */
export class GatedSum extends FusionModule {
  readonly #widths: readonly number[];

  constructor(readonly parts: GatedSumParts) {
    super();
    const { hidden, gates } = parts;
    if (hidden.length === 0 || gates.length !== hidden.length) {
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `GatedSum: a hidden layer and a gate are needed for each modality: there are ${hidden.length} and ${gates.length}`,
      );
    }
    this.#widths = hidden.map(({ weight }) => weight.shape[1] ?? 0);
    const H = hidden[0]!.weight.shape[0] ?? 0;
    const all = this.#widths.reduce((sum, D) => sum + D, 0);
    hidden.forEach((layer, m) => {
      checkLinear('GatedSum', `hidden ${m}`, layer, H, this.#widths[m]!);
    });
    gates.forEach((layer, m) => {
      checkLinear('GatedSum', `gate ${m}`, layer, H, all);
    });
  }

  /** Tensors, for each modality m: `hidden.m.weight` [H, D_m], `hidden.m.bias` [H], `gates.m.weight` [H, ΣD], `gates.m.bias` [H]; biases may be absent. */
  static load(source: WeightSource, options: FusionLoadOptions = {}): Promise<GatedSum> {
    return loadModule('GatedSum', source, options, (weights) => {
      const widths = columnsOf(weights, 'hidden');
      const all = widths.reduce((sum, D) => sum + D, 0);
      const [H] = weights.sizeOf('hidden.0.weight');
      return new GatedSum({
        hidden: widths.map((D, m) => linearOf(weights, `hidden.${m}`, H, D)),
        gates: widths.map((_, m) => linearOf(weights, `gates.${m}`, H, all)),
      });
    });
  }

  /**
   * @param modalities features [n, D_m]
   * @returns [n, H]; the caller disposes it
   */
  forward(modalities: readonly (Features | undefined)[]): Tensor<Float> {
    this.alive('GatedSum');
    const { hidden, gates } = this.parts;
    requireCount('GatedSum', modalities, hidden.length);
    const given = checkFeatures('GatedSum', modalities, hidden[0]!.weight.device);
    for (const each of given) requireWidth('GatedSum', each, this.#widths[each.index]!);
    return scope(() => {
      const known = given.map(({ x, present }) => fillMissing(x, present, 0));
      const inputs = this.#widths.map((D, m) => {
        const at = given.findIndex(({ index }) => index === m);
        return known[at] ?? constant(new Float32Array(given[0].n * D), [given[0].n, D], given[0].x);
      });
      const joined = concatAll(inputs); // [n, ΣD]
      const terms = given.map(({ index, present }, at) => {
        const { [index]: W } = hidden;
        const { [index]: V } = gates;
        const h = linear(known[at]!, W!.weight, { bias: W!.bias, activation: 'tanh' });
        const g = sigmoid(linear(joined, V!.weight, { bias: V!.bias }));
        return fillMissing(multiply(g, h), present, 0);
      });
      return terms.reduce((sum, term) => add(sum, term)); // [n, H]
    });
  }
}

// ── elementwise ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * x₁ ⊙ x₂ ⊙ … over the modalities that an item has.
 *
 * @param modalities features [n, D], all of one width
 * @returns [n, D]; the caller disposes it
 */
export function product(modalities: readonly (Features | undefined)[]): Tensor<Float> {
  return fold('product', modalities, 1, multiply);
}

/** max(x₁, x₂, …), element by element, over the modalities that an item has; otherwise as {@link product}. */
export function max(modalities: readonly (Features | undefined)[]): Tensor<Float> {
  return fold('max', modalities, Number.NEGATIVE_INFINITY, maximum);
}

/** `neutral` stands for what is missing. */
function fold(
  what: string,
  modalities: readonly (Features | undefined)[],
  neutral: number,
  join: (x: Tensor<Float>, y: Tensor<Float>) => Tensor<Float>,
): Tensor<Float> {
  const given = checkFeatures(what, modalities);
  requireOneWidth(what, given);
  return scope(() => {
    const known = given.map(({ x, present }) => fillMissing(x, present, neutral));
    const joined = known.reduce(join);
    return known.length > 1 ? joined : joined.reshape(joined.shape); // a handle of its own, that the caller may dispose
  });
}

function requireOneWidth(what: string, given: readonly [GivenFeatures, ...GivenFeatures[]]): void {
  const [first] = given;
  for (const { name, D } of given)
    if (D !== first.D) throw new WarpsightError('ERR_SHAPE', `${what}: ${name} is ${D} wide, ${first.name} is ${first.D}`);
}
