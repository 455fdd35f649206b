import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { device, type GenerationResult, LLaVA, type LlavaGenerateOptions } from '../../lib';
import { ModelFolders } from '../field/model-folder';
import { expectError } from '../support/errors';
import { fixtures, needsFixtures } from '../support/fixtures';
import { generateAndStop } from '../support/generations';
import { normal } from '../support/numbers';
import { describeLlavaGolden, kLlavaFixtures } from './llava-golden';

for (const [folder, checkpoint] of kLlavaFixtures) describeLlavaGolden(folder, checkpoint, { device: 'cpu', dtype: 'float32' });

const kFolder = join(fixtures, 'llava-tiny', 'checkpoint');
const kFiles = ['config.json', 'generation_config.json', 'preprocessor_config.json', 'processor_config.json'] as const;
const kRowsPerImage = 16;
const kPrompt = 'USER: <image>\nWhat is in the picture? ASSISTANT:';

function pictures(count: number): { pixels: Float32Array; shape: [number, number, number, number] } {
  return { pixels: normal(count * 3 * 32 * 32, 5), shape: [count, 3, 32, 32] };
}

describe('LLaVA', () => {
  const folders = new ModelFolders();
  let llava: LLaVA;

  before(async function () {
    needsFixtures(this);
    llava = await LLaVA.fromPretrained(kFolder, { device: 'cpu', cacheTokens: 1024 });
  });
  after(() => llava?.dispose());

  /** The fixture with other files. */
  const changed = (files: Readonly<Record<string, object | undefined>>): string => {
    const kept = [...kFiles, 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'].filter((name) => !(name in files));
    const given = Object.entries(files).filter((entry): entry is [string, object] => entry[1] !== undefined);
    return folders.make({
      ...Object.fromEntries(kept.map((name) => [name, readFileSync(join(kFolder, name))])),
      ...Object.fromEntries(given),
    });
  };
  const json = (name: string): Record<string, unknown> => JSON.parse(readFileSync(join(kFolder, name), 'utf8'));
  const answer = (options: LlavaGenerateOptions): Promise<GenerationResult> => llava.generate(options).result;

  describe('prompts', () => {
    it('may have a mark for each picture, or one for each row of features', async () => {
      const images = pictures(1);
      const short = await llava.prepareInputs(images, kPrompt);
      const long = await llava.prepareInputs(images, kPrompt.replace('<image>', '<image>'.repeat(kRowsPerImage)));
      expect(long.inputIds).to.deep.equal(short.inputIds);
      expect(await long.inputEmbeds.read()).to.deep.equal(await short.inputEmbeds.read());
      for (const { inputEmbeds } of [short, long]) inputEmbeds.dispose();
    });

    it('with more or fewer marks than pictures are refused, and others go on undisturbed', async () => {
      const alone = await answer({ prompt: kPrompt, images: pictures(1), maxNewTokens: 12 });
      const run = llava.generate({ prompt: kPrompt, images: pictures(1), maxNewTokens: 12 });
      const wrong: readonly (readonly [LlavaGenerateOptions, RegExp])[] = [
        [{ prompt: kPrompt }, /1 image marks, no pictures were given/],
        [{ prompt: kPrompt, images: [] }, /1 image marks, no pictures were given/],
        [
          { prompt: kPrompt, images: pictures(2) },
          /1 image marks, 2 pictures were given: one mark for each is needed, or all 32/,
        ],
        [{ prompt: '<image><image>', images: pictures(1) }, /2 image marks, 1 pictures were given/],
        [{ prompt: 'none', images: pictures(1) }, /0 image marks, 1 pictures were given/],
        [{ prompt: `<image>${'word '.repeat(3000)}`, images: pictures(1) }, /tokens, images included; the model's context holds/],
      ];
      for (const [options, message] of wrong) await expectError(() => answer(options), 'ERR_ARGUMENT', message);
      await expectError(() => answer({ prompt: kPrompt, images: Buffer.from('no picture') }), 'ERR_IMAGE');
      expect((await run.result).tokens).to.deep.equal(alone.tokens);
    });

    it('are texts or messages', () => {
      const wrong: readonly unknown[] = [
        {},
        { prompt: 'a', messages: [] },
        { messages: [{ role: 'robot', content: 'a' }] },
        { messages: 'a' },
      ];
      for (const options of wrong) {
        expect(() => llava.generate(options as LlavaGenerateOptions), JSON.stringify(options))
          .to.throw()
          .with.property('code', 'ERR_ARGUMENT');
      }
    });
  });

  // F01
  it('counts image marks from config.json, whatever processor_config.json says', async () => {
    const processor = json('processor_config.json');
    const images = pictures(1);
    const { inputIds, inputEmbeds } = await llava.prepareInputs(images, kPrompt);
    inputEmbeds.dispose();
    const others: readonly (object | undefined)[] = [
      undefined,
      {},
      { ...processor, num_additional_image_tokens: 0 },
      { ...processor, patch_size: 14 },
      { ...processor, patch_size: null, vision_feature_select_strategy: null },
      { ...processor, vision_feature_select_strategy: 'full' },
    ];
    for (const other of others) {
      const same = await LLaVA.fromPretrained(changed({ 'processor_config.json': other }), { device: 'cpu' });
      const prepared = await same.prepareInputs(images, kPrompt);
      expect(prepared.inputIds).to.deep.equal(inputIds);
      prepared.inputEmbeds.dispose();
      same.dispose();
    }
  });

  // F15
  it('ends at any id of generation_config.json, a number or a list, else of config.json', async () => {
    const options = { prompt: kPrompt, images: pictures(1), maxNewTokens: 20 };
    const { tokens } = await answer(options);
    const end = tokens[7]!;
    const first = tokens.indexOf(end);
    const config = json('config.json');
    const text_config = { ...(config.text_config as object), eos_token_id: [575, end] };
    const forms: readonly Readonly<Record<string, object | undefined>>[] = [
      { 'generation_config.json': { eos_token_id: [575, end] } },
      { 'generation_config.json': { eos_token_id: end } },
      { 'generation_config.json': { eos_token_id: [575, end] }, 'config.json': { ...config, eos_token_id: 574 } },
      { 'generation_config.json': undefined, 'config.json': { ...config, text_config } },
      { 'generation_config.json': {}, 'config.json': { ...config, text_config } },
    ];
    for (const files of forms) {
      const other = await LLaVA.fromPretrained(changed(files), { device: 'cpu' });
      const result = await other.generate(options).result;
      expect(result.finishReason, JSON.stringify(Object.keys(files))).to.equal('stop');
      expect(result.tokens).to.deep.equal(tokens.slice(0, first));
      other.dispose();
    }
  });

  // F23
  it('gives each of many conversations the answer that it gets alone, whatever joins or leaves', async () => {
    const lengths = [3, 300, 40, 9, 150, 70, 20, 5];
    const runs = lengths.map((length, i): LlavaGenerateOptions => {
      const marks = '<image>'.repeat(i % 3);
      const prompt = `USER: ${marks}${'What is it? '.repeat(Math.ceil(length / 6))} ASSISTANT:`;
      return { prompt, ...(i % 3 > 0 && { images: pictures(i % 3) }), maxNewTokens: 16 };
    });
    const alone: GenerationResult[] = [];
    for (const options of runs) alone.push(await answer(options));
    const controller = new AbortController();
    const together = await Promise.all(
      runs.map(async (options, i) => {
        await sleep((i * 37) % 50);
        const run = llava.generate(i === 4 ? { ...options, signal: controller.signal } : options);
        if (i === 4) for await (const _ of run) controller.abort();
        return run.result;
      }),
    );
    expect(together[4]!.finishReason).to.equal('aborted');
    together.forEach(({ tokens }, i) => {
      if (i !== 4) expect(tokens, String(i)).to.deep.equal(alone[i]!.tokens);
    });
  });

  it('frees everything of 500 generations that are stopped anywhere', async function () {
    this.timeout(120_000);
    const images = pictures(2);
    const prompt = `<image> and <image> ${'word '.repeat(30)}`;
    const round = async (i: number): Promise<void> => {
      const { finishReason } = await generateAndStop(llava, i, { prompt, images });
      expect(finishReason).to.be.oneOf(['aborted', 'length', 'stop']);
    };
    const before = device('cpu').memory().tensors;
    for (let i = 0; i < 500; i += 4) await Promise.all([round(i), round(i + 1), round(i + 2), round(i + 3)]);
    for (let i = 0; i < 100 && device('cpu').memory().tensors > before; i++) await sleep(5);
    expect(device('cpu').memory().tensors).to.be.at.most(before);
    const whole = await answer({ prompt: 'a', maxNewTokens: 1022 }); // needs every page
    expect(whole.usage.totalTokens).to.be.at.most(1024);
  });

  it('knows what it holds', () => {
    const { device, weights, cache } = llava.memoryUsage();
    expect(device).to.equal('cpu');
    expect(weights).to.be.within(900_000, 3_000_000);
    expect(cache).to.equal(2 * 1024 * 2 * 64 * 4); // layers · positions · (keys and values) · width · bytes
  });

  it('refuses checkpoints that lie', async () => {
    const config = json('config.json');
    const vision = config.vision_config as object;
    const text = config.text_config as object;
    const wrong: readonly (readonly [object, RegExp])[] = [
      [{ ...config, model_type: 'llava_next' }, /llava_next is not supported yet/],
      [{ ...config, image_token_index: 576 }, /image_token_index must be below text_config\.vocab_size, 576/],
      [{ ...config, vision_feature_select_strategy: 'some' }, /vision_feature_select_strategy/],
      [{ ...config, projector_hidden_act: 'mish' }, /projector_hidden_act/],
      [{ ...config, vision_config: { ...vision, patch_size: 0 } }, /patch_size/],
      [{ ...config, text_config: { ...text, num_attention_heads: 3 } }, /hidden_size|num_key_value_heads/],
    ];
    for (const [other, message] of wrong) {
      await expectError(() => LLaVA.fromPretrained(changed({ 'config.json': other }), { device: 'cpu' }), 'ERR_CONFIG', message);
    }
    const wider = { ...config, text_config: { ...text, intermediate_size: 173 } };
    await expectError(
      () => LLaVA.fromPretrained(changed({ 'config.json': wider })),
      'ERR_CHECKPOINT',
      /gate_proj.*the config says \[173, 64\]/,
    );
    const deeper = { ...config, text_config: { ...text, num_hidden_layers: 3 } };
    await expectError(
      () => LLaVA.fromPretrained(changed({ 'config.json': deeper })),
      'ERR_CHECKPOINT',
      /no tensor "language_model\.layers\.2/,
    );
  });

  it('is disposed safely, also while it answers', async () => {
    const other = await LLaVA.fromPretrained(kFolder, { device: 'cpu' });
    const run = other.generate({ prompt: kPrompt, images: pictures(1), maxNewTokens: 200 });
    for await (const _ of run) break;
    const second = other.generate({ prompt: kPrompt, images: pictures(1), maxNewTokens: 200 });
    other.dispose();
    other.dispose();
    await run.result;
    await expectError(() => second.result, 'ERR_DISPOSED');
    await expectError(() => other.encodeImage(pictures(1)), 'ERR_DISPOSED');
    expect(() => other.generate({ prompt: 'a' }))
      .to.throw()
      .with.property('code', 'ERR_DISPOSED');
  });
});
