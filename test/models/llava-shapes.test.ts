// LLaVA and Llama of shapes that no fixture has, against float64.
import { truncateSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { kLlavaSizes, makeLlava } from '../../bench/make-llava';
import { type FeatureEncoder, LLaVA, Llama, ops, ropeFrequencies, Weight } from '../../lib';
import { encoder } from '../../lib/models/clip-tensors';
import { parseLlamaConfig } from '../../lib/models/llama-config';
import { llamaTensors } from '../../lib/models/llama-tensors';
import { parseLlavaConfig } from '../../lib/models/llava-config';
import { llavaTensors } from '../../lib/models/llava-tensors';
import { elements } from '../../lib/shape';
import { type Json, ModelFolders, randomOf, type Tensors } from '../field/model-folder';
import { expectError } from '../support/errors';
import { expectClose, normal } from '../support/numbers';
import { LlamaReference, LlavaReference } from './llava-reference';

const kMark = 90;
const kNoMatter: Tensors = new Map([['some', { shape: [1], values: Float32Array.of(1) }]]);

function tinyLlama(fields: Json = {}): Json {
  return {
    model_type: 'llama',
    hidden_size: 20,
    intermediate_size: 28,
    num_hidden_layers: 2,
    num_attention_heads: 5,
    num_key_value_heads: 1,
    vocab_size: 100,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: false,
    eos_token_id: 99,
    ...fields,
  };
}

function tinyLlava({ text, vision, top }: { readonly text?: Json; readonly vision?: Json; readonly top?: Json } = {}): Json {
  const tower = { hidden_size: 16, intermediate_size: 24, num_hidden_layers: 3, num_attention_heads: 2 };
  return {
    model_type: 'llava',
    image_token_index: kMark,
    text_config: tinyLlama(text),
    vision_config: { ...tower, image_size: 16, patch_size: 8, ...vision },
    ...top,
  };
}

function llavaWeights(config: Json): Tensors {
  const parsed = parseLlavaConfig(config);
  // as files have it: all layers of the tower, also those that are never read
  return randomOf(new Map([...llavaTensors(parsed), ...encoder('vision_model', parsed.vision), ...llamaTensors(parsed.text)]));
}

/** Canonical names are none that a file has: this is the old naming. */
function stored(tensors: Tensors): Tensors {
  const rename = (name: string): string => {
    if (name.startsWith('vision_model.')) return `vision_tower.${name}`;
    if (name === 'lm_head.weight') return 'language_model.lm_head.weight';
    return name.replace(/^language_model\./, 'language_model.model.');
  };
  return new Map([...tensors].map(([name, tensor]) => [rename(name), tensor]));
}

function picturesOf(count: number, size = 16): { pixels: Float32Array; shape: [number, number, number, number] } {
  return { pixels: normal(count * 3 * size * size, 77), shape: [count, 3, size, size] };
}

describe('LLaVA of other shapes', () => {
  const folders = new ModelFolders();

  const cases: readonly (readonly [what: string, config: Json, marks: readonly (number | 'image')[]])[] = [
    ['one key/value head for five', tinyLlava(), [1, 5, 'image', 7]],
    ['three pictures, a mark first, a mark last, two side by side', tinyLlava(), ['image', 'image', 4, 5, 'image']],
    ['a mark alone', tinyLlava(), ['image']],
    ['a projector without bias', tinyLlava({ top: { multimodal_projector_bias: false } }), [1, 'image', 3]],
    ['a projector with relu', tinyLlava({ top: { projector_hidden_act: 'relu' } }), [1, 'image', 3]],
    ['features of several layers, in their order', tinyLlava({ top: { vision_feature_layer: [-2, 0, 3, 1] } }), [1, 'image', 3]],
    ['features of the first state', tinyLlava({ top: { vision_feature_layer: 0 } }), [1, 'image', 3]],
    ['features after the last layer', tinyLlava({ top: { vision_feature_layer: -1 } }), [1, 'image', 3]],
    ['the class token kept', tinyLlava({ top: { vision_feature_select_strategy: 'full' } }), [1, 'image', 3, 'image']],
    [
      'the class token kept, of two layers, without bias',
      tinyLlava({
        top: { vision_feature_select_strategy: 'full', vision_feature_layer: [0, -1], multimodal_projector_bias: false },
      }),
      ['image', 2, 'image'],
    ],
    [
      'a picture whose size is no multiple of the patch',
      tinyLlava({ vision: { image_size: 19, patch_size: 6 } }),
      [1, 'image', 2],
    ],
    ['a tied head, wider heads than D / heads', tinyLlava({ text: { tie_word_embeddings: true, head_dim: 6 } }), [1, 'image', 2]],
    ['biases in attention and MLP', tinyLlava({ text: { attention_bias: true, mlp_bias: true } }), [1, 'image', 2]],
    ['a quick_gelu tower', tinyLlava({ vision: { hidden_act: 'quick_gelu' } }), [1, 'image', 2]],
  ];

  for (const [what, config, prompt] of cases) {
    it(`gives the features and the logits of float64 with ${what}`, async () => {
      const tensors = llavaWeights(config);
      const reference = new LlavaReference(config, tensors);
      const { tokensPerImage, vision } = reference.config;
      const pictures = picturesOf(prompt.filter((token) => token === 'image').length, vision.imageSize);
      const inputIds = prompt.flatMap((token) => (token === 'image' ? Array<number>(tokensPerImage).fill(kMark) : [token]));
      const llava = await LLaVA.fromPretrained(folders.model(config, { tensors: stored(tensors) }), { device: 'cpu' });

      const features = reference.features(pictures.pixels);
      const encoded = await llava.encodeImage(pictures);
      expect(encoded.shape).to.deep.equal([features.length, tokensPerImage, reference.config.text.hiddenSize]);
      expectClose(
        await encoded.read(),
        features.flat().flatMap((row) => [...row]),
        1e-4,
        'features',
      );

      const expected = reference.logits(inputIds, features);
      const logits = await llava.forward({ inputIds, pixels: pictures });
      expectClose(
        await logits.read(),
        expected.flatMap((row) => [...row]),
        1e-4,
        'logits',
      );
      for (const tensor of [encoded, logits]) tensor.dispose();
      llava.dispose();
    });
  }

  it('takes a list of one layer, its positive and its negative number for the same', async () => {
    const tensors = llavaWeights(tinyLlava());
    const of = async (layer: unknown): Promise<Float32Array> => {
      const config = tinyLlava({ top: { vision_feature_layer: layer } });
      const llava = await LLaVA.fromPretrained(folders.model(config, { tensors: stored(tensors) }), { device: 'cpu' });
      const features = await llava.encodeImage(picturesOf(1));
      const values = await features.read();
      features.dispose();
      llava.dispose();
      return values;
    };
    const plain = await of(-2);
    expect(await of([-2])).to.deep.equal(plain);
    expect(await of(2)).to.deep.equal(plain);
    expect(await of(undefined)).to.deep.equal(plain);
    expect(await of(-1)).not.to.deep.equal(plain);
  });

  it('answers with ids that no token has, which are no text: vocabularies are padded', async () => {
    const folder = folders.make({});
    makeLlava(folder, kLlavaSizes.micro!); // 258 tokens in a vocabulary of 320
    const llava = await LLaVA.fromPretrained(folder, { device: 'cpu' });
    const run = llava.generate({ prompt: 'a <image> b', images: picturesOf(1, 32), maxNewTokens: 40, temperature: 3, seed: 1 });
    const { tokens, text } = await run.result;
    expect(Math.max(...tokens)).to.be.above(257);
    expect(text).to.equal(llava.tokenizer!.decode(tokens.filter((id) => id < 258)));
    llava.dispose();
  });

  it('refuses a layer that is not there', async () => {
    for (const layer of [4, -5, 1.5, '2', [], [0, 9]]) {
      const folder = folders.model(tinyLlava({ top: { vision_feature_layer: layer } }), { tensors: kNoMatter });
      await expectError(() => LLaVA.fromPretrained(folder, { device: 'cpu' }), 'ERR_CONFIG', /vision_feature_layer/);
    }
  });
});

describe('new LLaVA({ … })', () => {
  const folders = new ModelFolders();
  const config = tinyLlava({ top: { vision_feature_layer: 0, multimodal_projector_bias: false } });
  const tensors = llavaWeights(config);
  const { text } = parseLlavaConfig(config);
  const joined = (names: readonly string[]): Float32Array => {
    const arrays = names.map((name) => tensors.get(name)!.values);
    return Float32Array.from(arrays.flatMap((values) => [...values]));
  };
  const matrix = (columns: number, ...names: string[]) => {
    const values = joined(names.map((name) => `${name}.weight`));
    return Weight.matrix(values, [values.length / columns, columns]);
  };
  const vector = (name: string) => Weight.vector(joined([name]));
  const layers = Array.from({ length: text.layers }, (_, i) => {
    const name = `language_model.layers.${i}`;
    const attention = ['q_proj', 'k_proj', 'v_proj'].map((part) => `${name}.self_attn.${part}`);
    return {
      heads: text.heads,
      kvHeads: text.kvHeads,
      headWidth: text.headWidth,
      norm1: { weight: vector(`${name}.input_layernorm.weight`), eps: text.eps },
      qkv: { weight: matrix(text.hiddenSize, ...attention) },
      out: { weight: matrix(text.heads * text.headWidth, `${name}.self_attn.o_proj`) },
      norm2: { weight: vector(`${name}.post_attention_layernorm.weight`), eps: text.eps },
      gateUp: { weight: matrix(text.hiddenSize, `${name}.mlp.gate_proj`, `${name}.mlp.up_proj`) },
      down: { weight: matrix(text.intermediateSize, `${name}.mlp.down_proj`) },
    };
  });
  const parts = {
    tokens: Weight.table(joined(['language_model.embed_tokens.weight']), [text.vocabularySize, text.hiddenSize]),
    layers,
    norm: { weight: vector('language_model.norm.weight'), eps: text.eps },
    head: { weight: matrix(text.hiddenSize, 'lm_head') },
    frequencies: Weight.vector(ropeFrequencies(text)),
    dtype: 'float32' as const,
  };
  const projector = {
    linear1: { weight: matrix(16, 'multi_modal_projector.linear_1') },
    activation: 'gelu' as const,
    linear2: { weight: matrix(text.hiddenSize, 'multi_modal_projector.linear_2') },
  };
  // A tower of one's own: patches through a norm, which is the first state of CLIP's.
  const patches = tensors.get('vision_model.embeddings.patch_embedding.weight')!;
  const embedding = {
    patch: 8,
    weight: Weight.matrix(patches.values, [16, patches.values.length / 16]),
    classToken: vector('vision_model.embeddings.class_embedding'),
    positions: vector('vision_model.embeddings.position_embedding.weight'),
  };
  const preNorm = {
    weight: vector('vision_model.pre_layrnorm.weight'),
    bias: vector('vision_model.pre_layrnorm.bias'),
    eps: 1e-5,
  };
  const visionTower: FeatureEncoder = {
    imageSize: 16,
    width: 16,
    rowsPerImage: 4,
    rowsOf: (image) => [1, 2, 3, 4].map((row) => 5 * image + row),
    forward: (pixels, rows) =>
      ops.gatherRows(ops.layerNorm(ops.patchEmbed(pixels, embedding.weight, embedding), preNorm.weight, preNorm), rows),
  };

  it('from modules made by hand equals what fromPretrained() makes of the same file', async () => {
    const composed = new LLaVA({ visionTower, projector, llm: { config: text, parts }, imageTokenId: kMark });
    const loaded = await LLaVA.fromPretrained(folders.model(config, { tensors: stored(tensors) }), { device: 'cpu' });
    const inputIds = [3, ...Array<number>(4).fill(kMark), 8, ...Array<number>(4).fill(kMark)];
    const [ours, theirs] = await Promise.all(
      [composed, loaded].map(async (llava) => (await llava.forward({ inputIds, pixels: picturesOf(2) })).read()),
    );
    expect(ours).to.deep.equal(theirs);
    for (const llava of [composed, loaded]) llava.dispose();
  });

  it('refuses modules that do not fit together', async () => {
    const narrow: FeatureEncoder = { ...visionTower, width: 15 };
    await expectError(
      () => new LLaVA({ visionTower: narrow, projector, llm: { config: text, parts }, imageTokenId: kMark }),
      'ERR_SHAPE',
      'LLaVA: the vision tower gives 15 numbers and the language model takes 20; the projector goes from 16 to 20',
    );
  });
});

describe('Llama of other shapes', () => {
  const folders = new ModelFolders();
  const ids = Array.from({ length: 90 }, (_, i) => (i * 37 + 11) % 100);

  const check = async (config: Json, options: { readonly tensors?: Tensors } = {}): Promise<Float32Array> => {
    const { tensors = randomOf(llamaTensors(parseLlamaConfig(config))) } = options;
    const reference = LlamaReference.of(config, tensors);
    const llama = await Llama.fromPretrained(folders.model(config, { tensors: stored(tensors) }), { device: 'cpu' });
    const logits = await llama.forward({ inputIds: ids });
    const values = await logits.read();
    const expected = reference.logits(reference.embeddings(ids));
    expectClose(
      values,
      expected.flatMap((row) => [...row]),
      2e-4,
      'logits',
    );
    const { tokens } = await llama.generate({ inputIds: ids, maxNewTokens: 1 }).result;
    const last = [...expected.at(-1)!];
    expect(tokens).to.deep.equal([last.indexOf(Math.max(...last))]);
    logits.dispose();
    llama.dispose();
    return values;
  };

  // F08: the base and the scaling of newer files, where older ones have them, and both forms alike
  const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 };
  const forms: readonly (readonly [what: string, old: Json, now: Json])[] = [
    ['another base', { rope_theta: 500 }, { rope_parameters: { rope_type: 'default', rope_theta: 500 } }],
    [
      'linear scaling',
      { rope_theta: 500, rope_scaling: { type: 'linear', factor: 4 } },
      { rope_parameters: { rope_type: 'linear', rope_theta: 500, factor: 4 } },
    ],
    [
      'Llama 3 scaling',
      { rope_theta: 5000, rope_scaling: { rope_type: 'llama3', ...llama3 } },
      { rope_parameters: { rope_type: 'llama3', rope_theta: 5000, ...llama3 } },
    ],
  ];
  for (const [what, old, now] of forms) {
    it(`reads ${what} from rope_theta and rope_scaling as from rope_parameters`, async () => {
      const first = await check(tinyLlama({ head_dim: 8, ...old }));
      expect(await check(tinyLlama({ head_dim: 8, ...now }))).to.deep.equal(first);
      expect(await check(tinyLlama({ head_dim: 8 }))).not.to.deep.equal(first);
    });
  }

  it('refuses a scaling that it does not know', async () => {
    const folder = folders.model(tinyLlama({ rope_parameters: { rope_type: 'yarn', factor: 2 } }), { tensors: kNoMatter });
    await expectError(() => Llama.fromPretrained(folder, { device: 'cpu' }), 'ERR_CONFIG', /rope_type.*yarn/);
  });

  // F17
  it('takes the embedding for the head where they are tied, though the file has another; an untied one must be there', async () => {
    const untied = tinyLlama({ tie_word_embeddings: false });
    const tied = tinyLlama({ tie_word_embeddings: true });
    const tensors = randomOf(llamaTensors(parseLlamaConfig(untied)));
    const own = await check(untied, { tensors });
    const shared = await check(tied, { tensors });
    expect(shared).not.to.deep.equal(own);
    const headless = new Map([...tensors].filter(([name]) => name !== 'lm_head.weight'));
    expect(await check(tied, { tensors: headless })).to.deep.equal(shared);
    const folder = folders.model(untied, { tensors: stored(headless) });
    await expectError(() => Llama.fromPretrained(folder, { device: 'cpu' }), 'ERR_CHECKPOINT', /lm_head\.weight.*does not tie/);
  });

  it('says before it reads anything how much memory is needed and how much is free', async () => {
    const D = 65_536;
    const V = Math.ceil((2 * totalmem()) / (4 * D));
    const config = tinyLlama({
      hidden_size: D,
      num_attention_heads: 64,
      num_key_value_heads: 8,
      num_hidden_layers: 1,
      vocab_size: V,
    });
    const shapes = llamaTensors(parseLlamaConfig(config));
    let end = 0;
    const header = Object.fromEntries(
      shapes.map(([name, shape]) => {
        const begin = end;
        end += 4 * elements(shape);
        return [name.replace(/^language_model\./, 'model.'), { dtype: 'F32', shape, data_offsets: [begin, end] }];
      }),
    );
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    const folder = folders.make({ 'config.json': config, 'model.safetensors': Buffer.concat([length, text]) });
    truncateSync(join(folder, 'model.safetensors'), 8 + text.length + end); // a file of holes
    await expectError(
      () => Llama.fromPretrained(folder, { device: 'cpu' }),
      'ERR_OUT_OF_MEMORY',
      /^the model needs [\d.e+]+ GB for its weights and [\d.]+ GB for its cache; cpu has [\d.]+ GB free of [\d.]+ GB$/,
    );
  });
});
