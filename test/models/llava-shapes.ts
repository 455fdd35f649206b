// Random LLaVAs and Llamas of a few thousand numbers.
import { expect } from 'chai';
import { type DeviceName, LLaVA } from '../../lib';
import { encoder } from '../../lib/models/clip-tensors';
import { llamaTensors } from '../../lib/models/llama-tensors';
import { parseLlavaConfig } from '../../lib/models/llava-config';
import { llavaTensors } from '../../lib/models/llava-tensors';
import { type Json, ModelFolders, randomOf, type Tensors } from '../field/model-folder';
import { expectClose, normal } from '../support/numbers';
import { LlavaReference } from './llava-reference';

export const kMark = 90;

export function tinyLlama(fields: Json = {}): Json {
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

export function tinyLlava({
  text,
  vision,
  top,
}: {
  readonly text?: Json;
  readonly vision?: Json;
  readonly top?: Json;
} = {}): Json {
  const tower = { hidden_size: 16, intermediate_size: 24, num_hidden_layers: 3, num_attention_heads: 2 };
  return {
    model_type: 'llava',
    image_token_index: kMark,
    text_config: tinyLlama(text),
    vision_config: { ...tower, image_size: 16, patch_size: 8, ...vision },
    ...top,
  };
}

export function llavaWeights(config: Json): Tensors {
  const parsed = parseLlavaConfig(config);
  // as files have it: all layers of the tower, also those that are never read
  return randomOf(new Map([...llavaTensors(parsed), ...encoder('vision_model', parsed.vision), ...llamaTensors(parsed.text)]));
}

/** Canonical names are none that a file has: this is the old naming. */
export function stored(tensors: Tensors): Tensors {
  const rename = (name: string): string => {
    if (name.startsWith('vision_model.')) return `vision_tower.${name}`;
    if (name === 'lm_head.weight') return 'language_model.lm_head.weight';
    return name.replace(/^language_model\./, 'language_model.model.');
  };
  return new Map([...tensors].map(([name, tensor]) => [rename(name), tensor]));
}

export function picturesOf(count: number, size = 16): { pixels: Float32Array; shape: [number, number, number, number] } {
  return { pixels: normal(count * 3 * size * size, 77), shape: [count, 3, size, size] };
}

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
  ['a picture whose size is no multiple of the patch', tinyLlava({ vision: { image_size: 19, patch_size: 6 } }), [1, 'image', 2]],
  ['a tied head, wider heads than D / heads', tinyLlava({ text: { tie_word_embeddings: true, head_dim: 6 } }), [1, 'image', 2]],
  ['biases in attention and MLP', tinyLlava({ text: { attention_bias: true, mlp_bias: true } }), [1, 'image', 2]],
  ['a quick_gelu tower', tinyLlava({ vision: { hidden_act: 'quick_gelu' } }), [1, 'image', 2]],
];

/** LLaVAs of shapes that no fixture has, in float32 on one device, against float64. */
export function describeLlavaShapes(device: DeviceName): void {
  describe(`LLaVA of other shapes on ${device}`, () => {
    const folders = new ModelFolders();

    for (const [what, config, prompt] of cases) {
      it(`gives the features and the logits of float64 with ${what}`, async () => {
        const tensors = llavaWeights(config);
        const reference = new LlavaReference(config, tensors);
        const { tokensPerImage, vision } = reference.config;
        const pictures = picturesOf(prompt.filter((token) => token === 'image').length, vision.imageSize);
        const inputIds = prompt.flatMap((token) => (token === 'image' ? Array<number>(tokensPerImage).fill(kMark) : [token]));
        const llava = await LLaVA.fromPretrained(folders.model(config, { tensors: stored(tensors) }), {
          device,
          dtype: 'float32',
        });

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
  });
}
