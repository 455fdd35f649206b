import { join } from 'node:path';
import { expect } from 'chai';
import { counters, Llama, setThreads, threads } from '../../lib';
import { expectError } from '../support/errors';
import { fixtures, needsFixtures, readFixture } from '../support/fixtures';
import { expectClose } from '../support/numbers';
import { describeLlamaGolden, kLlamaFixtures } from './llama-golden';

for (const folder of kLlamaFixtures) describeLlamaGolden(folder, { device: 'cpu', dtype: 'float32' });

describe('Llama.generate()', () => {
  const folder = join(fixtures, 'llama-tiny-linear', 'checkpoint');
  let llama: Llama;

  before(async function () {
    needsFixtures(this);
    llama = await Llama.fromPretrained(folder, { device: 'cpu', cacheTokens: 512 });
  });
  after(() => llama?.dispose());

  const ids = (length: number) => Array.from({ length }, (_, i) => 3 + ((i * 37) % 500));

  it('streams pieces that join to the text of the result', async () => {
    const run = llama.generate({ prompt: 'Once upon a time', maxNewTokens: 40 });
    let text = '';
    for await (const piece of run) text += piece;
    const result = await run.result;
    expect(text).to.equal(result.text);
    expect(result.finishReason).to.equal('length');
    expect(result.usage).to.deep.include({ completionTokens: 40, totalTokens: result.usage.promptTokens + 40 });
    expect(result.timings.totalMs).to.be.at.least(result.timings.firstTokenMs);
  });

  it('reads a long prompt in parts: prefill of n and a step is prefill of n + 1', async () => {
    const prompt = ids(300);
    const logits = await llama.forward({ inputIds: prompt });
    const rows = await logits.reshape([300, 576]).rows();
    logits.dispose();
    const best = (row: Float32Array) => row.indexOf(Math.max(...row));
    const whole = await llama.generate({ inputIds: prompt, maxNewTokens: 2 }).result;
    expect(whole.tokens[0]).to.equal(best(rows[299]!));
    const longer = await llama.generate({ inputIds: [...prompt, whole.tokens[0]!], maxNewTokens: 1 }).result;
    expect(longer.tokens[0]).to.equal(whole.tokens[1]);
  });

  it('gives concurrent runs the tokens that each gets alone, also where they must wait for the cache', async () => {
    const prompts = [3, 40, 120, 7, 200, 65].map(ids);
    const alone: (readonly number[])[] = [];
    for (const inputIds of prompts) alone.push((await llama.generate({ inputIds, maxNewTokens: 24 }).result).tokens);
    const together = await Promise.all(prompts.map((inputIds) => llama.generate({ inputIds, maxNewTokens: 24 }).result));
    expect(together.map(({ tokens }) => tokens)).to.deep.equal(alone);
  });

  it('gives the same text for the same seed, and another for another', async () => {
    const options = { inputIds: ids(9), maxNewTokens: 24, temperature: 1.5, topK: 200, topP: 0.98, repetitionPenalty: 1.1 };
    const run = async (seed: number | bigint) => (await llama.generate({ ...options, seed }).result).tokens;
    const first = await run(7);
    expect(await run(7n)).to.deep.equal(first);
    expect(await run(8)).not.to.deep.equal(first);
  });

  it('gives the same text for the same seed on any number of threads', async () => {
    const options = { inputIds: ids(70), maxNewTokens: 24, temperature: 1.2, topP: 0.95, seed: 3 };
    const before = threads();
    const texts: (readonly number[])[] = [];
    for (const count of [1, 2, 3, 5]) {
      setThreads(count);
      texts.push((await llama.generate(options).result).tokens);
    }
    setThreads(before);
    for (const tokens of texts) expect(tokens).to.deep.equal(texts[0]);
  });

  it('lets several generations take turns: none is through before the others have begun', async () => {
    const said = [0, 0, 0];
    const least: number[] = [];
    await Promise.all(
      said.map(async (_, i) => {
        const run = llama.generate({ inputIds: ids(4 + 30 * i), maxNewTokens: 60 });
        for await (const _piece of run) said[i]!++;
        await run.result;
        least.push(Math.min(...said));
      }),
    );
    expect(Math.min(...said)).to.be.above(20);
    expect(least[0], `pieces of the slowest when the first was through, of ${said}`).to.be.above(Math.min(...said) / 2);
  });

  it('never says again what a large penalty forbids', async () => {
    const { tokens } = await llama.generate({ inputIds: ids(5), maxNewTokens: 60, repetitionPenalty: 100 }).result;
    expect(new Set([...ids(5), ...tokens]).size).to.equal(65);
  });

  it('stops before a stop text, also when it is spread over tokens', async () => {
    const { text } = await llama.generate({ prompt: 'Once upon a time', maxNewTokens: 24 }).result;
    const stop = text.slice(9, 14);
    const run = llama.generate({ prompt: 'Once upon a time', maxNewTokens: 24, stop: ['never there', stop] });
    const pieces: string[] = [];
    for await (const piece of run) pieces.push(piece);
    const result = await run.result;
    expect(result.finishReason).to.equal('stop');
    expect(result.text).to.equal(text.slice(0, text.indexOf(stop)));
    expect(pieces.join('')).to.equal(result.text);
  });

  it('ends at once when its reader leaves or its signal fires, and gives its pages back', async () => {
    const left = llama.generate({ inputIds: ids(5), maxNewTokens: 400 });
    for await (const _ of left) break;
    expect((await left.result).finishReason).to.equal('aborted');
    const controller = new AbortController();
    const run = llama.generate({ inputIds: ids(5), maxNewTokens: 400, signal: controller.signal });
    const waits = llama.generate({ inputIds: ids(5), maxNewTokens: 400, signal: controller.signal });
    for await (const _ of run) controller.abort();
    expect((await run.result).finishReason).to.equal('aborted');
    expect((await waits.result).finishReason).to.equal('aborted');
    const whole = await llama.generate({ inputIds: ids(100), maxNewTokens: 412 }).result; // needs every page
    expect(whole.tokens).to.have.length(412);
  });

  it('makes one native call for each token', async () => {
    await llama.generate({ inputIds: ids(5), maxNewTokens: 4 }).result;
    const before = counters().calls;
    await llama.generate({ inputIds: ids(5), maxNewTokens: 10 }).result;
    expect(counters().calls - before).to.equal(10);
  });

  it('has the context length as limit', async () => {
    const small = await Llama.fromPretrained(folder, { device: 'cpu', cacheTokens: 64 });
    const tooMuch = small.generate({ inputIds: ids(60), maxNewTokens: 20 });
    await expectError(() => tooMuch.result, 'ERR_OUT_OF_MEMORY');
    expect((await small.generate({ inputIds: ids(60), maxNewTokens: 4 }).result).tokens).to.have.length(4);
    small.dispose();
    await expectError(() => llama.generate({ inputIds: ids(4096) }).result, 'ERR_ARGUMENT');
  });

  it('refuses options that can not be, at the call', () => {
    const wrong: Parameters<Llama['generate']>[0][] = [
      {},
      { prompt: 'a', inputIds: [1] },
      { inputIds: [] },
      { inputIds: [576] },
      { prompt: 'a', temperature: -1 },
      { prompt: 'a', temperature: Number.NaN },
      { prompt: 'a', temperature: 1e9 },
      { prompt: 'a', maxNewTokens: 0 },
      { prompt: 'a', maxNewTokens: 1.5 },
      { prompt: 'a', topP: 0 },
      { prompt: 'a', topK: -1 },
      { prompt: 'a', repetitionPenalty: 0 },
      { prompt: 'a', seed: 0.5 },
      { prompt: 'a', stop: [''] },
    ];
    for (const options of wrong) {
      expect(() => llama.generate(options), JSON.stringify(options))
        .to.throw()
        .with.property('code', 'ERR_ARGUMENT');
    }
  });

  it('is disposed safely, also while it answers', async () => {
    const other = await Llama.fromPretrained(folder, { device: 'cpu', cacheTokens: 256 });
    const run = other.generate({ inputIds: ids(5), maxNewTokens: 200 });
    for await (const _ of run) break;
    const second = other.generate({ inputIds: ids(5), maxNewTokens: 200 });
    other.dispose();
    await run.result;
    await expectError(() => second.result, 'ERR_DISPOSED');
    expect(() => other.generate({ inputIds: [1] }))
      .to.throw()
      .with.property('code', 'ERR_DISPOSED');
  });

  it('continues where forward() was: logits of the last row decide', async () => {
    const name = '0';
    const inputs = readFixture('llama-tiny-linear', 'inputs').get(`${name}.input_ids`)!.data as Int32Array;
    const steps = readFixture('llama-tiny-linear', 'expected').get(`${name}.step_logits`)!;
    const tokens = readFixture('llama-tiny-linear', 'expected').get(`${name}.tokens`)!.data;
    const logits = await llama.forward({ inputIds: [...inputs, ...Array.from(tokens).slice(0, 5)] });
    const rows = await logits.reshape([inputs.length + 5, 576]).rows();
    logits.dispose();
    for (let i = 0; i <= 5; i++) expectClose(rows[inputs.length - 1 + i]!, steps.data.slice(i * 576, (i + 1) * 576), 1e-4);
  });
});
