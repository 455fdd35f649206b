// LLaVA and Llama of shapes that no fixture has, against float64.
import { truncateSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { kLlavaSizes, makeLlava } from '../../bench/make-llava';
import { type FeatureEncoder, LLaVA, Llama, ops, ropeFrequencies, Weight } from '../../lib';
import { parseLlamaConfig } from '../../lib/models/llama-config';
import { llamaTensors } from '../../lib/models/llama-tensors';
import { parseLlavaConfig } from '../../lib/models/llava-config';
import { native } from '../../lib/native';
import { elements } from '../../lib/shape';
import { type Json, ModelFolders, randomOf, type Tensors } from '../field/model-folder';
import { expectError } from '../support/errors';
import { expectClose } from '../support/numbers';
import { LlamaReference } from './llava-reference';
import { describeLlavaShapes, kMark, llavaWeights, picturesOf, stored, tinyLlama, tinyLlava } from './llava-shapes';

const kNoMatter: Tensors = new Map([['some', { shape: [1], values: Float32Array.of(1) }]]);

describeLlavaShapes('cpu');

describe('LLaVA of other shapes', () => {
  const folders = new ModelFolders();

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

  it('counts only what is not there yet: models of one folder share their weights', async () => {
    const config = tinyLlama();
    const tensors = stored(randomOf(llamaTensors(parseLlamaConfig(config))));
    const folder = folders.model(config, { tensors });
    const another = folders.model(config, { tensors });
    const load = (path: string) => Llama.fromPretrained(path, { device: 'cpu', cacheTokens: 16 });
    const deviceMemory = native.deviceMemory;
    const first = await load(folder);
    try {
      native.deviceMemory = (name) => ({ ...deviceMemory(name), free: 8192 }); // the cache fits, the weights don't
      (await load(folder)).dispose();
      await expectError(() => load(another), 'ERR_OUT_OF_MEMORY', /^the model needs/);
    } finally {
      native.deviceMemory = deviceMemory;
      first.dispose();
    }
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
