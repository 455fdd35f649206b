import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { WarpsightError } from '../../lib/errors';
import { ImageProcessor, parseImageProcessorConfig, placementOf } from '../../lib/preprocess/image-processor';
import { kDescriptor } from '../../lib/preprocess/resample';
import { kIdentityLut, resizePlainly } from './image-reference';

const clipMean = [0.48145466, 0.4578275, 0.40821073];
const clipStd = [0.26862954, 0.26130258, 0.27577711];

function raw(width: number, height: number, value = 9) {
  return { data: new Uint8Array(width * height * 3).fill(value), width, height, channels: 3 } as const;
}

async function failure(work: Promise<unknown>): Promise<WarpsightError> {
  const error = await work.then(
    () => expect.fail('must be refused'),
    (e: unknown) => e,
  );
  if (error instanceof WarpsightError) return error;
  throw error;
}

describe('parseImageProcessorConfig()', () => {
  const clip = {
    padToSquare: undefined,
    resize: { kind: 'shortestEdge', edge: 224 },
    filter: 'bicubic',
    crop: { height: 224, width: 224 },
    rescaleFactor: 1 / 255,
    mean: clipMean,
    std: clipStd,
  };

  it("fills in each class's defaults, for missing fields and for null", () => {
    expect(parseImageProcessorConfig({})).to.deep.equal(clip);
    const nulls = [
      'do_resize',
      'size',
      'resample',
      'do_center_crop',
      'crop_size',
      'do_rescale',
      'rescale_factor',
      'do_normalize',
      'image_mean',
      'image_std',
      'do_convert_rgb',
    ];
    expect(parseImageProcessorConfig(Object.fromEntries(nulls.map((name) => [name, null])))).to.deep.equal(clip);
    for (const name of ['CLIPImageProcessor', 'CLIPImageProcessorFast', 'CLIPImageProcessorPil', 'LlavaImageProcessor']) {
      expect(parseImageProcessorConfig({ image_processor_type: name }), name).to.deep.equal(clip);
    }
    expect(parseImageProcessorConfig({ feature_extractor_type: 'CLIPFeatureExtractor' })).to.deep.equal(clip);
    const exact = (edge: number) => ({ kind: 'exact', height: edge, width: edge });
    const halves = { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] };
    expect(parseImageProcessorConfig({ image_processor_type: 'SiglipImageProcessor' })).to.deep.equal({
      ...clip,
      ...halves,
      resize: exact(224),
      crop: undefined,
    });
    expect(parseImageProcessorConfig({ image_processor_type: 'BlipImageProcessor' })).to.deep.equal({
      ...clip,
      resize: exact(384),
      crop: undefined,
    });
    for (const name of [{ image_processor_type: 'ViTImageProcessor' }, { feature_extractor_type: 'ViTFeatureExtractor' }]) {
      expect(parseImageProcessorConfig(name)).to.deep.equal({
        ...clip,
        ...halves,
        resize: exact(224),
        crop: undefined,
        filter: 'bilinear',
      });
    }
  });

  it('reads sizes in all their forms', () => {
    const resize = (size: unknown, type = 'CLIPImageProcessor') =>
      parseImageProcessorConfig({ image_processor_type: type, size }).resize;
    expect(resize(336)).to.deep.equal({ kind: 'shortestEdge', edge: 336 });
    expect(resize({ shortest_edge: 336 })).to.deep.equal({ kind: 'shortestEdge', edge: 336 });
    expect(resize({ height: 30, width: 40 })).to.deep.equal({ kind: 'exact', height: 30, width: 40 });
    expect(resize([30, 40])).to.deep.equal({ kind: 'exact', height: 30, width: 40 });
    expect(resize(384, 'SiglipImageProcessor')).to.deep.equal({ kind: 'exact', height: 384, width: 384 });
    const crop = (crop_size: unknown) => parseImageProcessorConfig({ crop_size }).crop;
    expect(crop(32)).to.deep.equal({ height: 32, width: 32 });
    expect(crop({ height: 3, width: 4 })).to.deep.equal({ height: 3, width: 4 });
    expect(
      parseImageProcessorConfig({ image_processor_type: 'SiglipImageProcessor', do_center_crop: true, crop_size: 8 }).crop,
    ).to.deep.equal({ height: 8, width: 8 });
  });

  it('honours the steps that are turned off, and one number for all channels', () => {
    const off = parseImageProcessorConfig({ do_resize: false, do_center_crop: false, do_rescale: false, do_normalize: false });
    expect(off).to.deep.equal({ ...clip, resize: undefined, crop: undefined, rescaleFactor: 1, mean: [0, 0, 0], std: [1, 1, 1] });
    const single = parseImageProcessorConfig({ image_mean: 0.25, image_std: 2, rescale_factor: 0.5 });
    expect([single.mean, single.std, single.rescaleFactor]).to.deep.equal([[0.25, 0.25, 0.25], [2, 2, 2], 0.5]);
  });

  it("reads PIL's six filters", () => {
    const names = [0, 1, 2, 3, 4, 5].map((resample) => parseImageProcessorConfig({ resample }).filter);
    expect(names).to.deep.equal(['nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming']);
  });

  it("pads to a square of the mean colour for LLaVA's do_pad alone", () => {
    expect(parseImageProcessorConfig({ image_processor_type: 'LlavaImageProcessor', do_pad: true }).padToSquare).to.deep.equal([
      122, 116, 104,
    ]);
    expect(parseImageProcessorConfig({ image_processor_type: 'LlavaImageProcessor', do_pad: false }).padToSquare).to.equal(
      undefined,
    );
    expect(parseImageProcessorConfig({ do_pad: true }).padToSquare).to.equal(undefined);
  });

  const absurd: [what: string, config: unknown, message: string][] = [
    ['no object', [], 'image processor: the config must be an object: got []'],
    ['null', null, 'image processor: the config must be an object: got null'],
    ['text', 'x', 'image processor: the config must be an object: got "x"'],
    ['size 0', { size: 0 }, 'image processor: size must be an integer from 1 to 4096: got 0'],
    ['size 1e9', { size: 1e9 }, 'image processor: size must be an integer from 1 to 4096: got 1000000000'],
    [
      'size 1.5',
      { size: { shortest_edge: 1.5 } },
      'image processor: size.shortest_edge must be an integer from 1 to 4096: got 1.5',
    ],
    ['size "224"', { size: '224' }, 'image processor: size must be an object: got "224"'],
    [
      'size without edge',
      { size: { longest_edge: 3 } },
      'image processor: size must be an integer, { shortest_edge } or { height, width }: got {"longest_edge":3}',
    ],
    [
      'negative height',
      { size: { height: -1, width: 4 } },
      'image processor: size.height must be an integer from 1 to 4096: got -1',
    ],
    ['list of three', { size: [1, 2, 3] }, 'image processor: size as a list must be [height, width]: got [1,2,3]'],
    ['crop 0', { crop_size: 0 }, 'image processor: crop_size must be an integer from 1 to 4096: got 0'],
    [
      'crop without width',
      { crop_size: { height: 4 } },
      'image processor: crop_size must be an integer or { height, width }: got {"height":4}',
    ],
    [
      'crop missing',
      { image_processor_type: 'BlipImageProcessor', do_center_crop: true },
      'image processor: crop_size is needed where do_center_crop is true: got undefined',
    ],
    [
      'NaN mean',
      { image_mean: [0, Number.NaN, 0] },
      'image processor: image_mean must be three finite numbers, or one for all channels: got [0,null,0]',
    ],
    [
      'two means',
      { image_mean: [0, 0] },
      'image processor: image_mean must be three finite numbers, or one for all channels: got [0,0]',
    ],
    ['std 0', { image_std: [1, 0, 1] }, 'image processor: image_std must be more than 0: got [1,0,1]'],
    ['factor 0', { rescale_factor: 0 }, 'image processor: rescale_factor must be more than 0: got 0'],
    [
      'factor Infinity',
      { rescale_factor: Number.POSITIVE_INFINITY },
      'image processor: rescale_factor must be a finite number: got Infinity',
    ],
    ['flag "yes"', { do_resize: 'yes' }, 'image processor: do_resize must be true or false: got "yes"'],
    [
      'resample 6',
      { resample: 6 },
      "image processor: resample must be one of PIL's codes: 0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box), 5 (hamming): got 6",
    ],
    [
      'resample 2.5',
      { resample: 2.5 },
      "image processor: resample must be one of PIL's codes: 0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box), 5 (hamming): got 2.5",
    ],
    [
      'another class',
      { image_processor_type: 'SamImageProcessor' },
      'image processor: image_processor_type must be one of CLIPImageProcessor, LlavaImageProcessor, SiglipImageProcessor, BlipImageProcessor, ViltImageProcessor, ViTImageProcessor: got "SamImageProcessor"',
    ],
  ];
  for (const [what, config, message] of absurd) {
    it(`refuses ${what}`, () => {
      expect(() => parseImageProcessorConfig(config))
        .to.throw(WarpsightError)
        .that.includes({ code: 'ERR_CONFIG', message });
    });
  }
});

describe('placementOf()', () => {
  const spec = parseImageProcessorConfig({ size: 224, crop_size: 224 });
  for (const [width, height, resizedWidth, resizedHeight] of [
    [451, 300, 336, 224], // 336.75, cut
    [280, 299, 224, 239],
    [500, 9, 12444, 224],
    [1, 5000, 224, 1_120_000],
    [224, 224, 224, 224],
  ] as const) {
    it(`${width} x ${height} goes to ${resizedWidth} x ${resizedHeight}`, () => {
      expect(placementOf(spec, { width, height })).to.deep.equal({ resizedWidth, resizedHeight, width: 224, height: 224 });
    });
  }
});

describe('ImageProcessor', () => {
  let folder = '';
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'warpsight-'));
  });
  after(() => rm(folder, { recursive: true }));

  async function checkpoint(name: string, files: Record<string, string>): Promise<string> {
    const path = join(folder, name);
    await mkdir(path);
    for (const [file, text] of Object.entries(files)) await writeFile(join(path, file), text);
    return path;
  }

  it('fromPretrained() reads preprocessor_config.json, or image_processor of processor_config.json', async () => {
    const own = await checkpoint('own', {
      'preprocessor_config.json': '{"size":32,"crop_size":32}',
      'processor_config.json': '{}',
    });
    expect((await ImageProcessor.fromPretrained(own)).spec.crop).to.deep.equal({ height: 32, width: 32 });
    const joint = await checkpoint('joint', { 'processor_config.json': '{"image_processor":{"size":16,"crop_size":16}}' });
    expect((await ImageProcessor.fromPretrained(joint)).spec.crop).to.deep.equal({ height: 16, width: 16 });
  });

  it('fromPretrained() says what is missing or broken', async () => {
    const none = await checkpoint('none', { 'processor_config.json': '{}' });
    const missing = await failure(ImageProcessor.fromPretrained(none));
    expect([missing.code, missing.message]).to.deep.equal([
      'ERR_CHECKPOINT',
      `checkpoint ${JSON.stringify(none)}: there is no preprocessor_config.json`,
    ]);
    expect((await failure(ImageProcessor.fromPretrained(join(folder, 'nowhere')))).code).to.equal('ERR_CHECKPOINT');
    for (const [i, text] of ['{', '{"image_mean": NaN}', `"${'x'.repeat(2 << 20)}"`, '[]'].entries()) {
      const broken = await checkpoint(`broken${i}`, { 'preprocessor_config.json': text });
      expect((await failure(ImageProcessor.fromPretrained(broken))).code, text.slice(0, 20)).to.equal('ERR_CONFIG');
    }
  });

  it('lut is the normalised value of every sample', () => {
    const { lut } = new ImageProcessor({});
    expect(lut[512 + 7]).to.equal(Math.fround((7 / 255 - clipMean[2]!) / clipStd[2]!));
  });

  it('prepare() decodes a batch of any sizes in order, and rejects with the first that fails', async () => {
    const processor = new ImageProcessor({ size: 8, crop_size: 8 });
    const plan = await processor.prepare([raw(20, 10, 1), raw(9, 30, 2), raw(1, 1, 3)]);
    const out = resizePlainly(plan, kIdentityLut);
    expect([0, 1, 2].map((n) => out[n * 192 + 100])).to.deep.equal([1, 2, 3]);
    const error = await failure(processor.prepare([raw(2, 2), 'missing.png', raw(2, 2)]));
    expect([error.code, error.message]).to.deep.equal(['ERR_IMAGE', 'image "missing.png": cannot be read: no such file']);
    expect((await failure(processor.prepare([raw(2, 2)], { signal: AbortSignal.abort() }))).code).to.equal('ERR_ABORTED');
    expect((await failure(processor.prepare([raw(3, 3)], { limitInputPixels: 8 }))).message).to.match(/3 x 3 is 9 pixels/);
  });

  it("prepare() pads to a square first where LLaVA's config says so", async () => {
    const processor = new ImageProcessor({
      image_processor_type: 'LlavaImageProcessor',
      do_pad: true,
      size: 4,
      crop_size: 4,
      resample: 0,
    });
    const out = resizePlainly(await processor.prepare([raw(4, 2, 255)]), kIdentityLut);
    expect([0, 4, 8, 12].map((i) => out[i])).to.deep.equal([122, 255, 255, 122]);
    expect((await failure(processor.prepare([raw(9, 1)], { limitInputPixels: 80 }))).message).to.match(/9 x 9 is 81 pixels/);
  });

  it('plans() gives the same pictures in bounded plans', async () => {
    const processor = new ImageProcessor({ size: 4, crop_size: 4, resample: 0 });
    const inputs = [30, 31, 32, 33, 34].map((value) => raw(4000, 2500, value)); // 30 MB each: two to a plan of 64 MiB
    const counts: number[] = [];
    const values: (number | undefined)[] = [];
    for await (const plan of processor.plans(inputs)) {
      const n = plan.images.length / kDescriptor.length;
      counts.push(n);
      const out = resizePlainly(plan, kIdentityLut);
      for (let i = 0; i < n; i++) values.push(out[i * 48]);
    }
    expect(counts).to.deep.equal([2, 2, 1]);
    expect(values).to.deep.equal([30, 31, 32, 33, 34]);
  });

  it('plans() stops early without leaving an unhandled rejection', async () => {
    const processor = new ImageProcessor({ size: 4, crop_size: 4 });
    const plans = processor.plans(['missing.png', 'missing too.png', raw(2, 2)]);
    expect((await failure(plans.next())).message).to.match(/missing.png/);
    expect((await processor.plans([]).next()).done).to.equal(true);
  });
});
