import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { type ClipModelConfig, parseClipConfig, parseClipModelConfig, parseSiglipConfig } from '../../lib/models/clip-config';
import { expectError } from '../checkpoint/files';
import { fixtures, needsFixtures } from '../support/fixtures';

type Json = Record<string, unknown>;

const clip = (fields: Json = {}): Json => ({ model_type: 'clip', ...fields });
const vision = (fields: Json): Json => clip({ vision_config: fields });
const text = (fields: Json): Json => clip({ text_config: fields });
const siglip = (fields: Json = {}): Json => ({ model_type: 'siglip', ...fields });

function refuses(json: unknown, message: string): void {
  expectError(() => parseClipModelConfig(json), 'ERR_CONFIG', `config.json: ${message}`);
}

const clipDefaults: ClipModelConfig = {
  kind: 'clip',
  vision: {
    hiddenSize: 768,
    heads: 12,
    intermediateSize: 3072,
    layers: 12,
    activation: 'quickGelu',
    eps: 1e-5,
    imageSize: 224,
    patchSize: 32,
  },
  text: {
    hiddenSize: 512,
    heads: 8,
    intermediateSize: 2048,
    layers: 12,
    activation: 'quickGelu',
    eps: 1e-5,
    vocabularySize: 49408,
    contextLength: 77,
    eosTokenId: 49407,
  },
  projectionDim: 512,
  dtype: undefined,
};

const siglipDefaults: ClipModelConfig = {
  kind: 'siglip',
  vision: {
    hiddenSize: 768,
    heads: 12,
    intermediateSize: 3072,
    layers: 12,
    activation: 'geluTanh',
    eps: 1e-6,
    imageSize: 224,
    patchSize: 16,
  },
  text: {
    hiddenSize: 768,
    heads: 12,
    intermediateSize: 3072,
    layers: 12,
    activation: 'geluTanh',
    eps: 1e-6,
    vocabularySize: 32000,
    contextLength: 64,
    padTokenId: 1,
  },
  projectionDim: 768,
  dtype: undefined,
};

describe('parseClipModelConfig()', () => {
  describe('reads the fixtures', () => {
    const read = (name: string): Json => JSON.parse(readFileSync(join(fixtures, name, 'checkpoint', 'config.json'), 'utf8'));
    before(function () {
      needsFixtures(this);
    });

    it('clip-tiny-quickgelu', () => {
      expect(parseClipModelConfig(read('clip-tiny-quickgelu'))).to.deep.equal({
        kind: 'clip',
        vision: {
          hiddenSize: 64,
          heads: 4,
          intermediateSize: 256,
          layers: 3,
          activation: 'quickGelu',
          eps: 1e-5,
          imageSize: 32,
          patchSize: 8,
        },
        text: {
          hiddenSize: 36,
          heads: 3,
          intermediateSize: 144,
          layers: 2,
          activation: 'quickGelu',
          eps: 1e-5,
          vocabularySize: 49408,
          contextLength: 77,
          eosTokenId: 2,
        },
        projectionDim: 40,
        dtype: 'float32',
      });
    });

    it('clip-tiny-gelu-f16', () => {
      const config = parseClipConfig(read('clip-tiny-gelu-f16'));
      expect([config.vision.activation, config.text.activation]).to.deep.equal(['gelu', 'gelu']);
      expect([config.text.eosTokenId, config.dtype]).to.deep.equal([49407, 'float16']);
    });

    it('clip-tiny-ids-bf16, where *_config_dict contradicts *_config and wins', () => {
      const config = parseClipConfig(read('clip-tiny-ids-bf16'));
      const { hiddenSize, layers, heads, activation } = config.text;
      expect([hiddenSize, layers, heads, activation]).to.deep.equal([64, 2, 4, 'quickGelu']);
      expect([config.vision.hiddenSize, config.vision.layers, config.vision.activation]).to.deep.equal([96, 2, 'quickGelu']);
      expect([config.text.eosTokenId, config.dtype]).to.deep.equal([150, 'bfloat16']);
    });

    it('siglip-tiny', () => {
      expect(parseSiglipConfig(read('siglip-tiny'))).to.deep.equal({
        kind: 'siglip',
        vision: {
          hiddenSize: 64,
          heads: 4,
          intermediateSize: 150,
          layers: 2,
          activation: 'geluTanh',
          eps: 1e-6,
          imageSize: 32,
          patchSize: 8,
        },
        text: {
          hiddenSize: 48,
          heads: 3,
          intermediateSize: 130,
          layers: 2,
          activation: 'geluTanh',
          eps: 1e-6,
          vocabularySize: 400,
          contextLength: 16,
          padTokenId: 1,
        },
        projectionDim: 64,
        dtype: 'float32',
      });
    });

    it('the same without the fields that equal a default', () => {
      const defaults: Json = {
        hidden_act: 'quick_gelu',
        layer_norm_eps: 1e-5,
        num_channels: 3,
        vocab_size: 49408,
        max_position_embeddings: 77,
      };
      const json = read('clip-tiny-quickgelu');
      const full = parseClipModelConfig(json);
      for (const tower of ['text_config', 'vision_config']) {
        const fields = json[tower] as Json;
        for (const [name, value] of Object.entries(defaults)) {
          if (!(name in fields)) continue;
          expect(fields[name], name).to.equal(value);
          delete fields[name];
        }
      }
      expect(parseClipModelConfig(json)).to.deep.equal(full);
    });
  });

  it('fills what is absent or null with the defaults of its class', () => {
    expect(parseClipModelConfig(clip())).to.deep.equal(clipDefaults);
    expect(parseClipModelConfig({ architectures: ['CLIPModel'] })).to.deep.equal(clipDefaults);
    expect(parseClipModelConfig(clip({ text_config: {}, vision_config: null, text_config_dict: null }))).to.deep.equal(
      clipDefaults,
    );
    expect(parseClipModelConfig(vision({ hidden_size: null, image_size: null }))).to.deep.equal(clipDefaults);
    expect(parseClipModelConfig(siglip())).to.deep.equal(siglipDefaults);
    expect(parseClipModelConfig({ architectures: ['SiglipModel'], text_config: {} })).to.deep.equal(siglipDefaults);
  });

  it('lets *_config_dict win as a whole: what it leaves out is the default, not the other value', () => {
    const json = clip({
      text_config: { num_hidden_layers: 3, layer_norm_eps: 1e-3 },
      text_config_dict: { num_hidden_layers: 2 },
    });
    const config = parseClipConfig(json);
    expect([config.text.layers, config.text.eps]).to.deep.equal([2, 1e-5]);
  });

  it('reads activation and eps of each tower', () => {
    const config = parseClipConfig(
      clip({
        text_config: { hidden_act: 'gelu', layer_norm_eps: 1e-3 },
        vision_config: { hidden_act: 'quick_gelu', layer_norm_eps: 1e-7 },
      }),
    );
    expect([config.text.activation, config.text.eps]).to.deep.equal(['gelu', 1e-3]);
    expect([config.vision.activation, config.vision.eps]).to.deep.equal(['quickGelu', 1e-7]);
  });

  for (const [name, activation] of [
    ['quick_gelu', 'quickGelu'],
    ['gelu', 'gelu'],
    ['gelu_new', 'geluTanh'],
    ['gelu_pytorch_tanh', 'geluTanh'],
    ['relu', 'relu'],
    ['silu', 'silu'],
    ['swish', 'silu'],
  ] as const) {
    it(`knows hidden_act ${name}`, () =>
      expect(parseClipConfig(text({ hidden_act: name })).text.activation).to.equal(activation));
  }

  it('has no default for an activation that it does not know', () => {
    const known =
      'quick_gelu, gelu, gelu_python, gelu_new, gelu_pytorch_tanh, gelu_python_tanh, gelu_fast, gelu_accurate, relu, silu, swish, tanh, ' +
      'sigmoid, linear';
    refuses(text({ hidden_act: 'gelu_7' }), `text_config.hidden_act must be one of ${known}: it is "gelu_7"`);
    refuses(text({ hidden_act: 'toString' }), `text_config.hidden_act must be one of ${known}: it is "toString"`);
    refuses(vision({ hidden_act: 3 }), `vision_config.hidden_act must be one of ${known}: it is 3`);
  });

  it('reads dtype and torch_dtype', () => {
    const dtypeOf = (fields: Json) => parseClipModelConfig(clip(fields)).dtype;
    expect(dtypeOf({ torch_dtype: 'float16' })).to.equal('float16');
    expect(dtypeOf({ dtype: 'bfloat16' })).to.equal('bfloat16');
    expect(dtypeOf({ dtype: 'bfloat16', torch_dtype: 'float16' })).to.equal('bfloat16');
    expect(dtypeOf({ torch_dtype: 'torch.float32' })).to.equal('float32');
    expect(dtypeOf({ dtype: null, torch_dtype: 'auto' })).to.equal(undefined);
    refuses(clip({ dtype: 'int8' }), 'dtype must be float32, float16 or bfloat16: it is "int8"');
    refuses(clip({ torch_dtype: 16 }), 'torch_dtype must be float32, float16 or bfloat16: it is 16');
  });

  it('reads sizes given as numbers or as equal pairs', () => {
    const sizes = (image_size: unknown, patch_size: unknown) => {
      const { imageSize, patchSize } = parseClipModelConfig(vision({ image_size, patch_size })).vision;
      return [imageSize, patchSize];
    };
    expect(sizes(384, 14)).to.deep.equal([384, 14]);
    expect(sizes([336, 336], [14])).to.deep.equal([336, 14]);
    refuses(
      vision({ image_size: [224, 336] }),
      'vision_config.image_size must be one integer, or height and width that are equal: it is [224, 336]',
    );
    refuses(
      vision({ image_size: [] }),
      'vision_config.image_size must be one integer, or height and width that are equal: it is []',
    );
    refuses(vision({ image_size: ['a'] }), 'vision_config.image_size must be an integer from 1 to 16384: it is "a"');
    refuses(vision({ image_size: 16, patch_size: 32 }), 'vision_config.patch_size must be at most image_size, 16: it is 32');
    refuses(vision({ num_channels: 4 }), 'vision_config.num_channels must be 3 (red, green, blue): it is 4');
  });

  it('refuses values of a wrong type or size, with a sentence', () => {
    refuses(
      vision({ num_hidden_layers: 'twelve' }),
      'vision_config.num_hidden_layers must be an integer from 1 to 1000: it is "twelve"',
    );
    for (const bad of [0, -1, 1.5, 1e9, '12', true, [12], {}]) {
      const shown = JSON.stringify(bad);
      refuses(
        text({ num_hidden_layers: bad }),
        `text_config.num_hidden_layers must be an integer from 1 to 1000: it is ${shown}`,
      );
      refuses(text({ hidden_size: bad }), `text_config.hidden_size must be an integer from 1 to 1000000: it is ${shown}`);
    }
    refuses(
      text({ hidden_size: 512, num_attention_heads: 7 }),
      'text_config.hidden_size must be a multiple of num_attention_heads: it is 512, with 7 heads',
    );
    refuses(text({ num_attention_heads: 0 }), 'text_config.num_attention_heads must be an integer from 1 to 65536: it is 0');
    refuses(text({ layer_norm_eps: '1e-5' }), 'text_config.layer_norm_eps must be a number from 0 to 1: it is "1e-5"');
    refuses(text({ layer_norm_eps: -1 }), 'text_config.layer_norm_eps must be a number from 0 to 1: it is -1');
    refuses(
      JSON.parse('{"model_type":"clip","text_config":{"layer_norm_eps":1e999}}'),
      'text_config.layer_norm_eps must be a number from 0 to 1: it is null',
    );
    refuses(text({ vocab_size: 1e12 }), 'text_config.vocab_size must be an integer from 1 to 100000000: it is 1000000000000');
    refuses(text({ eos_token_id: [1, 2] }), 'text_config.eos_token_id must be an integer from 0 to 100000000: it is [1, 2]');
    refuses(clip({ projection_dim: 'wide' }), 'projection_dim must be an integer from 1 to 1000000: it is "wide"');
    refuses(clip({ text_config: 'text' }), 'text_config must be an object: it is "text"');
    refuses(clip({ vision_config: [] }), 'vision_config must be an object: it is []');
    refuses(clip({ vision_config_dict: 7 }), 'vision_config_dict must be an object: it is 7');
    refuses(
      clip({ quantization_config: { bits: 4 } }),
      'quantization_config is set: only float32, float16 and bfloat16 checkpoints are read',
    );
    expectError(() => parseClipModelConfig([]), 'ERR_CONFIG', 'config.json must hold an object: it holds []');
    expectError(() => parseClipModelConfig(null), 'ERR_CONFIG', 'config.json must hold an object: it holds null');
  });

  it('says which model it is where it is another', () => {
    refuses(clip({ model_type: 'llava' }), 'model_type must be clip, metaclip_2 or siglip: it is "llava"');
    refuses({}, 'model_type must be clip, metaclip_2 or siglip: it is missing');
    refuses(clip({ model_type: 5 }), 'model_type must be a string: it is 5');
    refuses(
      { model_type: 'clip_vision_model' },
      'it describes one tower alone (model_type clip_vision_model): CLIP needs a vision and a text tower',
    );
    refuses(
      clip({ architectures: ['CLIPVisionModelWithProjection'] }),
      'it describes one tower alone (CLIPVisionModelWithProjection): CLIP needs a vision and a text tower',
    );
    refuses(
      { model_type: 'siglip2' },
      'model_type siglip2 is the NaFlex form with variable patch grids, which is not supported; SigLIP 2 of one resolution has model_type siglip',
    );
    refuses(
      { model_type: 'metaclip_2', text_config: { eos_token_id: 2 } },
      'model_type metaclip_2 with eos_token_id 2 is not supported',
    );
    expect(parseClipConfig({ model_type: 'metaclip_2' })).to.deep.equal(clipDefaults);
    expectError(() => parseClipConfig(siglip()), 'ERR_CONFIG', 'config.json describes a SigLIP model, a CLIP was asked for');
    expectError(() => parseSiglipConfig(clip()), 'ERR_CONFIG', 'config.json describes a CLIP model, a SigLIP was asked for');
  });

  it('checks what is SigLIP’s own', () => {
    const so400m = parseSiglipConfig(
      siglip({
        text_config: {
          hidden_size: 1152,
          intermediate_size: 4304,
          num_attention_heads: 16,
          num_hidden_layers: 27,
          projection_size: 1152,
        },
        vision_config: {
          hidden_size: 1152,
          intermediate_size: 4304,
          num_attention_heads: 16,
          num_hidden_layers: 27,
          image_size: 384,
          patch_size: 14,
        },
      }),
    );
    expect([so400m.projectionDim, so400m.vision.patchSize, so400m.text.contextLength]).to.deep.equal([1152, 14, 64]);
    refuses(
      siglip({ text_config: { projection_size: 512 } }),
      'text embeddings are 512 wide (text_config.projection_size), image embeddings 768 (vision_config.hidden_size); they must be equal',
    );
    refuses(
      siglip({ vision_config: { vision_use_head: false } }),
      'vision_config.vision_use_head is false: without its pooling head a SigLIP has no image embedding',
    );
    refuses(
      siglip({ text_config: { pad_token_id: 32000 } }),
      'text_config.pad_token_id must be below vocab_size, 32000: it is 32000',
    );
  });
});
