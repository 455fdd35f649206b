import { activationDtype, byteSize, type Float, type Quantization } from '../dtype';
import { abortError, WarpsightError } from '../errors';
import { native, type WeightLayout, type WeightRequest } from '../native';
import { flagOf } from '../program';
import { elements, type Shape } from '../shape';
import { Weight } from '../weight';
import type { Checkpoint } from './folder';

/** Rows of a stored tensor; all of them by default. */
export interface RowRange {
  readonly name: string;
  readonly first: number;
  readonly count: number;
}

type Part = string | RowRange;

export interface LoadWeightsOptions {
  readonly signal?: AbortSignal | undefined;
  /** After every few megabytes: the file read last, and bytes as stored. */
  readonly onProgress?:
    | ((progress: { readonly file: string; readonly loaded: number; readonly total: number }) => void)
    | undefined;
  /** Bytes on the device that the model will need besides its weights. */
  readonly besides?: number | undefined;
}

interface Requested {
  readonly request: WeightRequest;
  readonly weight: Weight;
  /** As stored. */
  readonly bytes: number;
  /** On the device, alignment aside. */
  readonly placed: number;
  readonly fileName: string;
}

/**
 * Collects the weights that a model is built from, and loads them in one go: the model is assembled first, with weights that are filled when
 * {@link WeightLoader.load} has read them from the files straight into the device's layout. That every tensor is there in the shape that the config
 * says has been checked before.
 */
export class WeightLoader {
  readonly #requests: Requested[] = [];

  constructor(
    readonly checkpoint: Pick<Checkpoint, 'handle' | 'tensors'>,
    readonly device: string,
    /** Dtype of the activations. */
    readonly compute: Float,
    /** What matrices are kept as. */
    readonly quantization: Quantization = 'none',
  ) {
    if (device === 'cpu' && quantization === 'int8' && compute === 'bfloat16') {
      throw new WarpsightError(
        'ERR_CONFIG',
        "quantization 'int8' leaves nothing to multiply in bfloat16: dtype must be 'auto' or 'float32'",
      );
    }
  }

  /** Dtype of the activations. */
  get activations(): Float {
    return activationDtype(this.device, this.compute);
  }

  /**
   * A matrix [Σ rows, columns] of one or more stored tensors, one below the other; a stored [D, C, p, p] counts as [D, C·p·p].
   *
   * @param compute the dtype of what is multiplied; given, the matrix is one of the small last ones that are never quantised
   */
  matrix(parts: readonly Part[], shape: readonly [rows: number, columns: number], compute?: Float): Weight<'matrix'> {
    return this.#request('matrix', parts, shape, compute ?? this.compute, compute ? 'none' : this.quantization);
  }

  /** Float32 numbers of one or more stored tensors, one behind the other. */
  vector(parts: readonly Part[], length: number): Weight<'vector'> {
    return this.#request('vector', parts, [length]);
  }

  /** A table whose rows are gathered. */
  table(name: string, shape: readonly [rows: number, columns: number]): Weight<'table'> {
    return this.#request('table', [name], shape);
  }

  /** The numbers of a small tensor, read at once. */
  async numbers(name: string): Promise<Float32Array> {
    const { index } = this.#find(name);
    return native.readStored(this.checkpoint.handle, index);
  }

  /** One stored number: a logit scale. */
  async scalar(name: string): Promise<number> {
    const [number] = await this.numbers(name);
    return number!;
  }

  /**
   * Reads everything that was asked for; the weights are usable then.
   *
   * @throws {WarpsightError} ERR_OUT_OF_MEMORY, before anything is read, if the device can't hold it; ERR_CHECKPOINT, ERR_ABORTED
   */
  async load(options: LoadWeightsOptions = {}): Promise<void> {
    const { signal, onProgress, besides = 0 } = options;
    this.#checkMemory(besides);
    const flag = signal ? flagOf(signal) : null;
    const total = this.#requests.reduce((sum, { bytes }) => sum + bytes, 0);
    let loaded = 0;
    const groups = groupsOf(this.#requests);
    const loadGroups = async (): Promise<void> => {
      for (const group of groups) {
        if (signal?.aborted) throw abortError(signal);
        const handles = await native.loadWeights(
          this.device,
          this.checkpoint.handle,
          group.map(({ request }) => request),
          flag,
        );
        handles.forEach((handle, i) => {
          group[i]!.weight.fill(handle);
        });
        loaded += group.reduce((sum, { bytes }) => sum + bytes, 0);
        onProgress?.({ file: group.at(-1)!.fileName, loaded, total });
      }
    };
    // Whoever fails ends the generator for all. The failure is told when nothing of this load is under way any more.
    const ends = await Promise.allSettled(Array.from({ length: this.#loaders() }, loadGroups));
    const failure = ends.find((end) => end.status === 'rejected');
    if (failure) throw signal?.aborted ? abortError(signal) : failure.reason;
  }

  /** Groups at once: one is packed or copied to the device while another is read. More than four wait for memory. */
  #loaders(): number {
    return this.device === 'cpu' ? Math.min(native.threads(), kMostLoaders) : 2;
  }

  /** Every weight that was asked for. */
  get weights(): readonly Weight[] {
    return this.#requests.map(({ weight }) => weight);
  }

  #checkMemory(besides: number): void {
    const requests = this.#requests.map(({ request }) => request);
    const there = native.hasWeights(this.device, this.checkpoint.handle, requests);
    const weights = this.#requests.reduce((sum, { placed }, i) => sum + (there[i] ? 0 : placed), 0);
    const { total, free } = native.deviceMemory(this.device);
    if (total === 0 || weights + besides <= free) return;
    const more = besides > 0 ? ` and ${inGigabytes(besides)} for its cache` : '';
    throw new WarpsightError(
      'ERR_OUT_OF_MEMORY',
      `the model needs ${inGigabytes(weights)} for its weights${more}; ${this.device} has ${inGigabytes(free)} free of ${inGigabytes(total)}`,
    );
  }

  #request<L extends WeightLayout>(
    layout: L,
    parts: readonly Part[],
    shape: Shape,
    compute = this.compute,
    quantization: Quantization = 'none',
  ): Weight<L> {
    const columns = layout === 'vector' ? 1 : shape[1]!;
    let bytes = 0;
    let lastFile = '';
    const found = parts.map((part) => {
      const name = typeof part === 'string' ? part : part.name;
      const { index, stored, fileName } = this.#find(name);
      const all = elements(stored.shape) / columns;
      const { first, count } = typeof part === 'string' ? { first: 0, count: all } : part;
      bytes += count * columns * (stored.dtype === 'F32' ? 4 : 2);
      lastFile = fileName;
      return { tensor: index, firstRow: first, rows: count };
    });
    const weight = Weight.pending(layout, shape, this.device);
    const request = { layout, compute, quantization, columns, parts: found };
    const placed = quantization === 'int8' ? elements(shape) : this.#placed(layout, elements(shape), compute, bytes);
    this.#requests.push({ request, weight, bytes, placed, fileName: lastFile });
    return weight;
  }

  /** Matrices and tables stay in their stored type, but for matrices that CUDA multiplies in 16 bits. */
  #placed(layout: WeightLayout, count: number, compute: Float, bytes: number): number {
    if (layout === 'vector') return 4 * count;
    return this.device === 'cpu' || layout === 'table' || compute === 'float32' ? bytes : byteSize(compute) * count;
  }

  #find(name: string) {
    const found = this.checkpoint.tensors.get(name);
    if (!found) throw new WarpsightError('ERR_CHECKPOINT', `the checkpoint has no tensor "${name}"`);
    return found;
  }
}

function inGigabytes(bytes: number): string {
  return `${(bytes / 1e9).toPrecision(3)} GB`;
}

const kMostLoaders = 4;

/** Groups of requests of about 16 MB: between them progress is told and an abort is seen. */
function* groupsOf(requests: readonly Requested[]): Generator<Requested[]> {
  let group: Requested[] = [];
  let bytes = 0;
  for (const request of requests) {
    group.push(request);
    bytes += request.bytes;
    if (bytes >= 16 << 20) {
      yield group;
      group = [];
      bytes = 0;
    }
  }
  if (group.length > 0) yield group;
}
