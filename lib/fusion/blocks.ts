// The parts that modules have in common, by their names in a source of weights.
import { WarpsightError } from '../errors';
import type { EncoderLayer, LayerNorm, Linear, Mlp } from '../nn/encoder-layer';
import type { Activation } from '../ops';
import type { NamedWeights } from './weight-source';

export interface LayerOptions {
  readonly heads: number;
  /** Of the MLPs; 'gelu' by default */
  readonly activation?: Activation | undefined;
  /** Of the norms; 1e-5 by default */
  readonly eps?: number | undefined;
}

/** `name`.weight [rows, columns], `name`.bias [rows] where there is one */
export function linear(weights: NamedWeights, name: string, rows: number, columns: number): Linear {
  return stackedLinear(weights, [name], rows, columns);
}

/** Several of equal size, one below the other; all have a bias or none. `rows`: of one. */
export function stackedLinear(weights: NamedWeights, names: readonly string[], rows: number, columns: number): Linear {
  const matrices = names.map((name) => `${name}.weight`);
  const biases = names.map((name) => `${name}.bias`);
  const all = names.length * rows;
  return {
    weight: weights.matrix(matrices, all, columns),
    bias: biases.some((bias) => weights.has(bias)) ? weights.vector(biases, all) : undefined,
  };
}

export function layerNorm(weights: NamedWeights, name: string, width: number, eps = 1e-5): LayerNorm {
  return { weight: weights.vector([`${name}.weight`], width), bias: weights.vector([`${name}.bias`], width), eps };
}

/** `name`.fc1 [hidden, width] and `name`.fc2 [width, hidden] */
export function mlp(weights: NamedWeights, name: string, width: number, activation: Activation = 'gelu'): Mlp {
  const [hidden] = weights.sizeOf(`${name}.fc1.weight`);
  return {
    fc1: linear(weights, `${name}.fc1`, hidden, width),
    fc2: linear(weights, `${name}.fc2`, width, hidden),
    activation,
  };
}

/** `name`.norm1, `name`.attention.{query,key,value,out} [width, width], `name`.norm2, `name`.mlp */
export function encoderLayer(weights: NamedWeights, name: string, width: number, options: LayerOptions): EncoderLayer {
  const { heads, activation, eps } = options;
  const inputs = ['query', 'key', 'value'].map((part) => `${name}.attention.${part}`);
  return {
    heads,
    headWidth: headWidth(weights.what, width, heads),
    norm1: layerNorm(weights, `${name}.norm1`, width, eps),
    qkv: stackedLinear(weights, inputs, width, width),
    out: linear(weights, `${name}.attention.out`, width, width),
    norm2: layerNorm(weights, `${name}.norm2`, width, eps),
    mlp: mlp(weights, `${name}.mlp`, width, activation),
  };
}

/** @throws {WarpsightError} ERR_ARGUMENT if the heads can't share the width evenly */
export function headWidth(what: string, width: number, heads: number): number {
  if (Number.isInteger(heads) && heads >= 1 && width % heads === 0) return width / heads;
  throw new WarpsightError(
    'ERR_ARGUMENT',
    `${what}: heads must be a whole number that divides the width ${width}: it is ${heads}`,
  );
}

/** That a layer's matrices fit together, so that a forward pass can't fail halfway. */
export function checkEncoderLayer(what: string, name: string, layer: EncoderLayer, width: number): void {
  const { heads, headWidth: of, qkv, out } = layer;
  if (heads * of !== width)
    throw new WarpsightError('ERR_SHAPE', `${what}: ${name} has ${heads} heads of ${of}, the width is ${width}`);
  checkLinear(what, `${name}.qkv`, qkv, 3 * width, width);
  checkLinear(what, `${name}.out`, out, width, width);
  checkMlp(what, `${name}.mlp`, layer.mlp, width);
}

export function checkMlp(what: string, name: string, { fc1, fc2 }: Mlp, width: number): void {
  const [hidden = 0] = fc1.weight.shape;
  checkLinear(what, `${name}.fc1`, fc1, hidden, width);
  checkLinear(what, `${name}.fc2`, fc2, width, hidden);
}

export function checkLinear(what: string, name: string, { weight, bias }: Linear, rows: number, columns: number): void {
  const [N, K] = weight.shape;
  if (N !== rows || K !== columns)
    throw new WarpsightError('ERR_SHAPE', `${what}: ${name} is [${weight.shape.join(', ')}], [${rows}, ${columns}] is wanted`);
  if (bias && bias.shape[0] !== rows)
    throw new WarpsightError('ERR_SHAPE', `${what}: the bias of ${name} has ${bias.shape[0]} numbers, ${rows} are wanted`);
}
