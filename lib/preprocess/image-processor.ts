import { join } from 'node:path';
import { folderPath } from '../checkpoint/folder-path';
import { readJson } from '../checkpoint/json';
import { type DeviceName, device as openDevice } from '../device';
import { abortError, WarpsightError } from '../errors';
import type { Tensor } from '../tensor';
import { type ImageInput, takeImage } from './image-input';
import { joinPixels, noPixels, resizedPixels } from './image-pixels';
import { kDecodeSlots } from './image-slots';
import { type DecodeOptions, decodeTaken, expandToSquare, type Rgb, type RgbImage } from './image-source';
import {
  joinPlan,
  kFilterNames,
  normalisationTable,
  type PlacedImage,
  type Placement,
  placeImage,
  type ResampleFilter,
  type ResizePlan,
  requireSize,
} from './resample';

type Triple = readonly [number, number, number];

export interface Size {
  readonly height: number;
  readonly width: number;
}

/** What a preprocessor_config.json says, with its class's defaults filled in. In order: pad, resize, crop, rescale, normalise. */
export interface ImageProcessorSpec {
  /** LLaVA's expand2square: the picture is centred on a square of this colour first. */
  readonly padToSquare: Rgb | undefined;
  /** Shorter edge to a length, the longer one in proportion (cut to an integer); or straight to a size. */
  readonly resize:
    | { readonly kind: 'shortestEdge'; readonly edge: number }
    | BoundedSize
    | ({ readonly kind: 'exact' } & Size)
    | undefined;
  readonly filter: ResampleFilter;
  /** Cut from the centre, or padded with zeros (black before normalising) where the picture is smaller. */
  readonly crop: Size | undefined;
  /** 1 where the config turns rescaling off. */
  readonly rescaleFactor: number;
  /** 0 and 1 where the config turns normalising off. */
  readonly mean: Triple;
  readonly std: Triple;
}

/** ViLT's: the shorter edge to a length, unless the longer one would pass its bound; then both down to a multiple. */
export interface BoundedSize {
  readonly kind: 'bounded';
  readonly shortest: number;
  readonly longest: number;
  /** Side of a patch. */
  readonly multiple: number;
}

interface ClassDefaults {
  /** How an integer `size` is meant, and the size where none is given. */
  readonly size: { readonly shortestEdge: number } | { readonly square: number };
  readonly crop: number | undefined;
  readonly filter: ResampleFilter;
  readonly mean: Triple;
  readonly std: Triple;
  readonly padsToSquare: boolean;
  /** Where pictures keep their form: what their sides are multiples of, if the config doesn't say. */
  readonly sizeDivisor?: number;
}

const kClipMean: Triple = [0.48145466, 0.4578275, 0.40821073];
const kClipStd: Triple = [0.26862954, 0.26130258, 0.27577711];
const kHalf: Triple = [0.5, 0.5, 0.5];

const kClip: ClassDefaults = {
  size: { shortestEdge: 224 },
  crop: 224,
  filter: 'bicubic',
  mean: kClipMean,
  std: kClipStd,
  padsToSquare: false,
};

/** source: the constructors of transformers' image processors of these names */
const kClasses: ReadonlyMap<string, ClassDefaults> = new Map([
  ['CLIP', kClip],
  ['Llava', { ...kClip, padsToSquare: true }],
  ['Siglip', { ...kClip, size: { square: 224 }, crop: undefined, mean: kHalf, std: kHalf }],
  ['Blip', { ...kClip, size: { square: 384 }, crop: undefined }],
  [
    'Vilt',
    { ...kClip, size: { shortestEdge: 384 }, crop: undefined, mean: kHalf, std: kHalf, padsToSquare: false, sizeDivisor: 32 },
  ],
  ['ViT', { ...kClip, size: { square: 224 }, crop: undefined, filter: 'bilinear', mean: kHalf, std: kHalf }],
]);

/** A preprocessor_config.json has half a kilobyte. */
const kLargestFile = 1 << 20;

/** Longest edge that a config may ask for: 4096 x 4096 x 3 float32 are 201 MB. */
const kMaxEdge = 4096;

/**
 * Reads the content of a preprocessor_config.json. A field that is missing or null takes the default of the class that
 * `image_processor_type` (or, in old files, `feature_extractor_type`) names; CLIP's, where neither is there.
 *
 * @throws {WarpsightError} ERR_CONFIG naming the field, what it is and what it may be
 */
export function parseImageProcessorConfig(json: unknown): ImageProcessorSpec {
  const config = record('the config', json);
  const defaults = classDefaults(config);

  const doResize = flag(config, 'do_resize', true);
  const doCrop = flag(config, 'do_center_crop', defaults.crop !== undefined);
  const doRescale = flag(config, 'do_rescale', true);
  const doNormalize = flag(config, 'do_normalize', true);
  flag(config, 'do_convert_rgb', true); // checked, and without effect: pictures are RGB here

  const size = parseSize(config, defaults);
  const crop = parseCrop(config, defaults);
  const filter = parseFilter(config, defaults);
  const rescaleFactor = number(config, 'rescale_factor', 1 / 255);
  if (rescaleFactor <= 0) throw configError('rescale_factor', 'must be more than 0', rescaleFactor);
  const mean = triple(config, 'image_mean', defaults.mean);
  const std = triple(config, 'image_std', defaults.std);
  if (std.some((value) => value <= 0)) throw configError('image_std', 'must be more than 0', config.image_std);
  if (doCrop && crop === undefined) throw configError('crop_size', 'is needed where do_center_crop is true', undefined);

  return {
    padToSquare: defaults.padsToSquare && flag(config, 'do_pad', false) ? meanColour(mean) : undefined,
    resize: doResize ? size : undefined,
    filter,
    crop: doCrop ? crop : undefined,
    rescaleFactor: doRescale ? rescaleFactor : 1,
    mean: doNormalize ? mean : [0, 0, 0],
    std: doNormalize ? std : [1, 1, 1],
  };
}

/** The integer colour of LLaVA's padding: the mean in 8 bits, cut. */
function meanColour(mean: Triple): Rgb {
  const byte = (value: number) => Math.min(255, Math.max(0, Math.trunc(value * 255)));
  return [byte(mean[0]), byte(mean[1]), byte(mean[2])];
}

function classDefaults(config: Readonly<Record<string, unknown>>): ClassDefaults {
  const name = config.image_processor_type ?? config.feature_extractor_type;
  if (name === undefined || name === null) return kClip;
  const stem = typeof name === 'string' ? /^(\w+?)(ImageProcessor(Fast|Pil)?|FeatureExtractor)$/.exec(name)?.[1] : undefined;
  const defaults = stem === undefined ? undefined : kClasses.get(stem);
  if (defaults !== undefined) return defaults;
  const known = [...kClasses.keys()].map((known) => `${known}ImageProcessor`).join(', ');
  throw configError('image_processor_type', `must be one of ${known}`, name);
}

function parseSize(
  config: Readonly<Record<string, unknown>>,
  defaults: ClassDefaults,
): NonNullable<ImageProcessorSpec['resize']> {
  const value = config.size;
  const edgeOnly = 'shortestEdge' in defaults.size;
  const byEdge = (length: number): NonNullable<ImageProcessorSpec['resize']> => {
    if (defaults.sizeDivisor === undefined) return { kind: 'shortestEdge', edge: length };
    const longest = Math.trunc((1333 / 800) * length);
    return {
      kind: 'bounded',
      shortest: length,
      longest,
      multiple: edge('size_divisor', config.size_divisor ?? defaults.sizeDivisor),
    };
  };
  if (value === undefined || value === null) {
    if ('shortestEdge' in defaults.size) return byEdge(defaults.size.shortestEdge);
    return { kind: 'exact', height: defaults.size.square, width: defaults.size.square };
  }
  if (typeof value === 'number') {
    const length = edge('size', value);
    return edgeOnly ? byEdge(length) : { kind: 'exact', height: length, width: length };
  }
  const exact = heightAndWidth('size', value);
  if (exact !== undefined) return { kind: 'exact', ...exact };
  const sizes = record('size', value);
  if ('shortest_edge' in sizes) return byEdge(edge('size.shortest_edge', sizes.shortest_edge));
  throw configError('size', 'must be an integer, { shortest_edge } or { height, width }', value);
}

function parseCrop(config: Readonly<Record<string, unknown>>, defaults: ClassDefaults): Size | undefined {
  const value = config.crop_size ?? defaults.crop;
  if (value === undefined) return undefined;
  if (typeof value === 'number') {
    const length = edge('crop_size', value);
    return { height: length, width: length };
  }
  const size = heightAndWidth('crop_size', value);
  if (size === undefined) throw configError('crop_size', 'must be an integer or { height, width }', value);
  return size;
}

/** { height, width } or [height, width]; undefined for anything else. */
function heightAndWidth(name: string, value: unknown): Size | undefined {
  if (Array.isArray(value)) {
    const [height, width]: unknown[] = value;
    if (value.length !== 2) throw configError(name, 'as a list must be [height, width]', value);
    return { height: edge(`${name}[0]`, height), width: edge(`${name}[1]`, width) };
  }
  const sizes = record(name, value);
  if (!('height' in sizes && 'width' in sizes)) return undefined;
  return { height: edge(`${name}.height`, sizes.height), width: edge(`${name}.width`, sizes.width) };
}

function parseFilter(config: Readonly<Record<string, unknown>>, defaults: ClassDefaults): ResampleFilter {
  const code = config.resample ?? kFilterNames.indexOf(defaults.filter);
  const filter = typeof code === 'number' ? kFilterNames[code] : undefined;
  if (filter !== undefined) return filter;
  const codes = kFilterNames.map((name, i) => `${i} (${name})`).join(', ');
  throw configError('resample', `must be one of PIL's codes: ${codes}`, code);
}

function edge(name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= kMaxEdge) return value;
  throw configError(name, `must be an integer from 1 to ${kMaxEdge}`, value);
}

function flag(config: Readonly<Record<string, unknown>>, name: string, fallback: boolean): boolean {
  const value = config[name] ?? fallback;
  if (typeof value === 'boolean') return value;
  throw configError(name, 'must be true or false', value);
}

function number(config: Readonly<Record<string, unknown>>, name: string, fallback: number): number {
  const value = config[name] ?? fallback;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw configError(name, 'must be a finite number', value);
}

function triple(config: Readonly<Record<string, unknown>>, name: string, fallback: Triple): Triple {
  const value: unknown = config[name] ?? fallback;
  const values: unknown[] = Array.isArray(value) ? value : [value, value, value];
  const [r, g, b] = values;
  const finite = (x: unknown): x is number => typeof x === 'number' && Number.isFinite(x);
  if (values.length === 3 && finite(r) && finite(g) && finite(b)) return [r, g, b];
  throw configError(name, 'must be three finite numbers, or one for all channels', value);
}

function record(name: string, value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw configError(name, 'must be an object', value);
}

function configError(name: string, rule: string, value: unknown): WarpsightError {
  const given = typeof value === 'number' || value === undefined ? String(value) : JSON.stringify(value);
  const shown = given === undefined ? typeof value : given.length > 100 ? `${given.slice(0, 100)}…` : given;
  return new WarpsightError('ERR_CONFIG', `image processor: ${name} ${rule}: got ${shown}`);
}

/** Where a picture of this size goes: HF's rules for resizing and for the centre crop. */
export function placementOf(spec: ImageProcessorSpec, source: Size): Placement {
  const resized = resizedSize(spec, source);
  const out = spec.crop ?? resized;
  return { resizedHeight: resized.height, resizedWidth: resized.width, height: out.height, width: out.width };
}

function resizedSize({ resize }: ImageProcessorSpec, { height, width }: Size): Size {
  if (resize === undefined) return { height, width };
  if (resize.kind === 'exact') return { height: resize.height, width: resize.width };
  if (resize.kind === 'bounded') return boundedSize(resize, { height, width });
  const { edge } = resize;
  const longer = (long: number, short: number) => Math.trunc((edge * long) / short);
  return width <= height ? { width: edge, height: longer(height, width) } : { width: longer(width, height), height: edge };
}

/** source: transformers/models/vilt/image_processing_vilt.py, get_resize_output_image_size; one patch at least, where it has none. */
function boundedSize({ shortest, longest, multiple }: BoundedSize, { height, width }: Size): Size {
  const scale = shortest / Math.min(height, width);
  const scaled = [height < width ? shortest : scale * height, height < width ? scale * width : shortest] as const;
  const longer = Math.max(...scaled);
  const [h, w] = scaled.map((side) => {
    const bounded = Math.trunc(longer > longest ? side * (longest / longer) + 0.5 : side + 0.5);
    return Math.max(multiple, Math.floor(bounded / multiple) * multiple);
  });
  return { height: h!, width: w! };
}

/**
 * Plans the resizing of decoded pictures.
 *
 * @throws {WarpsightError} ERR_IMAGE if they come out in different sizes, or there is none and the config fixes no size
 */
export function planResize(images: readonly RgbImage[], spec: ImageProcessorSpec): ResizePlan {
  return joinPlaced(
    images.map((image) => placeDecoded(image, spec)),
    spec,
  );
}

/** Largest picture that comes out: where nothing is cut, 1 x 5000 would become 224 x 1,120,000. */
const kMaxPixels = kMaxEdge ** 2;

/** How a batch is decoded: the options of `decodeImage`. */
export type PrepareOptions = DecodeOptions;

export interface PreprocessOptions extends DecodeOptions {
  /** Where the pixels are computed and stay: 'cpu' by default. */
  readonly device?: DeviceName;
}

/** Decoded bytes after which `plans` begins the next plan. */
const kPlanBytes = 64 << 20;

/** Hugging Face's image processor: pictures in, the model's pixels out. */
export class ImageProcessor {
  readonly spec: ImageProcessorSpec;
  /** [3, 256] float32: what an 8-bit sample of each channel becomes. */
  readonly lut: Float32Array;

  /** @param config the content of a preprocessor_config.json @throws {WarpsightError} ERR_CONFIG */
  constructor(config: unknown) {
    this.spec = parseImageProcessorConfig(config);
    this.lut = normalisationTable(this.spec.rescaleFactor, this.spec.mean, this.spec.std);
  }

  /**
   * Reads preprocessor_config.json of a checkpoint folder, or `image_processor` of its processor_config.json.
   *
   * @throws {WarpsightError} ERR_CHECKPOINT if there is neither, ERR_CONFIG if it can't be read or doesn't say what to do, ERR_ARGUMENT
   */
  static async fromPretrained(folder: string | URL): Promise<ImageProcessor> {
    const path = folderPath('ImageProcessor.fromPretrained', folder);
    const own = await readJson(join(path, 'preprocessor_config.json'), kLargestFile, 'ERR_CONFIG');
    if (own !== undefined) return new ImageProcessor(own);
    const joint = await readJson(join(path, 'processor_config.json'), kLargestFile, 'ERR_CONFIG');
    if (typeof joint === 'object' && joint !== null && 'image_processor' in joint)
      return new ImageProcessor(joint.image_processor);
    throw new WarpsightError('ERR_CHECKPOINT', `checkpoint ${JSON.stringify(path)}: there is no preprocessor_config.json`);
  }

  /**
   * Pictures as the model takes them: decoded, resized, cropped and normalised, bit for bit as PIL's arithmetic does it, off the main thread.
   *
   * @param images one or an array of paths, file URLs, encoded bytes or raw pixels; of different sizes if the config fixes the size they get
   * @returns [n, 3, height, width]; the caller disposes it
   * @throws {WarpsightError} ERR_IMAGE for the first picture that cannot be decoded, or where they come out in different sizes; ERR_ABORTED
   * @example
   * const pixels = await processor.preprocess(['cat.jpg', 'dog.png']); // [2, 3, 224, 224]
   */
  async preprocess(images: ImageInput | readonly ImageInput[], options: PreprocessOptions = {}): Promise<Tensor<'float32'>> {
    const { device = 'cpu', ...decode } = options;
    const { name } = openDevice(device);
    const list = isList(images) ? images : [images];
    if (list.length === 0) return noPixels(joinPlaced([], this.spec), name);
    const parts: Tensor<'float32'>[] = [];
    try {
      for await (const plan of this.plans(list, decode)) {
        const first = parts[0]?.shape;
        if (first) requireSize(plan, first[2]!, first[3]!);
        parts.push(resizedPixels(plan, this.lut, name, decode.signal));
      }
    } catch (error) {
      for (const part of parts) part.dispose();
      throw error;
    }
    return joinPixels(parts, name);
  }

  /**
   * Decodes pictures and plans their resizing, as one plan.
   *
   * @throws {WarpsightError} ERR_IMAGE for the first picture that cannot be decoded, or 2 GiB and more of decoded bytes; ERR_ABORTED
   */
  async prepare(inputs: readonly ImageInput[], options: PrepareOptions = {}): Promise<ResizePlan> {
    return joinPlaced(await this.#placed(inputs, options), this.spec);
  }

  /**
   * The same for a processor that keeps the form of pictures: a plan for each size that comes out, and which of the inputs it is for.
   *
   * @throws {WarpsightError} as prepare
   */
  async prepareBySize(
    inputs: readonly ImageInput[],
    options: PrepareOptions = {},
  ): Promise<{ readonly plan: ResizePlan; readonly indices: readonly number[] }[]> {
    const placed = await this.#placed(inputs, options);
    const groups = new Map<string, number[]>();
    placed.forEach(({ height, width }, i) => {
      const key = `${height} x ${width}`;
      groups.set(key, [...(groups.get(key) ?? []), i]);
    });
    return [...groups.values()].map((indices) => ({
      plan: joinPlaced(
        indices.map((i) => placed[i]!),
        this.spec,
      ),
      indices,
    }));
  }

  /**
   * The same as plans of at most 64 MiB of decoded bytes each (one picture may have more), in order: what holds memory bounded when many
   * photographs are passed at once. The inputs are taken over at the first call; a few pictures are decoded ahead.
   */
  async *plans(inputs: readonly ImageInput[], options: PrepareOptions = {}): AsyncGenerator<ResizePlan, void, void> {
    if (options.signal?.aborted) throw abortError(options.signal);
    const taken = inputs.map(takeImage);
    const ahead: Promise<PlacedImage>[] = [];
    let next = 0;
    let group: PlacedImage[] = [];
    let bytes = 0;
    for (let i = 0; i < taken.length; i++) {
      for (; next < taken.length && next <= i + kDecodeSlots; next++) {
        const decoding = this.#decode(taken[next]!, options);
        decoding.catch(() => undefined); // seen when its turn comes, or never, if the caller stops before
        ahead.push(decoding);
      }
      const image = await ahead.shift()!;
      if (group.length > 0 && bytes + image.data.length > kPlanBytes) {
        yield joinPlaced(group, this.spec);
        group = [];
        bytes = 0;
      }
      group.push(image);
      bytes += image.data.length;
    }
    if (group.length > 0) yield joinPlaced(group, this.spec);
  }

  async #placed(inputs: readonly ImageInput[], options: PrepareOptions): Promise<PlacedImage[]> {
    if (options.signal?.aborted) throw abortError(options.signal);
    return Promise.all(inputs.map(takeImage).map((image) => this.#decode(image, options)));
  }

  async #decode(taken: ReturnType<typeof takeImage>, options: PrepareOptions): Promise<PlacedImage> {
    const image = await decodeTaken(taken, options);
    const { padToSquare } = this.spec;
    const padded = padToSquare === undefined ? image : await expandToSquare(image, padToSquare, options.limitInputPixels);
    return placeDecoded(padded, this.spec); // here, so that a batch's tables are not all computed in one turn of the event loop
  }
}

function isList(images: ImageInput | readonly ImageInput[]): images is readonly ImageInput[] {
  return Array.isArray(images);
}

function placeDecoded(image: RgbImage, spec: ImageProcessorSpec): PlacedImage {
  const placement = placementOf(spec, image);
  const { height, width } = placement;
  if (height * width > kMaxPixels) {
    throw new WarpsightError(
      'ERR_IMAGE',
      `a picture of ${image.width} x ${image.height} becomes one of ${width} x ${height}, which is more than ${kMaxPixels} pixels: ` +
        'the config sets its shorter edge and cuts nothing',
    );
  }
  return placeImage(image, placement, spec.filter);
}

function joinPlaced(images: readonly PlacedImage[], spec: ImageProcessorSpec): ResizePlan {
  const fixed = spec.crop ?? (spec.resize?.kind === 'exact' ? spec.resize : undefined);
  const size = fixed ?? images[0];
  if (size === undefined) throw new WarpsightError('ERR_IMAGE', 'without any picture there is no size: pass at least one');
  return joinPlan(images, size.height, size.width);
}
