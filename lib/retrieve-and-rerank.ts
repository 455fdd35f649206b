import { existsSync } from 'node:fs';
import { WarpsightError } from './errors';
import type { BlipImages } from './models/blip';
import type { EncodeOptions } from './models/clip';
import type { ImageInputs } from './models/image-runner';
import type { TextInput } from './models/token-rows';
import type { PairOptions } from './models/vilt';
import { gatherRows, scaledLogits, topK } from './ops';
import { type ImageInput, isPixelTensor } from './preprocess/image-source';
import { scope, Tensor } from './tensor';

/** Embeds images and texts in one space, each by itself: CLIP, SigLIP, BLIP. */
export interface Retriever {
  encodeImage(images: ImageInputs, options?: EncodeOptions): Promise<Tensor<'float32'>>;
  encodeText(texts: TextInput, options?: EncodeOptions): Promise<Tensor<'float32'>>;
}

/** Judges images and texts together, [image][text], the larger the better, from features of pictures that can be kept: BLIP. */
export interface FeatureMatcher {
  match(images: BlipImages, texts: TextInput, options?: PairOptions): Promise<number[][]>;
  /** [n, rows, width] */
  imageFeatures(images: ImageInputs, options?: PairOptions): Promise<Tensor<'float32'>>;
}

/** Judges images and texts together, [image][text], the larger the better: ViLT by `score`, whatever has `match`. */
export type Reranker =
  | FeatureMatcher
  | { match(images: ImageInputs, texts: TextInput, options?: PairOptions): Promise<number[][]> }
  | { score(images: ImageInputs, texts: TextInput, options?: PairOptions): Promise<number[][]> };

/** A bare string is an image where a file of that name exists, and a text otherwise; any other bare value says what it is by itself. */
export type RerankQuery = string | ImageInput | TextInput | { readonly text: TextInput } | { readonly image: ImageInput };

export type CandidateInputs = { readonly images: ImageInputs } | { readonly texts: TextInput };

export interface RetrieveAndRerankOptions extends PairOptions {
  readonly retrieve: Retriever;
  readonly rerank: Reranker;
  /** How many of the best are judged again; 10 by default, all where there are fewer. */
  readonly k?: number;
}

export interface RankedCandidate {
  /** Which of the candidates. */
  readonly index: number;
  /** What `rerank` says of the pair. */
  readonly score: number;
  /** The cosine that it was retrieved by. */
  readonly retrieveScore: number;
}

/** Candidates with their features, computed once: pass them to {@link retrieveAndRerank} as often as needed, and dispose them. */
export class Candidates {
  /** @internal */
  constructor(
    readonly kind: 'images' | 'texts',
    /** Pictures one by one, strings, or rows of ids. */
    readonly items: CandidateItems,
    /** [n, d] unit rows, of the model that retrieves. */
    readonly features: Tensor<'float32'>,
    /** [n, rows, width], of the model that ranks again; kept where it was given and computes such. */
    readonly imageFeatures: Tensor<'float32'> | undefined,
  ) {}

  get length(): number {
    return this.features.shape[0]!;
  }

  dispose(): void {
    this.features.dispose();
    this.imageFeatures?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

type CandidateItems =
  | { readonly images: readonly ImageInput[] }
  | { readonly strings: readonly string[] }
  | { readonly ids: readonly (readonly number[] | Int32Array)[] };

/**
 * Computes the features of candidates, to be kept.
 *
 * @param options rerank: given, what it computes of each picture alone is kept too (for BLIP 1.8 MB a picture), and a query then costs its text only
 * @throws {WarpsightError} as the models' encode calls
 */
export async function encodeCandidates(
  candidates: CandidateInputs,
  options: { readonly retrieve: Retriever; readonly rerank?: Reranker } & PairOptions,
): Promise<Candidates> {
  const { retrieve, rerank, signal } = options;
  requireRetriever(retrieve);
  if (!isCandidateInputs(candidates)) {
    throw new WarpsightError('ERR_ARGUMENT', 'encodeCandidates: give { images } or { texts }, so that strings are not ambiguous');
  }
  const encode = { normalize: true, ...(signal && { signal }) };
  if ('texts' in candidates) {
    const items = textItems(candidates.texts);
    return new Candidates('texts', items, await retrieve.encodeText(candidates.texts, encode), undefined);
  }
  const images = imageItems(candidates.images);
  const features = await retrieve.encodeImage(candidates.images, encode);
  try {
    const keeps = rerank !== undefined && keepsFeatures(rerank) && images.length > 0;
    const imageFeatures = keeps ? await rerank.imageFeatures(candidates.images, signal ? { signal } : {}) : undefined;
    return new Candidates('images', { images }, features, imageFeatures);
  } catch (error) {
    features.dispose();
    throw error;
  }
}

/**
 * Finds the candidates that go best with a query: a model that embeds each side alone (late fusion) compares all of them, one that reads image and
 * text together judges the best k again.
 *
 * @param query a text, for candidates that are images; an image, for candidates that are texts
 * @returns the k best, the best first
 * @throws {WarpsightError} ERR_ARGUMENT; as the models' calls
 * @example
 * const found = await retrieveAndRerank('a rocket at its start', ['a.jpg', 'b.jpg', 'c.jpg'], { retrieve: clip, rerank: blip, k: 2 });
 */
export async function retrieveAndRerank(
  query: RerankQuery,
  candidates: Candidates | CandidateInputs | readonly ImageInput[] | TextInput,
  options: RetrieveAndRerankOptions,
): Promise<RankedCandidate[]> {
  const { retrieve, rerank, k = 10, signal } = options;
  requireRetriever(retrieve);
  requireReranker(rerank);
  if (!Number.isInteger(k) || k < 1) {
    throw new WarpsightError('ERR_ARGUMENT', `retrieveAndRerank: k must be a whole number of at least 1: it is ${String(k)}`);
  }
  const kept = candidates instanceof Candidates;
  if (typeof candidates !== 'string' && (typeof candidates !== 'object' || candidates === null)) {
    throw new WarpsightError(
      'ERR_ARGUMENT',
      `retrieveAndRerank: candidates must be images or texts: they are ${typeof candidates}`,
    );
  }
  const asked = askedOf(query, candidates);
  const given = kept ? candidates : await encodeCandidates(asked.candidates, { retrieve, ...(signal && { signal }) });
  try {
    if ((given.kind === 'images') !== 'text' in asked.query) {
      const wanted = given.kind === 'images' ? 'a text' : 'an image';
      throw new WarpsightError('ERR_ARGUMENT', `retrieveAndRerank: candidates that are ${given.kind} need ${wanted} as query`);
    }
    if (given.length === 0) return [];
    const best = await retrieveBest(asked.query, given, Math.min(k, given.length), options);
    const scores = await judge(asked.query, given, best.indices, options);
    const ranked = Array.from(best.indices, (index, i) => ({ index, score: scores[i]!, retrieveScore: best.cosines[i]! }));
    return ranked.sort((a, b) => b.score - a.score);
  } finally {
    if (!kept) given.dispose();
  }
}

type Query = { readonly text: TextInput } | { readonly image: ImageInput };

async function retrieveBest(query: Query, candidates: Candidates, k: number, options: RetrieveAndRerankOptions) {
  const { retrieve, signal } = options;
  const encode = { normalize: true, ...(signal && { signal }) };
  const embed =
    'text' in query ? await retrieve.encodeText(query.text, encode) : await retrieve.encodeImage([query.image], encode);
  const { values, indices } = scope(() => {
    if (embed.shape[0] !== 1)
      throw new WarpsightError('ERR_ARGUMENT', `retrieveAndRerank: one query is needed: ${embed.shape[0]} were given`);
    return topK(scaledLogits(embed, candidates.features, 0, { unit: true }), k);
  });
  try {
    return { cosines: await values.read(), indices: await indices.read() };
  } finally {
    for (const tensor of [embed, values, indices]) tensor.dispose();
  }
}

/** What `rerank` says of the chosen candidates. */
async function judge(
  query: Query,
  candidates: Candidates,
  chosen: Int32Array,
  options: RetrieveAndRerankOptions,
): Promise<number[]> {
  const { rerank, signal } = options;
  const pairOptions = signal ? { signal } : {};
  const of = (images: ImageInputs, texts: TextInput) =>
    'match' in rerank ? rerank.match(images, texts, pairOptions) : rerank.score(images, texts, pairOptions);
  const { items, imageFeatures } = candidates;
  if ('image' in query) {
    const [scores] = await of([query.image], chosenTexts(items, chosen));
    return scores!;
  }
  if (imageFeatures && keepsFeatures(rerank)) {
    const features = scope(() => chosenFeatures(imageFeatures, chosen));
    try {
      return (await rerank.match(features, query.text, pairOptions)).map(([score]) => score!);
    } finally {
      features.dispose();
    }
  }
  const images = 'images' in items ? Array.from(chosen, (index) => items.images[index]!) : [];
  return (await of(images, query.text)).map(([score]) => score!);
}

function keepsFeatures(rerank: Reranker): rerank is FeatureMatcher {
  return 'imageFeatures' in rerank && typeof rerank.imageFeatures === 'function';
}

/** @param all [n, rows, width] */
function chosenFeatures(all: Tensor<'float32'>, chosen: Int32Array): Tensor<'float32'> {
  const [n, rows, width] = all.shape as [number, number, number];
  const flat = all.reshape([n, rows * width]);
  const index = Tensor.from(chosen, [chosen.length], { device: all.device });
  return gatherRows(flat, index).reshape([chosen.length, rows, width]);
}

function chosenTexts(items: CandidateItems, chosen: Int32Array): TextInput {
  if ('ids' in items) return { inputIds: Array.from(chosen, (index) => items.ids[index]!) };
  return 'strings' in items ? Array.from(chosen, (index) => items.strings[index]!) : [];
}

// ── what was asked ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Query and candidates as what they are: what one says decides about the other. */
function askedOf(
  query: RerankQuery,
  candidates: Candidates | CandidateInputs | readonly ImageInput[] | TextInput,
): { readonly query: Query; readonly candidates: CandidateInputs } {
  const isText = queryIsText(query, candidates);
  const asked = wrapped(query) ?? (isText ? { text: query as TextInput } : { image: query as ImageInput });
  if (candidates instanceof Candidates) return { query: asked, candidates: { texts: [] } };
  if (isCandidateInputs(candidates)) return { query: asked, candidates };
  return {
    query: asked,
    candidates: isText ? { images: candidates as ImageInputs } : { texts: candidates as TextInput },
  };
}

function queryIsText(query: RerankQuery, candidates: Candidates | CandidateInputs | readonly ImageInput[] | TextInput): boolean {
  const known = wrapped(query);
  if (known) return 'text' in known;
  if (isIds(query)) return true;
  if (typeof query !== 'string') return false;
  if (candidates instanceof Candidates) return candidates.kind === 'images';
  if (isCandidateInputs(candidates)) return 'images' in candidates;
  if (isIds(candidates)) return false;
  const strings = Array.isArray(candidates) && candidates.every((item) => typeof item === 'string');
  return !(strings || typeof candidates === 'string') || !existsSync(query);
}

function wrapped(query: RerankQuery): Query | undefined {
  if (typeof query !== 'object' || query === null) return undefined;
  if ('text' in query) return query;
  return 'image' in query ? query : undefined;
}

function isIds(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'inputIds' in value;
}

function isCandidateInputs(value: unknown): value is CandidateInputs {
  return typeof value === 'object' && value !== null && ('images' in value || 'texts' in value);
}

/** Pictures one by one: pre-processed pixels of several are cut apart. */
function imageItems(images: ImageInputs): ImageInput[] {
  const list = Array.isArray(images) ? (images as readonly ImageInput[]) : [images as ImageInput];
  return list.flatMap((image): ImageInput[] => {
    if (!isPixelTensor(image)) return [image];
    const { pixels, shape } = image;
    const [n, C, H, W] = shape as [number, number, number, number];
    const size = C * H * W;
    return Array.from({ length: n }, (_, i) => ({ pixels: pixels.subarray(i * size, (i + 1) * size), shape: [1, C, H, W] }));
  });
}

function textItems(texts: TextInput): CandidateItems {
  if (typeof texts === 'string') return { strings: [texts] };
  return 'inputIds' in texts ? { ids: texts.inputIds } : { strings: texts };
}

// ── from JavaScript anything may come ──────────────────────────────────────────────────────────────────────────────────────────────────

function requireRetriever(retrieve: Retriever): void {
  if (typeof retrieve?.encodeImage === 'function' && typeof retrieve.encodeText === 'function') return;
  throw new WarpsightError('ERR_ARGUMENT', 'retrieve must be a model with encodeImage and encodeText, such as a CLIP');
}

function requireReranker(rerank: Reranker): void {
  const given: object = rerank ?? {};
  for (const name of ['match', 'score']) if (name in given) return;
  throw new WarpsightError('ERR_ARGUMENT', 'rerank must be a model with match or score: a BlipImageTextMatching, a ViLT');
}
