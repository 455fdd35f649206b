import { type DeviceName, device as openDevice, threads } from '../device';
import { byteSize, type Float } from '../dtype';
import { WarpsightError } from '../errors';
import { cacheRows, kPageRows, PageAllocator, type SequencePages } from '../generate/kv-cache';
import { type DecoderLayer, decoderLayer, type RmsNorm } from '../nn/decoder-layer';
import type { Linear } from '../nn/encoder-layer';
import { attentionRows, embed, gatherRows, linear, pagedAttention, rmsNorm, rope, ropeAppend, sample, splice } from '../ops';
import { dim, type InputSpec, type ProgramInput, type ProgramResult } from '../program';
import { Tensor } from '../tensor';
import type { Weight } from '../weight';
import { bucket, type ProgramCache, programCache, toFloat32 } from './encode-program';
import type { LlamaConfig } from './llama-config';

/** What a Llama is made of. */
export interface LanguageParts {
  /** [V, D]; where the head is tied, its matrix */
  readonly tokens: Weight<'table' | 'matrix'>;
  readonly layers: readonly DecoderLayer[];
  readonly norm: RmsNorm;
  /** [V, D] */
  readonly head: Linear;
  /** [headWidth / 2], radians per position */
  readonly frequencies: Weight<'vector'>;
  /** Dtype of the activations. */
  readonly dtype: Float;
}

/** Rows of features that stand in the place of some tokens' embeddings. */
export interface SplicedFeatures {
  /** [F, D] */
  readonly features: Tensor<Float>;
  /** Which row each token has instead of its embedding; −1: its own. */
  readonly index: Int32Array;
}

/** How the next id is drawn; see ops.sample. */
export interface Draw {
  readonly temperature: number;
  /** 0: all */
  readonly topK: number;
  readonly topP: number;
  readonly repetitionPenalty: number;
  /** Low and high word. */
  readonly seed: readonly [number, number];
  /** Its number: the same seed and draw give the same id. */
  readonly draw: number;
  /** Ids that the penalty is for. */
  readonly seen: Iterable<number>;
}

/** Tokens of one run: a longer prompt goes in several. */
const kMostTokens = 512;
/** On the CPU, for each thread: its layers are wide, and a short call waits for the step that runs. */
const kMostTokensPerThread = 256;
/** Above it a prompt goes to the lane that lets short calls pass between its steps. */
const kInteractiveTokens = 64;

/** The decoder of Llama and LLaVA: logits of a whole text, and steps over a paged cache of keys and values. */
export class LanguageModel {
  readonly #programs: ProgramCache = programCache();
  readonly #pagesPerSequence: number;
  readonly pages: PageAllocator;
  #caches: readonly Tensor<Float>[] | undefined;

  /** @param cacheTokens positions of all sequences together that the cache holds */
  constructor(
    readonly config: LlamaConfig,
    readonly parts: LanguageParts,
    readonly device: string,
    cacheTokens: number,
  ) {
    this.#pagesPerSequence = Math.ceil(Math.min(config.contextLength, cacheTokens) / kPageRows);
    this.pages = new PageAllocator(Math.ceil(cacheTokens / kPageRows));
  }

  /** Bytes that the cache takes on the device once something is generated. */
  get cacheBytes(): number {
    const { layers, kvHeads, headWidth } = this.config;
    const size = byteSize(this.parts.dtype);
    return layers * this.pages.pages * kPageRows * 2 * kvHeads * headWidth * size;
  }

  /**
   * Logits of every position, without the cache.
   *
   * @returns [T, V]
   */
  forward(ids: Int32Array, spliced?: SplicedFeatures): Tensor<'float32'> {
    const { parts } = this;
    const T = dim('T', bucket(ids.length, 16, 2));
    const inputs = [int32(T), int32(T), { shape: [1, 6], dtype: 'int32' } as const];
    const segments = Int32Array.of(0, ids.length, 0, ids.length, 0, 0);
    const given: ProgramInput[] = [ids, positions(0, ids.length), segments];
    return this.#run(`forward ${T.max}`, inputs, given, T, spliced, (x, rest) => {
      const [at, sequence] = rest as [Tensor<'int32'>, Tensor<'int32'>];
      let y = x;
      for (const layer of parts.layers) {
        const { heads, kvHeads, headWidth } = layer;
        const offsets = [0, heads * headWidth, (heads + kvHeads) * headWidth] as const;
        const layout = {
          heads,
          kvHeads,
          headWidth,
          offsets,
          segments: sequence,
          maxQueries: T.max,
          maxKeys: T.max,
          causal: true,
        };
        y = decoderLayer(y, layer, (perHead) => {
          const turned = rope(perHead, at, parts.frequencies, { heads: heads + kvHeads });
          const packed = turned.reshape([T.max, (heads + 2 * kvHeads) * headWidth]);
          return attentionRows(packed, packed, packed, layout);
        });
      }
      return toFloat32(linear(rmsNorm(y, parts.norm.weight, parts.norm), parts.head.weight));
    }) as Tensor<'float32'>;
  }

  /**
   * What goes into the first layer.
   *
   * @returns [T, D]
   */
  embeds(ids: Int32Array, spliced?: SplicedFeatures): Tensor<'float32'> {
    const T = dim('T', bucket(ids.length, 16, 2));
    return this.#run(`embeds ${T.max}`, [int32(T)], [ids], T, spliced, (x) => toFloat32(x)) as Tensor<'float32'>;
  }

  /** Reads a prompt into the cache and draws the id that follows. */
  prefill(sequence: SequencePages, ids: Int32Array, spliced: SplicedFeatures | undefined, draw: Draw): Tensor<'int32'> {
    const bulk = ids.length > kInteractiveTokens;
    const most = this.device === 'cpu' ? Math.min(kMostTokens, kMostTokensPerThread * threads()) : kMostTokens;
    for (let first = 0; ; first += most) {
      const part = ids.subarray(first, first + most);
      const index = spliced?.index.subarray(first, first + most);
      const features = spliced && index?.some((row) => row >= 0) ? { features: spliced.features, index } : undefined;
      const next = this.step(sequence, part, first, features, draw, bulk);
      if (first + part.length === ids.length) return next;
      next.dispose();
    }
  }

  /**
   * Reads tokens into the cache and draws the id that follows the last.
   *
   * @param ids at most 512
   * @param first the position of ids[0]: everything before it is in the cache
   * @returns [1]
   */
  step(
    sequence: SequencePages,
    ids: Int32Array,
    first: number,
    spliced: SplicedFeatures | undefined,
    draw: Draw,
    bulk = false,
  ): Tensor<'int32'> {
    const { parts, config } = this;
    const count = ids.length;
    const one = count === 1;
    const T = dim('T', one ? 1 : bucket(count, 16, 2));
    const rows: InputSpec = one ? { shape: [1], dtype: 'int32' } : int32(T);
    const seen = [...draw.seen].flatMap((id) => [0, id]);
    const S = dim('S', Math.min(config.vocabularySize, config.contextLength));
    const pages = new Int32Array(this.#pagesPerSequence).fill(-1);
    pages.set(sequence.pages.subarray(0, this.#pagesPerSequence));
    const inputs: InputSpec[] = [
      rows,
      rows,
      rows,
      { shape: [1, this.#pagesPerSequence], dtype: 'int32' },
      { shape: [1, 3], dtype: 'int32' },
      { shape: [1], dtype: 'int32' },
      { shape: [1, 3] },
      { shape: [1, 4], dtype: 'int32' },
      { shape: [S, 2], dtype: 'int32' },
    ];
    const given: ProgramInput[] = [
      ids,
      positions(first, count),
      cacheRows(sequence.pages, first, count),
      pages,
      Int32Array.of(0, count, first + count),
      Int32Array.of(count - 1),
      Float32Array.of(draw.temperature, draw.topP, draw.repetitionPenalty),
      Int32Array.of(draw.topK, draw.seed[0], draw.seed[1], draw.draw),
      Int32Array.from(seen),
    ];
    const caches = this.#open();
    const build = (x: Tensor<Float>, rest: readonly Tensor[]): Tensor<'int32'> => {
      const [at, targets, table, sequences, last, numbers, integers, penalised] = rest as Tensor<'int32'>[];
      let y = x;
      parts.layers.forEach((layer, i) => {
        const { heads, kvHeads, headWidth } = layer;
        const cache = caches[i]!;
        const layout = {
          heads,
          kvHeads,
          headWidth,
          offsets: [0, 0, kvHeads * headWidth],
          page: kPageRows,
          maxQueries: T.max,
        } as const;
        y = decoderLayer(y, layer, (perHead) => {
          const queries = ropeAppend(perHead, at!, parts.frequencies, targets!, cache, layer);
          return pagedAttention(queries, cache, table!, sequences!, layout);
        });
      });
      const final = rmsNorm(one ? y : gatherRows(y, last!), parts.norm.weight, parts.norm); // [1, D]
      const logits = linear(final, parts.head.weight); // [1, V]
      return sample(logits, numbers as unknown as Tensor<'float32'>, integers!, { seen: penalised });
    };
    return this.#run(`step ${T.max}`, inputs, given, T, spliced, build, bulk) as Tensor<'int32'>;
  }

  /** Lets go of programs and cache; the weights belong to whoever made them. */
  dispose(): void {
    this.#programs.clear();
    for (const cache of this.#caches ?? []) cache.dispose();
    this.#caches = undefined;
  }

  /** Programs whose first input is ids [T], embedded and spliced before `build` gets them and the other inputs. */
  #run(
    key: string,
    inputs: readonly InputSpec[],
    given: readonly ProgramInput[],
    T: { readonly name: string; readonly max: number; readonly multiple: number },
    spliced: SplicedFeatures | undefined,
    build: (x: Tensor<Float>, rest: readonly Tensor[]) => ProgramResult,
    bulk = false,
  ): ProgramResult {
    const { tokens, dtype } = this.parts;
    const D = this.config.hiddenSize;
    const F = spliced && dim('F', bucket(spliced.features.shape[0]!, 16, 4));
    const specs = F ? [...inputs, { shape: [F, D], dtype } as const, int32(T)] : inputs;
    const program = this.#programs.get(`${key} ${F?.max ?? 0}`, () =>
      openDevice(this.device as DeviceName).compile((...tensors) => {
        const [ids, ...rest] = tensors;
        let x = embed(ids as Tensor<'int32'>, tokens, { dtype }); // [T, D]
        if (F) {
          const [features, index] = rest.splice(-2) as [Tensor<Float>, Tensor<'int32'>];
          x = splice(x, features, index);
        }
        return build(x, rest);
      }, specs),
    );
    return program.launch(spliced ? [...given, spliced.features, spliced.index] : given, { bulk });
  }

  #open(): readonly Tensor<Float>[] {
    const { kvHeads, headWidth, layers } = this.config;
    const shape = [this.pages.pages * kPageRows, 2 * kvHeads * headWidth];
    this.#caches ??= Array.from({ length: layers }, () => Tensor.reserve(this.parts.dtype, shape, this.device));
    return this.#caches;
  }
}

function int32(first: { readonly name: string; readonly max: number; readonly multiple: number }): InputSpec {
  return { shape: [first], dtype: 'int32' };
}

function positions(first: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => first + i);
}

/** @throws {WarpsightError} ERR_ARGUMENT for ids that the vocabulary doesn't have, and for none */
export function checkTokenIds(ids: ArrayLike<number>, vocabularySize: number, name = 'inputIds'): Int32Array {
  const list = Array.from(ids);
  if (list.length === 0) throw new WarpsightError('ERR_ARGUMENT', `${name} must hold at least one id`);
  for (const id of list) {
    if (Number.isInteger(id) && id >= 0 && id < vocabularySize) continue;
    throw new WarpsightError('ERR_ARGUMENT', `${name} holds ${id}: ids are whole numbers from 0 to ${vocabularySize - 1}`);
  }
  return Int32Array.from(list);
}
