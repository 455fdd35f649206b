import { expect } from 'chai';
import type { CheckpointTensor } from '../../lib/checkpoint/folder';
import { parseClipModelConfig } from '../../lib/models/clip-config';
import { checkClipTensors, clipTensors } from '../../lib/models/clip-tensors';
import type { Shape } from '../../lib/shape';
import { expectError } from '../checkpoint/files';

const tower = { hidden_size: 8, intermediate_size: 12, num_hidden_layers: 2, num_attention_heads: 2 };
const fields = {
  projection_dim: 5,
  text_config: { ...tower, vocab_size: 9, max_position_embeddings: 7 },
  vision_config: { ...tower, image_size: 10, patch_size: 4 },
};
const clip = parseClipModelConfig({ ...fields, model_type: 'clip' });
const siglip = parseClipModelConfig({ ...fields, model_type: 'siglip' });

/** A checkpoint as clipTensors() says, but for some tensors; a shape of undefined takes one away. */
function checkpoint(config: typeof clip, changes: Record<string, { shape?: Shape; dtype?: string } | undefined> = {}) {
  const tensors = new Map<string, CheckpointTensor>();
  const add = (name: string, shape: Shape, dtype = 'F32') =>
    tensors.set(name, { index: tensors.size, fileName: 'model.safetensors', stored: { name, dtype, shape, file: 0 } });
  for (const [name, shape] of clipTensors(config)) {
    if (name in changes && changes[name] === undefined) continue;
    add(name, changes[name]?.shape ?? shape, changes[name]?.dtype);
  }
  for (const [name, change] of Object.entries(changes))
    if (change && !tensors.has(name)) add(name, change.shape ?? [1], change.dtype);
  return tensors;
}

function refuses(config: typeof clip, changes: Parameters<typeof checkpoint>[1], message: string): void {
  expectError(() => checkClipTensors(checkpoint(config, changes), config), 'ERR_CHECKPOINT', message);
}

describe('clipTensors()', () => {
  it('counts patches that fit: 10 pixels in patches of 4 are 2 x 2', () => {
    expect(clipTensors(clip).get('vision_model.embeddings.position_embedding.weight')).to.deep.equal([5, 8]);
    expect(clipTensors(siglip).get('vision_model.embeddings.position_embedding.weight')).to.deep.equal([4, 8]);
  });

  it('has 16 tensors for each layer', () => {
    const layer = [...clipTensors(clip).keys()].filter((name) => name.startsWith('text_model.encoder.layers.1.'));
    expect(layer).to.have.length(16);
    expect([...clipTensors(clip).keys()].filter((name) => name.includes('.layers.2.'))).to.deep.equal([]);
  });
});

describe('checkClipTensors()', () => {
  it('accepts what fits; scalars as [] or [1], 16-bit floats, tensors of other parts', () => {
    for (const config of [clip, siglip]) {
      checkClipTensors(checkpoint(config), config);
      checkClipTensors(
        checkpoint(config, {
          logit_scale: { shape: [1] },
          'classifier.weight': { shape: [3, 3] },
          'text_model.final_layer_norm.bias': { dtype: 'BF16' },
        }),
        config,
      );
    }
  });

  it('names a tensor of another shape', () => {
    refuses(
      clip,
      { 'visual_projection.weight': { shape: [6, 8] } },
      'checkpoint "model.safetensors": "visual_projection.weight" is [6, 8], the config says [5, 8]',
    );
    refuses(
      clip,
      { 'text_model.embeddings.position_embedding.weight': { shape: [8, 7] } },
      'checkpoint "model.safetensors": "text_model.embeddings.position_embedding.weight" is [8, 7], the config says [7, 8]',
    );
    refuses(siglip, { logit_bias: { shape: [2] } }, 'checkpoint "model.safetensors": "logit_bias" is [2], the config says []');
    refuses(
      clip,
      { logit_scale: { shape: [1, 1] } },
      'checkpoint "model.safetensors": "logit_scale" is [1, 1], the config says []',
    );
  });

  for (const config of [clip, siglip]) {
    it(`names any tensor of a ${config.kind} that is missing`, () => {
      for (const name of clipTensors(config).keys())
        refuses(config, { [name]: undefined }, `the checkpoint has no tensor "${name}"`);
    });
  }

  it('names a tensor that holds no floats', () => {
    refuses(
      clip,
      { 'text_projection.weight': { dtype: 'I64' } },
      'checkpoint "model.safetensors": "text_projection.weight" is I64; weights must be F32, F16 or BF16',
    );
    refuses(
      clip,
      { logit_scale: { dtype: 'F64' } },
      'checkpoint "model.safetensors": "logit_scale" is F64; weights must be F32, F16 or BF16',
    );
  });

  it('names a tower that is missing', () => {
    const vision = new Map([...checkpoint(clip)].filter(([name]) => !name.startsWith('text_model.')));
    expectError(
      () => checkClipTensors(vision, clip),
      'ERR_CHECKPOINT',
      'the checkpoint has no text_model: a clip model needs both towers',
    );
  });

  it('names a layer that the config does not have', () => {
    refuses(
      clip,
      { 'vision_model.encoder.layers.2.mlp.fc1.bias': { shape: [12] } },
      'checkpoint "model.safetensors": it has "vision_model.encoder.layers.2.mlp.fc1.bias", but the config says that vision_model has 2 layers',
    );
  });
});
