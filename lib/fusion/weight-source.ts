// Where the weights of a fusion module come from: a safetensors file, or arrays by name. One builder per module reads either.
import { basename } from 'node:path';
import type { CheckpointTensor } from '../checkpoint/folder';
import { folderPath } from '../checkpoint/folder-path';
import { shown } from '../checkpoint/json';
import { WeightLoader } from '../checkpoint/weight-loader';
import { type DeviceName, device as openDevice } from '../device';
import type { Float } from '../dtype';
import { WarpsightError } from '../errors';
import { chooseDtype } from '../models/loading';
import { native } from '../native';
import { elements, type Shape, sameShape } from '../shape';
import { Weight } from '../weight';
import type { FusionModule } from './module';

/** Numbers of one weight, row-major. */
export interface WeightArray {
  readonly data: Float32Array | readonly number[];
  readonly shape: Shape;
}

/** A .safetensors file (path or file: URL), or arrays by the names that the file would have. */
export type WeightSource = string | URL | Readonly<Record<string, WeightArray>>;

export interface FusionLoadOptions {
  /** In front of every name, with its dot: 'fusion.' reads `fusion.norm.weight`. Tensors without it are not looked at. */
  readonly prefix?: string | undefined;
  /** 'auto' by default: CUDA where it can be used, else the CPU */
  readonly device?: DeviceName | undefined;
  /** Of the tensors that the module will be given; float32, which encoders return, by default. 16-bit types need CUDA. */
  readonly dtype?: Float | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Makes a module from a source, and owns its weights; every tensor of the source (with the prefix) must be used. `what` names the module in messages. */
export async function loadModule<M extends FusionModule>(
  what: string,
  source: WeightSource,
  options: FusionLoadOptions,
  build: (weights: NamedWeights) => M | Promise<M>,
): Promise<M> {
  const { prefix = '', signal } = options;
  const { name: device } = openDevice(options.device ?? 'auto');
  const dtype = chooseDtype(options.dtype ?? 'float32', device, undefined);
  if (typeof prefix !== 'string')
    throw new WarpsightError('ERR_ARGUMENT', `${what}: prefix must be a string: it is ${shown(prefix)}`);
  const isFile = typeof source === 'string' || source instanceof URL;
  const store = isFile ? await FileStore.open(what, source, device, dtype) : new ArrayStore(what, source, device, dtype);
  const weights = new NamedWeights(what, store, prefix);
  try {
    const module = await build(weights);
    weights.requireAllUsed();
    await store.load(signal);
    module.own(store.weights);
    return module;
  } catch (error) {
    for (const weight of store.weights) weight.dispose();
    throw error;
  } finally {
    store.close();
  }
}

/** What the builders read, whichever way it is stored. */
interface Store {
  /** In messages: the file's name, or "the weights". */
  readonly name: string;
  readonly shapes: ReadonlyMap<string, Shape>;
  readonly weights: readonly Weight[];
  matrix(parts: readonly string[], shape: readonly [number, number]): Weight<'matrix'>;
  vector(parts: readonly string[], length: number): Weight<'vector'>;
  table(name: string, shape: readonly [number, number]): Weight<'table'>;
  numbers(name: string): Promise<ArrayLike<number>>;
  load(signal: AbortSignal | undefined): Promise<void>;
  close(): void;
}

class FileStore implements Store {
  readonly shapes: ReadonlyMap<string, Shape>;
  readonly #loader: WeightLoader;

  private constructor(
    readonly name: string,
    loader: WeightLoader,
  ) {
    this.#loader = loader;
    this.shapes = new Map(Array.from(loader.checkpoint.tensors, ([tensor, { stored }]) => [tensor, stored.shape]));
  }

  static async open(what: string, source: string | URL, device: string, dtype: Float): Promise<FileStore> {
    const path = folderPath(what, source);
    const { handle, tensors } = await native.openCheckpoint([path]);
    const fileName = basename(path);
    const byName = new Map<string, CheckpointTensor>(tensors.map((stored, index) => [stored.name, { index, stored, fileName }]));
    return new FileStore(`"${fileName}"`, new WeightLoader({ handle, tensors: byName }, device, dtype));
  }

  get weights(): readonly Weight[] {
    return this.#loader.weights;
  }

  matrix(parts: readonly string[], shape: readonly [number, number]): Weight<'matrix'> {
    return this.#loader.matrix(parts, shape);
  }

  vector(parts: readonly string[], length: number): Weight<'vector'> {
    return this.#loader.vector(parts, length);
  }

  table(name: string, shape: readonly [number, number]): Weight<'table'> {
    return this.#loader.table(name, shape);
  }

  numbers(name: string): Promise<ArrayLike<number>> {
    const { handle, tensors } = this.#loader.checkpoint;
    return native.readStored(handle, tensors.get(name)!.index);
  }

  load(signal: AbortSignal | undefined): Promise<void> {
    return this.#loader.load({ signal });
  }

  close(): void {
    native.dispose(this.#loader.checkpoint.handle);
  }
}

class ArrayStore implements Store {
  readonly name = 'the record of weights';
  readonly shapes: ReadonlyMap<string, Shape>;
  readonly weights: Weight[] = [];
  readonly #arrays: ReadonlyMap<string, Float32Array>;
  readonly #device: string;
  readonly #compute: Float;

  constructor(what: string, source: Readonly<Record<string, WeightArray>>, device: string, compute: Float) {
    if (typeof source !== 'object' || source === null) {
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `${what}: weights come from a .safetensors file or from a record of arrays by name: it is ${shown(source)}`,
      );
    }
    const entries = Object.entries(source).map(([name, array]) => [name, checkedArray(what, name, array)] as const);
    this.shapes = new Map(entries.map(([name, { shape }]) => [name, shape]));
    this.#arrays = new Map(entries.map(([name, { data }]) => [name, Float32Array.from(data)]));
    this.#device = device;
    this.#compute = compute;
  }

  matrix(parts: readonly string[], shape: readonly [number, number]): Weight<'matrix'> {
    return this.#keep(Weight.matrix(this.#joined(parts), shape, { device: this.#device, compute: this.#compute }));
  }

  vector(parts: readonly string[]): Weight<'vector'> {
    return this.#keep(Weight.vector(this.#joined(parts), { device: this.#device }));
  }

  table(name: string, shape: readonly [number, number]): Weight<'table'> {
    return this.#keep(Weight.table(this.#joined([name]), shape, { device: this.#device }));
  }

  async numbers(name: string): Promise<ArrayLike<number>> {
    return this.#joined([name]);
  }

  async load(): Promise<void> {
    // each was made when it was asked for
  }

  close(): void {
    // nothing is open
  }

  #keep<W extends Weight>(weight: W): W {
    this.weights.push(weight);
    return weight;
  }

  #joined(parts: readonly string[]): Float32Array {
    const arrays = parts.map((part) => this.#arrays.get(part)!);
    const joined = new Float32Array(arrays.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const array of arrays) {
      joined.set(array, at);
      at += array.length;
    }
    return joined;
  }
}

function checkedArray(what: string, name: string, array: WeightArray): WeightArray {
  const { data, shape } = array ?? {};
  const isNumbers = Array.isArray(data) || Object.prototype.toString.call(data) === '[object Float32Array]';
  if (!isNumbers || !Array.isArray(shape)) {
    throw new WarpsightError('ERR_CHECKPOINT', `${what}: "${name}" must be { data: Float32Array or numbers, shape: numbers }`);
  }
  if (data.length !== elements(shape)) {
    throw new WarpsightError(
      'ERR_CHECKPOINT',
      `${what}: "${name}" has ${data.length} numbers, its shape [${shape.join(', ')}] needs ${elements(shape)}`,
    );
  }
  return array;
}

/** The tensors of a source by the names that a module gives them, without the prefix. Each that is asked for counts as used. */
export class NamedWeights {
  readonly #used = new Set<string>();

  constructor(
    /** The module, in messages. */
    readonly what: string,
    private readonly store: Store,
    private readonly prefix: string,
  ) {}

  has(name: string): boolean {
    return this.store.shapes.has(this.prefix + name);
  }

  /** How many of `name`.0, `name`.1, … there are; their numbers must have no gap. */
  count(name: string): number {
    const front = `${this.prefix}${name}.`;
    const found = new Set<number>();
    for (const key of this.store.shapes.keys()) {
      const number = key.startsWith(front) ? /^\d+/.exec(key.slice(front.length))?.[0] : undefined;
      if (number !== undefined) found.add(Number(number));
    }
    for (let i = 0; i < found.size; i++) {
      if (!found.has(i)) throw this.error(`has no "${front}${i}", but later ones`);
    }
    return found.size;
  }

  /** Rows and columns of a stored matrix. */
  sizeOf(name: string): readonly [rows: number, columns: number] {
    const shape = this.#shape(name);
    const [rows = 0, columns = 0] = shape;
    if (shape.length !== 2 || rows < 1 || columns < 1)
      throw this.error(`has "${this.prefix}${name}" [${shape.join(', ')}], a matrix is wanted`);
    return [rows, columns];
  }

  /** One matrix [rows, columns] of parts of equal size, one below the other. */
  matrix(names: readonly string[], rows: number, columns: number): Weight<'matrix'> {
    for (const name of names) this.#expect(name, [rows / names.length, columns]);
    return this.store.matrix(this.#full(names), [rows, columns]);
  }

  vector(names: readonly string[], length: number): Weight<'vector'> {
    for (const name of names) this.#expect(name, [length / names.length]);
    return this.store.vector(this.#full(names), length);
  }

  table(name: string): Weight<'table'> {
    const size = this.sizeOf(name);
    this.#expect(name, size);
    return this.store.table(this.prefix + name, size);
  }

  /** Numbers that the arithmetic of a module needs on this side: gates, weights of a sum. */
  async numbers(name: string): Promise<readonly number[]> {
    this.#shape(name);
    this.#used.add(this.prefix + name);
    const numbers = Array.from(await this.store.numbers(this.prefix + name));
    if (!numbers.every(Number.isFinite)) throw this.error(`has "${this.prefix}${name}" with numbers that are not finite`);
    return numbers;
  }

  /** One number: a scalar [], or [1]. */
  async number(name: string): Promise<number> {
    const shape = this.#shape(name);
    if (elements(shape) !== 1) throw this.error(`has "${this.prefix}${name}" [${shape.join(', ')}], one number is wanted`);
    const [number] = await this.numbers(name);
    return number!;
  }

  requireAllUsed(): void {
    const unused = [...this.store.shapes.keys()].filter((name) => name.startsWith(this.prefix) && !this.#used.has(name));
    if (unused.length === 0) return;
    const more = unused.length > 3 ? ` and ${unused.length - 3} more` : '';
    const names = unused.slice(0, 3).map((name) => `"${name}"`);
    throw this.error(`has tensors that are not used: ${names.join(', ')}${more}`);
  }

  error(rule: string): WarpsightError {
    return new WarpsightError('ERR_CHECKPOINT', `${this.what}: ${this.store.name} ${rule}`);
  }

  #full(names: readonly string[]): string[] {
    return names.map((name) => this.prefix + name);
  }

  #shape(name: string): Shape {
    const shape = this.store.shapes.get(this.prefix + name);
    if (!shape) throw this.error(`has no tensor "${this.prefix}${name}"`);
    return shape;
  }

  #expect(name: string, wanted: Shape): void {
    const shape = this.#shape(name);
    if (!sameShape(shape, wanted)) {
      throw this.error(`has "${this.prefix}${name}" [${shape.join(', ')}], [${wanted.join(', ')}] is wanted`);
    }
    this.#used.add(this.prefix + name);
  }
}
