// What the modules are given: one entry for each modality, some of whose items may be missing; and how missing ones are kept out.
import { type Float, isFloat } from '../dtype';
import { WarpsightError } from '../errors';
import { cast, concat, splice } from '../ops';
import { Tensor } from '../tensor';

/** Which tokens of each of n items are there: false, the modality is missing for this item; true, all; or a boolean for each token. */
export type TokenMask = readonly (boolean | readonly boolean[])[];

/** A modality as sequences of tokens. */
export interface Tokens {
  /** [n, T, D] */
  readonly tokens: Tensor;
  /** Without it everything is there. */
  readonly mask?: TokenMask | undefined;
}

/** A modality as one row of features for each item, or of scores. */
export interface Features {
  /** [n, D] */
  readonly features: Tensor;
  /** For each of n items, whether it is there; all by default. What the rows of missing ones hold does not matter. */
  readonly present?: readonly boolean[] | undefined;
}

interface Given {
  /** Which modality. */
  readonly index: number;
  /** In messages: "modality 1". */
  readonly name: string;
  readonly n: number;
  /** Columns. */
  readonly D: number;
}

/** Features that were checked. */
export interface GivenFeatures extends Given {
  readonly x: Tensor<Float>;
  /** undefined: every item is there */
  readonly present: readonly boolean[] | undefined;
}

/** Tokens that were checked. */
export interface GivenTokens extends Given {
  readonly T: number;
  readonly x: Tensor<Float>;
  /** [n][T]; undefined: every token is there */
  readonly seen: readonly (readonly boolean[])[] | undefined;
}

/**
 * @param what names the module in messages
 * @param device of the weights
 * @throws {WarpsightError} if nothing is given, something is empty, sizes, dtypes or devices disagree, or an item has no modality
 */
export function checkFeatures(
  what: string,
  modalities: readonly (Features | undefined)[],
  device?: string,
): readonly [GivenFeatures, ...GivenFeatures[]] {
  const given = checkList(what, modalities, (input, index) => {
    const { x, sizes } = checkTensor(what, `modality ${index}`, input.features, 'features', 2, device);
    const [n, D] = sizes as [number, number];
    const present = checkPresent(what, `modality ${index}`, input.present, n);
    return { index, name: `modality ${index}`, n, D, x, present };
  });
  requireSomething(what, given[0].n, (item) => given.some(({ present }) => present?.[item] ?? true));
  return given;
}

/** The same for tokens. */
export function checkTokens(
  what: string,
  modalities: readonly (Tokens | undefined)[],
  device?: string,
): readonly [GivenTokens, ...GivenTokens[]] {
  const given = checkList(what, modalities, (input, index) => checkSequences(what, `modality ${index}`, input, index, device));
  requireSomething(what, given[0].n, (item) => given.some(({ seen }) => !seen || seen[item]!.some(Boolean)));
  return given;
}

/** One modality's tokens. `name`: what it is, in messages. */
export function checkSequences(what: string, name: string, input: Tokens, index: number, device?: string): GivenTokens {
  const { x, sizes } = checkTensor(what, name, input.tokens, 'tokens', 3, device);
  const [n, T, D] = sizes as [number, number, number];
  return { index, name, n, T, D, x, seen: checkMask(what, name, input.mask, n, T) };
}

/** That a tensor of the stream [n, T, D] and others belong to one batch. */
export function requireAlike(what: string, given: readonly Pick<GivenTokens, 'name' | 'n' | 'x'>[]): void {
  const [first] = given;
  for (const { name, n, x } of given) {
    if (n !== first!.n) throw new WarpsightError('ERR_SHAPE', `${what}: ${name} has ${n} items, ${first!.name} has ${first!.n}`);
    if (x.device !== first!.x.device)
      throw new WarpsightError('ERR_DEVICE', `${what}: ${name} is on ${x.device}, ${first!.name} on ${first!.x.device}`);
    if (x.dtype !== first!.x.dtype)
      throw new WarpsightError('ERR_DTYPE', `${what}: ${name} is ${x.dtype}, ${first!.name} ${first!.x.dtype}; use ops.cast`);
  }
}

/** That a modality is as wide as the weights for it. */
export function requireWidth(what: string, { name, D }: Pick<Given, 'name' | 'D'>, width: number): void {
  if (D !== width) throw new WarpsightError('ERR_SHAPE', `${what}: ${name} is ${D} wide, its weights are for ${width}`);
}

/** That there are as many modalities as the weights are for; missing ones count. */
export function requireCount(what: string, given: readonly unknown[], count: number): void {
  if (given.length !== count) {
    throw new WarpsightError(
      'ERR_ARGUMENT',
      `${what}: ${given.length} modalities were given, the weights are for ${count}; undefined stands for one that is missing`,
    );
  }
}

function checkList<I, G extends Pick<GivenTokens, 'name' | 'n' | 'x'>>(
  what: string,
  modalities: readonly (I | undefined)[],
  check: (input: I, index: number) => G,
): readonly [G, ...G[]] {
  if (!Array.isArray(modalities))
    throw new WarpsightError('ERR_ARGUMENT', `${what}: an array with an entry for each modality is needed`);
  const given = modalities.flatMap((input: I | undefined, index) => (input === undefined ? [] : [check(input, index)]));
  const [first, ...rest] = given;
  if (!first) throw new WarpsightError('ERR_ARGUMENT', `${what}: no modality was given`);
  requireAlike(what, given);
  return [first, ...rest];
}

function checkTensor(what: string, name: string, x: unknown, field: string, rank: number, device: string | undefined) {
  if (!(x instanceof Tensor)) throw new WarpsightError('ERR_ARGUMENT', `${what}: ${field} of ${name} must be a Tensor`);
  const form = rank === 2 ? '[n, D]' : '[n, T, D]';
  const shown = `[${x.shape.join(', ')}]`;
  if (x.shape.length !== rank)
    throw new WarpsightError('ERR_SHAPE', `${what}: ${field} of ${name} must be ${form}: it is ${shown}`);
  if (x.shape.includes(0)) throw new WarpsightError('ERR_SHAPE', `${what}: ${name} is empty: ${field} is ${shown}`);
  if (!isFloatTensor(x))
    throw new WarpsightError('ERR_DTYPE', `${what}: ${field} of ${name} must be a float tensor: it is ${x.dtype}`);
  if (device !== undefined && x.device !== device)
    throw new WarpsightError('ERR_DEVICE', `${what}: ${name} is on ${x.device}, the weights are on ${device}`);
  return { x, sizes: x.shape };
}

function isFloatTensor(x: Tensor): x is Tensor<Float> {
  return isFloat(x.dtype);
}

function checkPresent(what: string, name: string, present: unknown, n: number): readonly boolean[] | undefined {
  if (present === undefined) return undefined;
  if (!isBooleans(present, n))
    throw new WarpsightError('ERR_ARGUMENT', `${what}: present of ${name} must be ${n} booleans, one for each item`);
  return present.every(Boolean) ? undefined : present;
}

function checkMask(
  what: string,
  name: string,
  mask: TokenMask | undefined,
  n: number,
  T: number,
): readonly (readonly boolean[])[] | undefined {
  if (mask === undefined) return undefined;
  if (!Array.isArray(mask) || mask.length !== n)
    throw new WarpsightError('ERR_ARGUMENT', `${what}: the mask of ${name} must have ${n} entries, one for each item`);
  const seen = mask.map((entry: unknown, item): readonly boolean[] => {
    if (typeof entry === 'boolean') return Array(T).fill(entry);
    if (isBooleans(entry, T)) return entry;
    throw new WarpsightError(
      'ERR_ARGUMENT',
      `${what}: the mask of ${name} must have a boolean, or one for each of ${T} tokens, at item ${item}`,
    );
  });
  return seen.every((tokens) => tokens.every(Boolean)) ? undefined : seen;
}

function isBooleans(value: unknown, count: number): value is readonly boolean[] {
  return Array.isArray(value) && value.length === count && value.every((each) => typeof each === 'boolean');
}

function requireSomething(what: string, n: number, has: (item: number) => boolean): void {
  for (let item = 0; item < n; item++)
    if (!has(item)) throw new WarpsightError('ERR_ARGUMENT', `${what}: item ${item} has no modality`);
}

// ── tensors that keep missing ones out ───────────────────────────────────────────────────────────────────────────────────────────────

/** Numbers on the device and in the dtype of `like`. */
export function constant(values: Float32Array, shape: readonly number[], like: Tensor<Float>): Tensor<Float> {
  const stored = Tensor.from(values, shape, { device: like.device });
  return like.dtype === 'float32' ? stored : cast(stored, like.dtype);
}

export function integers(values: Iterable<number>, like: Tensor): Tensor<'int32'> {
  const array = Int32Array.from(values);
  return Tensor.from(array, [array.length], { device: like.device });
}

/**
 * Rows that are missing, replaced by one number: they may hold NaN, which no multiplication by 0 removes.
 *
 * @param x [R, D]
 * @param present R booleans; undefined: nothing is missing
 */
export function fillMissing(x: Tensor<Float>, present: readonly boolean[] | undefined, value: number): Tensor<Float> {
  if (!present) return x;
  const D = x.shape[1]!;
  const row = constant(new Float32Array(D).fill(value), [1, D], x);
  return splice(
    x,
    row,
    integers(
      present.map((there) => (there ? -1 : 0)),
      x,
    ),
  );
}

/**
 * Rows of y where `present`, rows of x elsewhere, bit for bit.
 *
 * @param x, y [R, D]
 */
export function whereRows(present: readonly boolean[] | undefined, y: Tensor<Float>, x: Tensor<Float>): Tensor<Float> {
  if (!present) return y;
  return splice(
    x,
    y,
    integers(
      present.map((there, row) => (there ? row : -1)),
      x,
    ),
  );
}

/** [n, T, D] as rows [n·T, D] */
export function rowsOf({ x, n, T, D }: Pick<GivenTokens, 'x' | 'n' | 'T' | 'D'>): Tensor<Float> {
  return x.reshape([n * T, D]);
}

/** concat of any number of tensors: the operation takes eight. */
export function concatAll(tensors: readonly Tensor<Float>[]): Tensor<Float> {
  const [first, ...rest] = tensors;
  let joined = first!;
  while (rest.length > 0) joined = concat([joined, ...rest.splice(0, 7)]);
  return joined;
}

/** int32 [n·ΣT]: 1 for a key that is there, over sequences that stand side by side; undefined where all are. */
export function keyMask(given: readonly GivenTokens[]): Tensor<'int32'> | undefined {
  const [first] = given;
  if (!first || given.every(({ seen }) => !seen)) return undefined;
  const flags = Array.from({ length: first.n }, (_, item) =>
    given.flatMap(({ seen, T }) => seen?.[item] ?? Array<boolean>(T).fill(true)),
  );
  return integers(flags.flat().map(Number), first.x);
}

/** Sequences side by side: [n·ΣT, W] of rows [n·T, W] each. */
export function besides(given: readonly (Pick<GivenTokens, 'n' | 'T'> & { readonly rows: Tensor<Float> })[]): Tensor<Float> {
  const total = given.reduce((sum, { T }) => sum + T, 0);
  const wide = given.map(({ rows, n, T }) => rows.reshape([n, T * rows.shape[1]!]));
  return concatAll(wide).reshape([given[0]!.n * total, given[0]!.rows.shape[1]!]);
}
