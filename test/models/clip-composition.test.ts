// new CLIP({ … }) from modules that are made here by hand, as in the paper's figure, equals what fromPretrained() makes of the same file.
import { join } from 'node:path';
import { expect } from 'chai';
import {
  CLIP,
  ImageProcessor,
  ops,
  type Tensor,
  TextTransformer,
  Tokenizer,
  VisionTransformer,
  Weight,
  ZeroShotClassifier,
} from '../../lib';
import { expectError } from '../support/errors';
import { data, fixtures, needsFixtures, readFixture, readSafetensors } from '../support/fixtures';
import { expectClose } from '../support/numbers';

const folder = join(fixtures, 'clip-tiny-quickgelu', 'checkpoint');

// The sizes of the fixture; see its config.json.
const kVision = { D: 64, H: 4, layers: 3, patch: 8, image: 32 };
const kText = { D: 36, H: 3, layers: 2, vocabulary: 49_408, context: 77 };
const kProjection = 40;

/** Weights by their names in the file. */
class Parts {
  readonly #tensors = readSafetensors(join(folder, 'model.safetensors'));

  of(name: string): Float32Array {
    const tensor = this.#tensors.get(name);
    if (tensor?.dtype !== 'F32') throw new Error(`no ${name} in float32`);
    return Float32Array.from(tensor.data);
  }

  vector(...names: string[]) {
    return Weight.vector(Float32Array.from(names.flatMap((name) => [...this.of(name)])));
  }

  matrix(columns: number, ...names: string[]) {
    const values = Float32Array.from(names.flatMap((name) => [...this.of(name)]));
    return Weight.matrix(values, [values.length / columns, columns]);
  }

  linear(columns: number, ...names: string[]) {
    return {
      weight: this.matrix(columns, ...names.map((name) => `${name}.weight`)),
      bias: this.vector(...names.map((name) => `${name}.bias`)),
    };
  }

  norm(name: string) {
    return { weight: this.vector(`${name}.weight`), bias: this.vector(`${name}.bias`), eps: 1e-5 };
  }

  #layer(name: string, { D, H }: { readonly D: number; readonly H: number }) {
    return {
      heads: H,
      headWidth: D / H,
      norm1: this.norm(`${name}.layer_norm1`),
      out: this.linear(D, `${name}.self_attn.out_proj`),
      norm2: this.norm(`${name}.layer_norm2`),
      mlp: {
        fc1: this.linear(D, `${name}.mlp.fc1`),
        fc2: this.linear(4 * D, `${name}.mlp.fc2`),
        activation: 'quickGelu' as const,
      },
    };
  }

  tower(name: string, size: { readonly D: number; readonly H: number; readonly layers: number }) {
    const attention = (i: number, ...which: string[]) =>
      this.linear(size.D, ...which.map((part) => `${name}.encoder.layers.${i}.self_attn.${part}_proj`));
    const last = size.layers - 1;
    return {
      layers: Array.from({ length: last }, (_, i) => ({
        ...this.#layer(`${name}.encoder.layers.${i}`, size),
        qkv: attention(i, 'q', 'k', 'v'),
      })),
      lastLayer: {
        ...this.#layer(`${name}.encoder.layers.${last}`, size),
        q: attention(last, 'q'),
        kv: attention(last, 'k', 'v'),
      },
    };
  }
}

function modules() {
  const parts = new Parts();
  const V = 'vision_model.embeddings';
  const T = 'text_model.embeddings';
  return {
    visionEncoder: new VisionTransformer(kVision.image, {
      embedding: {
        patch: kVision.patch,
        weight: parts.matrix(3 * kVision.patch ** 2, `${V}.patch_embedding.weight`),
        classToken: parts.vector(`${V}.class_embedding`),
        positions: parts.vector(`${V}.position_embedding.weight`),
      },
      preNorm: parts.norm('vision_model.pre_layrnorm'),
      ...parts.tower('vision_model', kVision),
      postNorm: parts.norm('vision_model.post_layernorm'),
      dtype: 'float32',
    }),
    textEncoder: new TextTransformer(kText.context, kText.vocabulary, 2, {
      embedding: {
        tokens: Weight.table(parts.of(`${T}.token_embedding.weight`), [kText.vocabulary, kText.D]),
        positions: Weight.table(parts.of(`${T}.position_embedding.weight`), [kText.context, kText.D]),
      },
      ...parts.tower('text_model', kText),
      finalNorm: parts.norm('text_model.final_layer_norm'),
      dtype: 'float32',
    }),
    visionProjection: parts.matrix(kVision.D, 'visual_projection.weight'),
    textProjection: parts.matrix(kText.D, 'text_projection.weight'),
    logitScale: parts.of('logit_scale')[0]!,
  };
}

describe('new CLIP({ … })', () => {
  let loaded: CLIP;
  let composed: CLIP;
  before(async function () {
    needsFixtures(this);
    loaded = await CLIP.fromPretrained(folder, { device: 'cpu' });
    composed = new CLIP({
      ...modules(),
      imageProcessor: await ImageProcessor.fromPretrained(folder),
      tokenizer: await Tokenizer.fromPretrained(folder),
    });
  });
  after(() => {
    loaded?.dispose();
    composed?.dispose();
  });

  const numbers = async (promise: Promise<Tensor<'float32'>>) => {
    using tensor = await promise;
    return tensor.read();
  };
  const pixels = () => {
    const { data: values, shape } = readFixture('clip-tiny-quickgelu', 'inputs').get('pixel_values')!;
    return { pixels: Float32Array.from(values), shape };
  };
  const picture = join(data, 'pictures', 'chelsea.png');
  const texts = ['a photo of a cat', 'a rocket'];

  it('gives the bits of fromPretrained(), for pixels, pictures, texts and ids', async () => {
    expect(await numbers(composed.encodeImage(pixels()))).to.deep.equal(await numbers(loaded.encodeImage(pixels())));
    expect(await numbers(composed.encodeImage(picture))).to.deep.equal(await numbers(loaded.encodeImage(picture)));
    expect(await numbers(composed.encodeText(texts))).to.deep.equal(await numbers(loaded.encodeText(texts)));
    const ids = { inputIds: [[49_406, 320, 1125, 49_407]] };
    expect(await numbers(composed.encodeText(ids))).to.deep.equal(await numbers(loaded.encodeText(ids)));
    const expected = readFixture('clip-tiny-quickgelu', 'expected').get('image_features')!.data;
    expectClose(await numbers(composed.encodeImage(pixels())), expected, 1e-4);
  });

  it('forward(), similarity() and classify() are the same too', async () => {
    const [ours, theirs] = await Promise.all([composed.forward(picture, texts), loaded.forward(picture, texts)]);
    expect(await ours.logitsPerImage.read()).to.deep.equal(await theirs.logitsPerImage.read());
    ours.dispose();
    theirs.dispose();
    expect(await composed.similarity(picture, texts)).to.deep.equal(await loaded.similarity(picture, texts));
    using a = new ZeroShotClassifier(composed, ['cat', 'rocket']);
    using b = new ZeroShotClassifier(loaded, ['cat', 'rocket']);
    expect(await a.classify(picture)).to.deep.equal(await b.classify(picture));
    await composed.warmup();
    expect([composed.device, composed.dtype, composed.projectionDim, composed.config]).to.deep.equal([
      'cpu',
      'float32',
      kProjection,
      undefined,
    ]);
  });

  it('takes an encoder of your own beside one of ours, without projections where the widths agree', async () => {
    const weight = Weight.matrix(
      Float32Array.from({ length: 36 * 3 }, (_, i) => Math.sin(i)),
      [36, 3],
    );
    const mean = {
      imageSize: 1,
      width: 36,
      pooledRow: (image: number) => image,
      forward: (given: Tensor<'float32'>) => ops.linear(given.reshape([given.shape[0]!, 3]), weight),
    };
    const { textEncoder } = modules();
    using own = new CLIP({ visionEncoder: mean, textEncoder, logitScale: 0 });
    const [row] = await (await own.encodeImage({ pixels: Float32Array.of(1, 2, 3), shape: [1, 3, 1, 1] })).rows();
    const expected = Array.from({ length: 36 }, (_, n) => [1, 2, 3].reduce((sum, x, k) => sum + x * Math.sin(3 * n + k), 0));
    expectClose(row!, expected, 1e-6);
    await expectError(() => own.encodeImage(picture), 'ERR_CONFIG', /no preprocessor_config\.json/);
    await expectError(() => own.encodeText('cat'), 'ERR_TOKENIZER', /no tokenizer files/);
  });

  it('refuses parts that do not fit, with a sentence', async () => {
    const parts = modules();
    await expectError(
      () => new CLIP({ ...parts, visionProjection: undefined }),
      'ERR_SHAPE',
      'CLIP: images are projected to 64 numbers, texts to 40: they must be as many',
    );
    await expectError(() => new CLIP({ ...parts, logitScale: Number.NaN }), 'ERR_CONFIG', /^logit_scale is NaN/);
    await expectError(() => new CLIP({ ...parts, logitBias: Number.NaN }), 'ERR_CONFIG', /^logit_bias is NaN/);
    for (const given of [undefined, null, 5, {}, { visionEncoder: {} }]) {
      await expectError(
        () => Reflect.construct(CLIP, [given]),
        'ERR_ARGUMENT',
        /^CLIP: visionEncoder must be an encoder with forward/,
      );
    }
    await expectError(
      () => Reflect.construct(CLIP, [{ visionEncoder: parts.visionEncoder }]),
      'ERR_ARGUMENT',
      'CLIP: textEncoder must be an encoder with forward(): it is undefined',
    );
    await expectError(() => Reflect.construct(ZeroShotClassifier, [{}, ['a']]), 'ERR_ARGUMENT', /must be a CLIP: it is object/);
  });
});
