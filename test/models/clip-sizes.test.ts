// The sizes of CLIP that are published: their config.json as it reads, and a model with the same heads, patches and activation, but few layers and
// heads, against float64.
import { expect } from 'chai';
import { CLIP } from '../../lib';
import { parseClipConfig } from '../../lib/models/clip-config';
import { clipTensors } from '../../lib/models/clip-tensors';
import { elements } from '../../lib/shape';
import { ClipReference } from '../field/clip-reference';
import { type Json, ModelFolders, randomTensors } from '../field/model-folder';
import { expectClose, normal } from '../support/numbers';

interface Published {
  readonly config: Json;
  /** Width and heads of each tower, layers, patch, pixels, projection. */
  readonly vision: readonly [width: number, heads: number, layers: number, patch: number, image: number];
  readonly text: readonly [width: number, heads: number, layers: number];
  readonly projection: number;
  readonly activation: 'quickGelu' | 'gelu';
  /** As the model's publishers count them, in millions. */
  readonly parameters: number;
}

const kLarge = { hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12 };

// source: the config.json of openai/clip-vit-base-patch32, -base-patch16, -large-patch14, -large-patch14-336, laion/CLIP-ViT-H-14-laion2B-s32B-b79K and
// laion/CLIP-ViT-bigG-14-laion2B-39B-b160k: the fields that differ from transformers' defaults
const kPublished: Readonly<Record<string, Published>> = {
  'ViT-B/32': {
    config: {
      model_type: 'clip',
      projection_dim: 512,
      text_config: { eos_token_id: 2 },
      vision_config: {},
      text_config_dict: null,
    },
    vision: [768, 12, 12, 32, 224],
    text: [512, 8, 12],
    projection: 512,
    activation: 'quickGelu',
    parameters: 151.3,
  },
  'ViT-B/16': {
    config: { model_type: 'clip', projection_dim: 512, text_config: {}, vision_config: { patch_size: 16 } },
    vision: [768, 12, 12, 16, 224],
    text: [512, 8, 12],
    projection: 512,
    activation: 'quickGelu',
    parameters: 149.6,
  },
  'ViT-L/14': {
    config: {
      model_type: 'clip',
      projection_dim: 768,
      text_config: { ...kLarge, projection_dim: 768 },
      text_config_dict: { ...kLarge, num_hidden_layers: 12, projection_dim: 768 },
      vision_config: {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_attention_heads: 16,
        num_hidden_layers: 24,
        patch_size: 14,
      },
      vision_config_dict: {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_attention_heads: 16,
        num_hidden_layers: 24,
        patch_size: 14,
        projection_dim: 768,
      },
    },
    vision: [1024, 16, 24, 14, 224],
    text: [768, 12, 12],
    projection: 768,
    activation: 'quickGelu',
    parameters: 427.6,
  },
  'ViT-L/14@336': {
    config: {
      model_type: 'clip',
      projection_dim: 768,
      text_config: { ...kLarge },
      vision_config: {
        hidden_size: 1024,
        image_size: 336,
        intermediate_size: 4096,
        num_attention_heads: 16,
        num_hidden_layers: 24,
        patch_size: 14,
      },
    },
    vision: [1024, 16, 24, 14, 336],
    text: [768, 12, 12],
    projection: 768,
    activation: 'quickGelu',
    parameters: 427.9,
  },
  'ViT-H/14': {
    config: {
      model_type: 'clip',
      projection_dim: 1024,
      text_config: {},
      text_config_dict: {
        hidden_act: 'gelu',
        hidden_size: 1024,
        intermediate_size: 4096,
        num_attention_heads: 16,
        num_hidden_layers: 24,
      },
      vision_config: {},
      vision_config_dict: {
        hidden_act: 'gelu',
        hidden_size: 1280,
        intermediate_size: 5120,
        num_attention_heads: 16,
        num_hidden_layers: 32,
        patch_size: 14,
      },
    },
    vision: [1280, 16, 32, 14, 224],
    text: [1024, 16, 24],
    projection: 1024,
    activation: 'gelu',
    parameters: 986.1,
  },
  'ViT-bigG/14': {
    config: {
      model_type: 'clip',
      projection_dim: 1280,
      text_config: {
        hidden_act: 'gelu',
        hidden_size: 1280,
        intermediate_size: 5120,
        num_attention_heads: 20,
        num_hidden_layers: 32,
      },
      vision_config: {
        hidden_act: 'gelu',
        hidden_size: 1664,
        intermediate_size: 8192,
        num_attention_heads: 16,
        num_hidden_layers: 48,
        patch_size: 14,
      },
    },
    vision: [1664, 16, 48, 14, 224],
    text: [1280, 20, 32],
    projection: 1280,
    activation: 'gelu',
    parameters: 2539.6,
  },
};

const folders = new ModelFolders();

for (const [name, { config, vision, text, projection, activation, parameters }] of Object.entries(kPublished)) {
  describe(`CLIP ${name}`, () => {
    it('is what its config.json says', () => {
      const read = parseClipConfig(config);
      const { hiddenSize, heads, layers, patchSize, imageSize } = read.vision;
      expect([hiddenSize, heads, layers, patchSize, imageSize]).to.deep.equal(vision);
      expect([read.text.hiddenSize, read.text.heads, read.text.layers]).to.deep.equal(text);
      expect(read.projectionDim).to.equal(projection);
      expect([read.vision.activation, read.text.activation]).to.deep.equal([activation, activation]);
      expect([read.text.vocabularySize, read.text.contextLength]).to.deep.equal([49_408, 77]);
      const count = [...clipTensors(read).values()].reduce((sum, shape) => sum + elements(shape), 0);
      expect(count / 1e6).to.be.closeTo(parameters, 0.1);
    });

    // Heads are as wide and patches as many as in the real one: what kernels have to be right for.
    it(`computes heads of ${vision[0] / vision[1]} and ${text[0] / text[1]} over ${(vision[4] / vision[3]) ** 2} patches and 77 tokens`, async () => {
      const tower = (headWidth: number, ratio: number) => ({
        hidden_size: 2 * headWidth,
        num_attention_heads: 2,
        intermediate_size: Math.round(ratio * 2 * headWidth),
        num_hidden_layers: 1,
        hidden_act: activation === 'gelu' ? 'gelu' : 'quick_gelu',
      });
      const shrunk = {
        model_type: 'clip',
        projection_dim: 24,
        text_config: { ...tower(text[0] / text[1], 4), vocab_size: 300, eos_token_id: 299 },
        vision_config: {
          ...tower(vision[0] / vision[1], name.includes('bigG') ? 8192 / 1664 : 4),
          patch_size: vision[3],
          image_size: vision[4],
        },
      };
      const tensors = randomTensors(shrunk);
      const reference = new ClipReference(shrunk, tensors);
      using clip = await CLIP.fromPretrained(folders.model(shrunk, { tensors }), { device: 'cpu' });
      const side = vision[4];
      const pixels = normal(3 * side * side, 3);
      using image = await clip.encodeImage({ pixels, shape: [1, 3, side, side] });
      expectClose(await image.read(), reference.images(pixels)[0]!, 1e-5, 'image');
      const ids = [298, ...Array.from({ length: 75 }, (_, i) => (i * 37) % 290), 299];
      using features = await clip.encodeText({ inputIds: [ids, [298, 299]] });
      expectClose(await features.read(), [...reference.text(ids), ...reference.text([298, 299])], 1e-5, 'text');
    }).timeout(30_000);
  });
}
