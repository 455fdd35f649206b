// Random ViLTs and BLIPs of a few thousand numbers.
import { expect } from 'chai';
import { BlipImageTextMatching, type DeviceName, type PixelTensor, ViLT } from '../../lib';
import { parseBlipConfig } from '../../lib/models/blip-config';
import { blipTensors } from '../../lib/models/blip-tensors';
import { parseViltConfig } from '../../lib/models/vilt-config';
import { viltTensors } from '../../lib/models/vilt-tensors';
import { type Json, ModelFolders, randomOf, type Tensors } from '../field/model-folder';
import { expectClose, normal } from '../support/numbers';
import { BlipReference, type Picture, ViltReference } from './pair-references';

const kTower = { hidden_size: 24, intermediate_size: 40, num_hidden_layers: 2, num_attention_heads: 3 };

export function tinyVilt(fields: Json = {}): Json {
  return { model_type: 'vilt', ...kTower, vocab_size: 90, max_position_embeddings: 24, image_size: 24, patch_size: 8, ...fields };
}

export function viltWeights(config: Json, answers?: number): Tensors {
  const head = answers === undefined ? 'retrieval' : 'answers';
  return randomOf(viltTensors(parseViltConfig(config), head, answers ?? 1));
}

export function tinyBlip({
  text,
  vision,
  top,
}: {
  readonly text?: Json;
  readonly vision?: Json;
  readonly top?: Json;
} = {}): Json {
  return {
    model_type: 'blip',
    image_text_hidden_size: 12,
    text_config: { ...kTower, vocab_size: 90, max_position_embeddings: 24, ...text },
    vision_config: { ...kTower, hidden_size: 16, num_attention_heads: 2, image_size: 24, patch_size: 8, ...vision },
    ...top,
  };
}

export function blipWeights(config: Json): Tensors {
  return randomOf(blipTensors(parseBlipConfig(config)));
}

export function picture(height: number, width: number, seed = 7): Picture {
  return { pixels: normal(3 * height * width, seed), size: [height, width] };
}

export function pixelsOf({ pixels, size }: Picture): PixelTensor {
  return { pixels, shape: [1, 3, ...size] };
}

const kIds = [[5, 17, 3, 88, 41, 2], [64], [11, 7]];

/** Checkpoints that differ from the published ones in a shape. */
export function describePairShapes(device: DeviceName): void {
  describe(`ViLT of other shapes on ${device}`, () => {
    const folders = new ModelFolders();
    const agrees = async (fields: Json, pictures: readonly Picture[], answers?: number) => {
      const config = tinyVilt(fields);
      const tensors = viltWeights(config, answers);
      const vilt = await ViLT.fromPretrained(folders.model(config, { tensors }), { device, dtype: 'float32' });
      const reference = new ViltReference(config, tensors);
      const ids = pictures.map((_, i) => kIds[i % kIds.length]!);
      const { logits, pooled, dispose } = await vilt.forward(pictures.map(pixelsOf), { inputIds: ids });
      const expected = pictures.map((one, i) => reference.pair(one, ids[i]!));
      expectClose(
        await pooled.read(),
        expected.flatMap((pair) => [...pair.pooled]),
        1e-4,
        'pooled',
      );
      expectClose(
        await logits.read(),
        expected.flatMap((pair) => [...pair.logits]),
        1e-4,
        'logits',
      );
      dispose();
      vilt.dispose();
    };

    it('pictures smaller than the position table, larger, long, of one patch, and sides that are no multiple of a patch', () =>
      agrees({}, [picture(16, 16), picture(40, 32), picture(8, 72), picture(8, 8), picture(30, 21), picture(24, 24)]));
    it('texts of one token', () => agrees({}, [picture(24, 24), picture(24, 24), picture(24, 24)]));
    it('a position table of one patch', () => agrees({ image_size: 8 }, [picture(24, 16), picture(8, 8)]));
    it('three modalities in the table, one token type, no bias of queries, keys and values', () =>
      agrees({ modality_type_vocab_size: 3, type_vocab_size: 1, qkv_bias: false }, [picture(24, 32)]));
    it('another activation and epsilon, one head, one layer', () =>
      agrees({ hidden_act: 'relu', layer_norm_eps: 1e-3, num_attention_heads: 1, num_hidden_layers: 1 }, [picture(16, 32)]));
    it('answers', () => agrees({ id2label: { 0: 'yes', 1: 'no' } }, [picture(24, 24), picture(16, 24)], 2));
  });

  describe(`BLIP of other shapes on ${device}`, () => {
    const folders = new ModelFolders();
    const agrees = async (config: Json) => {
      const tensors = blipWeights(config);
      const blip = await BlipImageTextMatching.fromPretrained(folders.model(config, { tensors }), { device, dtype: 'float32' });
      const reference = new BlipReference(config, tensors);
      const { imageSize } = blip.config.vision;
      const pictures = [1, 2].map((seed) => picture(imageSize, imageSize, seed));
      const output = await blip.forward(pictures.map(pixelsOf), { inputIds: kIds });
      const expected = pictures.flatMap((one) => kIds.flatMap((ids) => [...reference.match(one, ids)]));
      expect(output.itmLogits.shape).to.deep.equal([2, kIds.length, 2]);
      expectClose(await output.itmLogits.read(), expected, 1e-4, 'itmLogits');
      const images = pictures.flatMap((one) => [...reference.imageEmbed(one)]);
      expectClose(await output.imageEmbeds.read(), images, 1e-4, 'imageEmbeds');
      const texts = kIds.flatMap((ids) => [...reference.textEmbed(ids)]);
      expectClose(await output.textEmbeds.read(), texts, 1e-4, 'textEmbeds');
      output.dispose();
      blip.dispose();
    };

    it('a text encoder wider than the tower, a text of one token', () => agrees(tinyBlip()));
    it('one layer each, one head, a picture that is no multiple of the patch', () =>
      agrees(
        tinyBlip({
          text: { num_hidden_layers: 1, num_attention_heads: 1 },
          vision: { num_hidden_layers: 1, image_size: 27, num_attention_heads: 1 },
        }),
      ));
    it('activations and epsilons of each side', () =>
      agrees(tinyBlip({ text: { hidden_act: 'relu', layer_norm_eps: 1e-3 }, vision: { hidden_act: 'quick_gelu' } })));
  });
}
