import { expect } from 'chai';
import { BlipImageTextMatching, Tensor } from '../../lib';
import { type Json, ModelFolders } from '../field/model-folder';
import { expectError } from '../support/errors';
import { describeBlipGolden } from './blip-golden';
import { blipWeights, picture, pixelsOf, tinyBlip } from './pair-shapes';

describeBlipGolden({ device: 'cpu', dtype: 'float32' });

describe('BLIP', () => {
  const folders = new ModelFolders();
  const config = tinyBlip();
  const load = (top: Json = {}, tensors = blipWeights({ ...config, ...top })) =>
    BlipImageTextMatching.fromPretrained(folders.model({ ...config, ...top }, { tensors }), { device: 'cpu' });
  const image = pixelsOf(picture(24, 24));
  const text = { inputIds: [[5, 7, 9]] };

  it('refuses pictures, features and texts that the model does not take', async () => {
    using blip = await load();
    await expectError(() => blip.match(pixelsOf(picture(16, 24)), text), 'ERR_SHAPE', /\[n, 3, 24, 24\]/);
    const features = Tensor.from(new Float32Array(9 * 16), [1, 9, 16]);
    await expectError(() => blip.match(features, text), 'ERR_SHAPE', /features must be \[n, 10, 16\] float32/);
    await expectError(() => blip.match(image, { inputIds: [[0]] }), 'ERR_ARGUMENT', /no tokens but pads/);
    await expectError(() => blip.match(image, 'a cat'), 'ERR_TOKENIZER', /no tokenizer files/);
    await blip.warmup({ batch: 2 });
    expect(await blip.match([], text)).to.deep.equal([]);
    expect(await blip.match(image, { inputIds: [] })).to.deep.equal([[]]);
    expect(await blip.match(image, { inputIds: [[5, 7, 9, 0]] })).to.deep.equal(await blip.match(image, text));
    blip.dispose();
    await expectError(() => blip.match(image, text), 'ERR_DISPOSED');
  });

  it('refuses other models and tasks, and tensors that are not what the config says', async () => {
    await expectError(() => load({ architectures: ['BlipForQuestionAnswering'] }), 'ERR_CONFIG', /BlipForImageTextRetrieval is/);
    await expectError(() => load({ model_type: 'vilt' }), 'ERR_CONFIG', /model_type must be one of blip/);
    const without = new Map(blipWeights(config));
    without.delete('itm_head.weight');
    await expectError(() => load({}, without), 'ERR_CHECKPOINT', /no matching head/);
    await expectError(() => load({ image_text_hidden_size: 7 }, blipWeights(config)), 'ERR_CHECKPOINT', /vision_proj/);
  });
});
