// What the engines of bench:cpu are asked, and what they answer; a line of JSON each way.
import type { CheckpointSize, TowerSize } from './make-checkpoint';

/** One call; its inputs are the same for every engine. */
export type Work =
  | { readonly kind: 'image'; readonly batch: number }
  /** One image, asked for while so many are encoded. */
  | { readonly kind: 'beside'; readonly batch: number }
  | { readonly kind: 'text'; readonly prompts: readonly (readonly number[])[] }
  /** x·Wᵀ with one weight after the other; `file` of the checkpoint's folder holds x [M, K] and w0, w1, … [N, K]. */
  | { readonly kind: 'products'; readonly file: string; readonly copies: number }
  | { readonly kind: 'load' };

/** How our models compute in fewer bits. */
export type Narrow = { readonly quantization: 'int8' } | { readonly dtype: 'bfloat16' };

/** In which a peer may be given its work; the fastest is measured. */
export interface Form {
  /** So many pictures or texts at once */
  readonly part: number;
  /** ONNX: the batch is a number in the model, not a free dimension. */
  readonly fixed?: boolean;
}

export interface Prepare {
  readonly work: Work;
  readonly form?: Form;
}

export interface Prepared {
  /** What the call computes: rows one after the other; nothing for 'load' */
  readonly rows: readonly number[];
  /** Executed by one call, where the engine counts them */
  readonly multiplyAdds?: number;
  /** Of 'beside', where the engine's work has steps: milliseconds of the batch's longest */
  readonly longestStep?: number;
  /** Of 'load', in a process that had loaded nothing: bytes above what was resident before */
  readonly memory?: { readonly peak: number; readonly weights: number };
}

/** Milliseconds of one call, and what all threads of the process computed meanwhile. */
export type Sample = readonly [ms: number, cpuMs: number];

/** Instead of an answer. `unavailable`: the engine can't do this here, and the run goes on without it. */
export interface Refusal {
  readonly error: string;
  readonly unavailable?: boolean;
}

export interface MultiplyAdds {
  /** Every position of the context in every layer. */
  readonly padded: number;
  /** Each prompt by itself, to its own length; only its end mark in what follows the last layer's keys and values. */
  readonly realLengths: number;
}

/** Multiply-adds of CLIP's text tower for prompts of these lengths, marks included. */
export function textMultiplyAdds(
  { text, projection }: Pick<CheckpointSize, 'text' | 'projection'>,
  lengths: readonly number[],
): MultiplyAdds {
  const { layers, width: D } = text;
  const ends = D * projection;
  const sum = (of: (length: number) => number) => lengths.reduce((total, length) => total + of(length), 0);
  return {
    padded: lengths.length * (layers * layerMultiplyAdds(text, text.context, 'all') + ends),
    realLengths: sum((L) => (layers - 1) * layerMultiplyAdds(text, L, 'causal') + lastLayerMultiplyAdds(text, L) + ends),
  };
  function lastLayerMultiplyAdds({ width }: TowerSize, length: number): number {
    return 2 * length * width ** 2 + 10 * width ** 2 + 2 * length * width; // keys and values of all; query, output and MLP of one
  }
}

/** 4 D² of projections and 8 D² of the MLP a token; a pair of query and key costs D twice. */
function layerMultiplyAdds({ width: D }: TowerSize, length: number, pairs: 'all' | 'causal'): number {
  return 12 * length * D ** 2 + 2 * D * (pairs === 'all' ? length ** 2 : (length * (length + 1)) / 2);
}

// ── prompts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The 80 things of COCO (Lin et al. 2014). */
export const kThings: readonly string[] = (
  'person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,' +
  'elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,' +
  'surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,' +
  'potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,' +
  'teddy bear,hair drier,toothbrush'
).split(',');

/** `count` prompts of 7 to 14 tokens, marks included, drawn from `seed`; they share nothing but the start mark. */
export function randomPrompts(count: number, vocabulary: number, seed = 7): number[][] {
  const random = seeded(seed);
  return Array.from({ length: count }, () => {
    const inner = Array.from({ length: 5 + Math.floor(8 * random()) }, () => Math.floor((vocabulary - 2) * random()));
    return [vocabulary - 2, ...inner, vocabulary - 1];
  });
}

/** The same with one template, for a model without a tokenizer: four tokens in front, one to three that differ, a full stop. */
export function templatePrompts(count: number, vocabulary: number, seed = 7): number[][] {
  const random = seeded(seed);
  return Array.from({ length: count }, () => {
    const name = Array.from({ length: 1 + Math.floor(3 * random() ** 2) }, () => 5 + Math.floor((vocabulary - 7) * random()));
    return [vocabulary - 2, 0, 1, 2, 3, ...name, 4, vocabulary - 1];
  });
}

/** Views of `length` numbers each, the last of what is left. */
export function pieces<T extends Float32Array | BigInt64Array>(all: T, length: number): T[] {
  return Array.from({ length: Math.ceil(all.length / length) }, (_, i) => all.subarray(i * length, (i + 1) * length) as T);
}

/** As CLIP's tokenizer fills texts: with their end mark. */
export function paddedIds(prompts: readonly ArrayLike<number>[], context: number, end: number): number[][] {
  return prompts.map((prompt) => Array.from({ length: context }, (_, i) => prompt[i] ?? end));
}

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
