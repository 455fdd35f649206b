import { activationDtype, type Float } from './dtype';
import { abortError, WarpsightError } from './errors';
import type { CLIP, RankedClasses } from './models/clip';
import type { ImageInputs } from './models/image-runner';
import { cast, l2Normalize, segmentMean } from './ops';
import type { ImageInput } from './preprocess/image-source';
import { Tensor } from './tensor';

/** '{}' is where the label goes. Several templates are ensembled: the normalised mean of their normalised features. */
export type Template = string | readonly string[] | ((label: string) => string | readonly string[]);

export interface ZeroShotOptions {
  /** 'a photo of a {}' by default */
  readonly template?: Template;
}

export interface ClassifyOptions {
  /** How many of the best classes are listed; all by default */
  readonly topK?: number;
  readonly signal?: AbortSignal;
}

export interface ClassScore {
  readonly label: string;
  readonly index: number;
  /** Softmax over the classes; for SigLIP the sigmoid of this class. */
  readonly score: number;
}

export interface Classification extends ClassScore {
  /** Falling. */
  readonly scores: readonly ClassScore[];
}

let instances = 0;

/**
 * Class names and prompt templates make a classifier; the classes' features are computed once and stay on the device.
 *
 * @see Radford et al. 2021, section 3.1
 */
export class ZeroShotClassifier {
  readonly labels: readonly string[];
  /** Fulfilled when the classes' features are computed; classify() waits for it by itself. */
  readonly ready: Promise<void>;
  readonly #clip: CLIP;
  readonly #key = String(++instances);
  readonly #classes: Promise<Tensor<Float>>;
  #disposed = false;

  /** @throws {WarpsightError} ERR_ARGUMENT for an empty list, labels that are no strings or occur twice, a template without '{}' */
  constructor(clip: CLIP, classes: readonly string[], options: ZeroShotOptions = {}) {
    if (typeof clip?.rankClasses !== 'function')
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `ZeroShotClassifier: the model must be a CLIP: it is ${clip === null ? 'null' : typeof clip}`,
      );
    this.labels = checkLabels(classes);
    this.#clip = clip;
    const prompts = this.labels.map((label) => promptsOf(label, options.template ?? 'a photo of a {}'));
    this.#classes = classRows(clip, prompts);
    this.ready = this.#classes.then(() => undefined);
    this.ready.catch(() => undefined); // reported by whoever waits: classify(), or `await ready`
  }

  /**
   * @param image one picture, or an array of pictures
   * @throws {WarpsightError} ERR_IMAGE, ERR_ARGUMENT, ERR_ABORTED, ERR_DISPOSED
   */
  async classify(image: ImageInput, options?: ClassifyOptions): Promise<Classification>;
  async classify(images: readonly ImageInput[], options?: ClassifyOptions): Promise<Classification[]>;
  async classify(images: ImageInputs, options: ClassifyOptions = {}): Promise<Classification | Classification[]> {
    const { topK = this.labels.length, signal } = options;
    if (!Number.isInteger(topK) || topK < 1)
      throw new WarpsightError('ERR_ARGUMENT', `topK must be a whole number from 1 on: it is ${topK}`);
    if (signal?.aborted) throw abortError(signal);
    const classes = await this.#classes;
    if (this.#disposed) throw new WarpsightError('ERR_DISPOSED', 'the classifier was used after dispose()');
    const k = Math.min(topK, this.labels.length);
    const ranked = await this.#clip.rankClasses(images, classes, this.#key, k, signal);
    const results = ranked.map((row) => this.#classification(row));
    return Array.isArray(images) ? results : results[0]!;
  }

  /** Lets go of the classes' features. Safe again. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#classes.then(
      (classes) => classes.dispose(),
      () => undefined,
    );
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #classification({ scores, indices }: RankedClasses): Classification {
    const list = Array.from(indices, (index, i): ClassScore => ({ label: this.labels[index]!, index, score: scores[i]! }));
    return { ...list[0]!, scores: list };
  }
}

/** The classes in the dtype of the model's activations: they are read again for each picture. */
async function classRows(clip: CLIP, prompts: readonly (readonly string[])[]): Promise<Tensor<Float>> {
  const features = await classFeatures(clip, prompts);
  const dtype = activationDtype(clip.device, clip.dtype);
  if (dtype === 'float32') return features;
  const rows = cast(features, dtype);
  features.dispose();
  return rows;
}

/** [C, d] unit rows: each prompt normalised, averaged over the class's prompts, normalised again. */
async function classFeatures(clip: CLIP, prompts: readonly (readonly string[])[]): Promise<Tensor<'float32'>> {
  const features = await clip.encodeText(prompts.flat(), { normalize: true }); // [prompts, d]
  if (prompts.every((list) => list.length === 1)) return features;
  const runs = new Int32Array(prompts.length * 2);
  let start = 0;
  prompts.forEach((list, c) => {
    runs.set([start, list.length], 2 * c);
    start += list.length;
  });
  const segments = Tensor.from(runs, [prompts.length, 2], { device: clip.device });
  const means = segmentMean(features, segments);
  const classes = l2Normalize(means);
  for (const tensor of [features, segments, means]) tensor.dispose();
  return classes;
}

function checkLabels(classes: readonly string[]): readonly string[] {
  if (!Array.isArray(classes) || classes.length === 0)
    throw new WarpsightError('ERR_ARGUMENT', 'ZeroShotClassifier: at least one class is needed');
  const seen = new Set<string>();
  for (const label of classes) {
    if (typeof label !== 'string')
      throw new WarpsightError('ERR_ARGUMENT', `ZeroShotClassifier: a class must be a string: one is ${typeof label}`);
    if (seen.has(label))
      throw new WarpsightError('ERR_ARGUMENT', `ZeroShotClassifier: the class ${JSON.stringify(label)} is there twice`);
    seen.add(label);
  }
  return [...classes];
}

function promptsOf(label: string, template: Template): readonly string[] {
  if (typeof template === 'function') {
    const made = template(label);
    const prompts = typeof made === 'string' ? [made] : made;
    if (!Array.isArray(prompts) || prompts.length === 0 || !prompts.every((prompt) => typeof prompt === 'string')) {
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `ZeroShotClassifier: the template must return a string or strings for ${JSON.stringify(label)}`,
      );
    }
    return prompts;
  }
  const templates = typeof template === 'string' ? [template] : template;
  if (!Array.isArray(templates) || templates.length === 0) {
    throw new WarpsightError('ERR_ARGUMENT', 'ZeroShotClassifier: template must be a string, strings, or a function');
  }
  return templates.map((text) => {
    if (typeof text !== 'string' || !text.includes('{}')) {
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `ZeroShotClassifier: a template needs '{}' where the label goes: one is ${JSON.stringify(text)}`,
      );
    }
    return text.split('{}').join(label); // literally: '$&' in a label stays '$&'
  });
}
