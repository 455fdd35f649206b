// ../shared/reference/field-cases.md, section C: checkpoints and numerics, as far as CLIP and SigLIP go.
import { expect } from 'chai';
import { CLIP, ops, Tensor } from '../../lib';
import { expectError } from '../support/errors';
import { expectClose, maxRel, normal } from '../support/numbers';
import { ClipReference } from './clip-reference';
import {
  type Json,
  ModelFolders,
  randomTensors,
  type StoredDType,
  safetensorsFile,
  type Tensors,
  tinyClip,
  tinySiglip,
} from './model-folder';

const kTolerance = 1e-5; // relative to the largest value; a wrong activation is at 1e-3 and above
const kPixels = normal(2 * 3 * 16 * 16, 5);
const kImages = { pixels: kPixels, shape: [2, 3, 16, 16] };
const kIds = [97, 5, 60, 33, 98];

const folders = new ModelFolders();

interface Features {
  readonly image: Float32Array;
  readonly text: Float32Array;
}

async function features(folder: string, ids: readonly number[] = kIds): Promise<Features> {
  using clip = await CLIP.fromPretrained(folder, { device: 'cpu' });
  using images = await clip.encodeImage(kImages);
  using texts = await clip.encodeText({ inputIds: [ids] });
  return { image: await images.read(), text: await texts.read() };
}

function expected(config: Json, tensors: Tensors): { image: number[]; text: Float64Array } {
  const reference = new ClipReference(config, tensors);
  return { image: reference.images(kPixels).flatMap((row) => [...row]), text: reference.text(kIds) };
}

async function expectReference(folder: string, config: Json, tensors: Tensors): Promise<void> {
  const actual = await features(folder);
  const { image, text } = expected(config, tensors);
  expectClose(actual.image, image, kTolerance, 'image');
  expectClose(actual.text, text, kTolerance, 'text');
}

describe('F05: hidden_act and layer_norm_eps are those of each tower', () => {
  it('at x = 1 quick_gelu is 0.84579, gelu 0.84134, its tanh form 0.84119', async () => {
    for (const [name, value] of [
      ['quickGelu', 0.84579],
      ['gelu', 0.84134],
      ['geluTanh', 0.84119],
    ] as const) {
      using y = ops.activate(Tensor.from([1], [1]), name);
      expect((await y.read())[0], name).to.be.closeTo(value, 1e-5);
    }
  });

  const acts = ['quick_gelu', 'gelu', 'gelu_new', 'gelu_pytorch_tanh', 'relu', 'silu'];
  for (const [i, of] of acts.entries()) {
    const other = acts[(i + 1) % acts.length]!;
    it(`${of} in the text tower and ${other} in the vision tower of one file, and the eps of each`, async () => {
      const config = tinyClip({
        text: { hidden_act: of, layer_norm_eps: 1e-3 },
        vision: { hidden_act: other, layer_norm_eps: 1e-2 },
      });
      const tensors = randomTensors(config);
      await expectReference(folders.model(config, { tensors }), config, tensors);

      const swapped = tinyClip({
        text: { hidden_act: other, layer_norm_eps: 1e-2 },
        vision: { hidden_act: of, layer_norm_eps: 1e-3 },
      });
      const wrong = expected(swapped, tensors); // the test would see it
      const right = expected(config, tensors);
      expect(maxRel(wrong.image, right.image)).to.be.greaterThan(100 * kTolerance);
      expect(maxRel(wrong.text, right.text)).to.be.greaterThan(100 * kTolerance);
    });
  }

  it('SigLIP too', async () => {
    const config = tinySiglip({
      text: { hidden_act: 'gelu', layer_norm_eps: 1e-3 },
      vision: { hidden_act: 'quick_gelu', layer_norm_eps: 1e-2 },
    });
    const tensors = randomTensors(config);
    await expectReference(folders.model(config, { tensors }), config, tensors);
  });

  it('an activation that is not known is an error that names it', async () => {
    const folder = folders.model(tinyClip(), { files: { 'config.json': tinyClip({ text: { hidden_act: 'gelu_11' } }) } });
    await expectError(() => CLIP.fromPretrained(folder), 'ERR_CONFIG', /text_config\.hidden_act must be one of .*"gelu_11"/);
  });
});

describe('F08: a config of transformers 5 says `dtype` where older ones say `torch_dtype`', () => {
  it('both are read, checked, and change no number: the tensors themselves decide', async () => {
    const plain = await features(folders.model(tinyClip()));
    for (const top of [{ dtype: 'float16' }, { torch_dtype: 'bfloat16' }, { dtype: 'float32', torch_dtype: 'float16' }]) {
      const config = tinyClip({ top });
      using clip = await CLIP.fromPretrained(folders.model(config), { device: 'cpu' });
      expect(clip.dtype).to.equal('float32');
      expect(await features(folders.model(config))).to.deep.equal(plain);
    }
    const folder = folders.model(tinyClip(), { files: { 'config.json': tinyClip({ top: { dtype: 'int3' } }) } });
    await expectError(
      () => CLIP.fromPretrained(folder),
      'ERR_CONFIG',
      /dtype must be float32, float16 or bfloat16: it is "int3"/,
    );
  });
});

describe('F17: a tensor that the file does not have is an error that names it; none stays random', () => {
  for (const config of [tinyClip(), tinySiglip()]) {
    it(`each one of a ${String(config.model_type)}`, async () => {
      const tensors = randomTensors(config);
      for (const name of tensors.keys()) {
        const some = new Map([...tensors].filter(([other]) => other !== name));
        const message = `the checkpoint has no tensor "${name}"`;
        await expectError(() => CLIP.fromPretrained(folders.model(config, { tensors: some })), 'ERR_CHECKPOINT', message);
      }
      folders.removeAll();
    }).timeout(60_000);
  }

  it('a tensor of another shape, or of a layer that the config does not have, likewise', async () => {
    const config = tinyClip();
    const wide = new Map([
      ...randomTensors(config),
      ['text_projection.weight', { shape: [16, 12], values: new Float32Array(192) }],
    ]);
    await expectError(
      () => CLIP.fromPretrained(folders.model(config, { tensors: wide })),
      'ERR_CHECKPOINT',
      'checkpoint "model.safetensors": "text_projection.weight" is [16, 12], the config says [12, 16]',
    );
    const deeper = randomTensors(tinyClip({ vision: { num_hidden_layers: 3 } }));
    await expectError(
      () => CLIP.fromPretrained(folders.model(config, { tensors: deeper })),
      'ERR_CHECKPOINT',
      /"vision_model\.encoder\.layers\.2\..*the config says that vision_model has 2 layers/,
    );
  });
});

describe('F34: an honest file may be unaligned; a lying one is refused', () => {
  for (const dtype of ['F32', 'F16', 'BF16'] as const satisfies readonly StoredDType[]) {
    it(`a header of any length gives the same bits, ${dtype}`, async () => {
      const config = tinyClip();
      const tensors = randomTensors(config, { dtype });
      const plain = await features(folders.model(config, { tensors, dtype }));
      const { image, text } = expected(config, tensors);
      expectClose(plain.image, image, kTolerance, 'image');
      expectClose(plain.text, text, kTolerance, 'text');
      for (let headerPadding = 1; headerPadding < 8; headerPadding++) {
        const file = safetensorsFile(tensors, { dtype, headerPadding });
        const padded = await features(folders.model(config, { files: { 'model.safetensors': file } }));
        expect(maxRel(padded.image, plain.image), `${headerPadding} more bytes`).to.equal(0);
        expect(maxRel(padded.text, plain.text), `${headerPadding} more bytes`).to.equal(0);
      }
    });
  }

  it('two tensors of one range, a range that leaves the file, holes, and a dtype that nobody knows', async () => {
    const config = tinyClip();
    const file = safetensorsFile(randomTensors(config));
    const length = Number(file.readBigUInt64LE(0));
    const data = file.subarray(8 + length);
    type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] };
    const header = (): Record<string, Entry> => JSON.parse(file.toString('utf8', 8, 8 + length));
    const write = (entries: object): Buffer => {
      const text = Buffer.from(JSON.stringify(entries));
      const size = Buffer.alloc(8);
      size.writeBigUInt64LE(BigInt(text.length));
      return Buffer.concat([size, text, data]);
    };
    const layer = 'text_model.encoder.layers.0.self_attn';
    const lies: Readonly<Record<string, (entries: Record<string, Entry>) => void>> = {
      'v is k': (entries) => {
        entries[`${layer}.v_proj.weight`]!.data_offsets = entries[`${layer}.k_proj.weight`]!.data_offsets;
      },
      'v begins inside k': (entries) => {
        const [begin, end] = entries[`${layer}.v_proj.weight`]!.data_offsets;
        entries[`${layer}.v_proj.weight`]!.data_offsets = [begin - 4, end - 4];
      },
      'a negative offset': (entries) => {
        entries[`${layer}.v_proj.weight`]!.data_offsets = [-4, 1020];
      },
      'beyond the file': (entries) => {
        entries[`${layer}.v_proj.weight`]!.data_offsets = [data.length, data.length + 1024];
      },
      'offsets of 2^53': (entries) => {
        entries[`${layer}.v_proj.weight`]!.data_offsets = [2 ** 53, 2 ** 53 + 1024];
      },
      'a hole': (entries) => {
        delete entries[`${layer}.v_proj.weight`];
      },
      'dtype F99': (entries) => {
        entries[`${layer}.v_proj.weight`]!.dtype = 'F99';
      },
      'a dtype of another size': (entries) => {
        entries[`${layer}.v_proj.weight`]!.dtype = 'F16';
      },
      'a dtype that holds no weights': (entries) => {
        entries[`${layer}.v_proj.weight`]!.dtype = 'I32';
      },
      'a shape of another size': (entries) => {
        entries[`${layer}.v_proj.weight`]!.shape = [16, 17];
      },
      'a shape of the same size': (entries) => {
        entries[`${layer}.v_proj.weight`]!.shape = [8, 32];
      },
      'a negative size': (entries) => {
        entries[`${layer}.v_proj.weight`]!.shape = [-16, -16];
      },
    };
    for (const [what, lie] of Object.entries(lies)) {
      const entries = header();
      lie(entries);
      const folder = folders.model(config, { files: { 'model.safetensors': write(entries) } });
      await expectError(() => CLIP.fromPretrained(folder), 'ERR_CHECKPOINT', /^checkpoint "model\.safetensors": /).catch(
        (error) => {
          throw new Error(`${what}: ${error.message}`);
        },
      );
    }
    await features(folders.model(config, { files: { 'model.safetensors': write(header()) } }));
  });
});

describe('F36: *_config_dict wins over *_config, position_ids are no weights, and what is absent is the default of its class', () => {
  it('a contradicting pair, in both towers', async () => {
    const wanted = tinyClip();
    const tensors = randomTensors(wanted);
    const config = {
      ...tinyClip({ text: { hidden_size: 512, num_hidden_layers: 12 }, vision: { patch_size: 4, hidden_act: 'gelu' } }),
      text_config_dict: wanted.text_config,
      vision_config_dict: wanted.vision_config,
    };
    await expectReference(folders.model(wanted, { tensors, files: { 'config.json': config } }), wanted, tensors);
    for (const nothing of [null, undefined]) {
      const empty = { ...wanted, text_config_dict: nothing, vision_config_dict: nothing };
      await expectReference(folders.model(wanted, { tensors, files: { 'config.json': empty } }), wanted, tensors);
    }
  });

  it('position_ids in either tower, of any dtype and shape, or absent', async () => {
    const config = tinyClip();
    const tensors = randomTensors(config);
    const plain = await features(folders.model(config, { tensors }));
    const stale = new Map([
      ['text_model.embeddings.position_ids', { shape: [1, 16], values: new Float32Array(16).fill(7) }],
      ...tensors,
      ['vision_model.embeddings.position_ids', { shape: [5], values: new Float32Array(5).fill(9) }],
    ]);
    expect(await features(folders.model(config, { tensors: stale }))).to.deep.equal(plain);
  });

  it('without the fields that equal a default', async () => {
    const config = tinyClip({ text: { vocab_size: 49_408, eos_token_id: 49_407 }, vision: { patch_size: 8 } });
    const full = {
      ...config,
      initializer_factor: 1,
      text_config: {
        ...(config.text_config as Json),
        hidden_act: 'quick_gelu',
        layer_norm_eps: 1e-5,
        attention_dropout: 0,
        model_type: 'clip_text_model',
      },
      vision_config: { ...(config.vision_config as Json), hidden_act: 'quick_gelu', layer_norm_eps: 1e-5, num_channels: 3 },
    };
    const without = structuredClone(config);
    for (const name of ['vocab_size', 'eos_token_id']) delete (without.text_config as Json)[name];
    const tensors = randomTensors(config);
    const ids = [49_406, 320, 49_407];
    const plain = await features(folders.model(full, { tensors }), ids);
    expect(await features(folders.model(full, { tensors, files: { 'config.json': without } }), ids)).to.deep.equal(plain);
    expectClose(plain.text, new ClipReference(full, tensors).text(ids), kTolerance);
  });

  it('names of wrappers, and shards in any number', async () => {
    const config = tinyClip();
    const tensors = randomTensors(config);
    const plain = await features(folders.model(config, { tensors }));
    const wrapped = new Map([...tensors].map(([name, tensor]) => [`clip.${name}`, tensor]));
    expect(await features(folders.model(config, { tensors: wrapped }))).to.deep.equal(plain);
    const names = [...tensors.keys()];
    const files: Record<string, Uint8Array> = {};
    const weight_map: Record<string, string> = {};
    for (let shard = 0; shard < 3; shard++) {
      const file = `model-0000${shard + 1}-of-00003.safetensors`;
      const own = names.filter((_, i) => i % 3 === shard);
      for (const name of own) weight_map[name] = file;
      files[file] = safetensorsFile(new Map(own.map((name) => [name, tensors.get(name)!])));
    }
    const folder = folders.make({ 'config.json': config, 'model.safetensors.index.json': { weight_map }, ...files });
    expect(await features(folder)).to.deep.equal(plain);
  });
});
