import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { type ChatMessage, LLaVA, Llama } from '../../lib';
import { packageRoot } from '../../lib/native';
import { ModelFolders } from '../field/model-folder';
import { fixtures, needsFixtures } from '../support/fixtures';
import { program, warpsight } from './program';

const kModel = join(fixtures, 'llava-tiny', 'checkpoint');
const kLlama = join(fixtures, 'llama-tiny-linear', 'checkpoint');
const kRocket = join(packageRoot, 'examples', 'rocket.jpg');
const kEndless = ['--max-new-tokens', '1500', '--stop', 'this is never said'];

describe('warpsight chat', function () {
  this.timeout(60_000);
  const folders = new ModelFolders();
  let llava: LLaVA;

  before(async function () {
    needsFixtures(this);
    llava = await LLaVA.fromPretrained(kModel, { device: 'cpu' });
  });
  after(() => llava?.dispose());

  const asked = (text: string, images = 1): ChatMessage => ({
    role: 'user',
    content: [...Array.from({ length: images }, () => ({ type: 'image' }) as const), { type: 'text', text }],
  });
  const answer = async (messages: readonly ChatMessage[], images: readonly string[], maxNewTokens: number) =>
    (await llava.generate({ messages, images, maxNewTokens }).result).text;
  const cpu = ['--device', 'cpu', '--model', kModel];

  /** The program under way, and its output so far. */
  const start = (args: readonly string[]): { child: ChildProcessWithoutNullStreams; out: () => string } => {
    const child = spawn(process.execPath, [program, 'chat', ...args], { stdio: 'pipe' });
    let out = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      out += chunk;
    });
    child.stderr.resume();
    return { child, out: () => out };
  };

  it('prints the answer that generate() gives, about one picture, two or none', async () => {
    for (const images of [[kRocket], [kRocket, kRocket], []]) {
      const { code, out } = await warpsight(['chat', ...images, ...cpu, '-p', 'What is it?', '-n', '12']);
      expect(code).to.equal(0);
      expect(out).to.equal(`${await answer([asked('What is it?', images.length)], images, 12)}\n`);
    }
  });

  it('prints one object with --json', async () => {
    const options = ['--temperature', '0.9', '--seed', '7', '--top-k', '50', '--top-p', '0.9', '--repetition-penalty', '1.2'];
    const { out } = await warpsight(['chat', kRocket, ...cpu, '-p', 'What is it?', '-n', '12', ...options, '--json']);
    const result = JSON.parse(out);
    const sampling = { temperature: 0.9, seed: 7, topK: 50, topP: 0.9, repetitionPenalty: 1.2, maxNewTokens: 12 };
    const wanted = await llava.generate({ messages: [asked('What is it?')], images: [kRocket], ...sampling }).result;
    expect(result).to.deep.include({ images: [kRocket], prompt: 'What is it?', text: wanted.text, usage: wanted.usage });
    expect(result.tokens).to.deep.equal(wanted.tokens);
    expect(result.timings).to.have.keys(['firstTokenMs', 'totalMs', 'tokensPerSecond']);
    expect(out).to.match(/^[^\n]+\n$/);
  });

  it('holds a conversation over stdin, and remembers it', async () => {
    const { code, out } = await warpsight(['chat', kRocket, ...cpu, '-n', '5', '--json'], { stdin: 'first\n\nsecond\n' });
    expect(code).to.equal(0);
    const first = await answer([asked('first')], [kRocket], 5);
    const history: ChatMessage[] = [asked('first'), { role: 'assistant', content: first }, asked('second', 0)];
    const second = await answer(history, [kRocket], 5);
    const lines = out.trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line).text)).to.deep.equal([first, second]);
  });

  it('goes on after a question that can not be answered', async () => {
    const long = 'word '.repeat(5000);
    const { code, out, err } = await warpsight(['chat', ...cpu, '-n', '5'], { stdin: `${long}\nshort\n` });
    expect(code).to.equal(1);
    expect(err).to.match(/^warpsight: the prompt has \d+ tokens, images included; the model's context holds/);
    expect(out).to.equal(`${await answer([asked('short', 0)], [], 5)}\n`);
  });

  it('stops the answer at Ctrl-C and prints what there is', async () => {
    const { child, out } = start([...cpu, '-p', 'What is it?', ...kEndless]);
    await once(child.stdout, 'data');
    child.kill('SIGINT');
    const [code] = await once(child, 'close');
    expect(code).to.equal(130);
    const whole = await llava.generate({ messages: [asked('What is it?', 0)], maxNewTokens: 1500 }).result;
    expect(out().endsWith('\n')).to.equal(true);
    expect(whole.text.startsWith(out().slice(0, -1))).to.equal(true);
    expect(out().length).to.be.below(whole.text.length);
  });

  it('asks on after Ctrl-C in a conversation, and leaves at one while nothing is under way', async () => {
    const { child, out } = start([...cpu, ...kEndless]);
    for (const question of ['first', 'second']) {
      const before = out().length;
      child.stdin.write(`${question}\n`);
      await once(child.stdout, 'data');
      child.kill('SIGINT');
      while (!out().slice(before).endsWith('\n')) await once(child.stdout, 'data');
    }
    child.kill('SIGINT');
    expect((await once(child, 'close'))[0]).to.equal(130);
  });

  it('talks without a chat template in the form of LLaVA 1.5', async () => {
    const folder = folders.make({});
    for (const name of readdirSync(kModel)) copyFileSync(join(kModel, name), join(folder, name));
    const { chat_template, ...tokenizer } = JSON.parse(readFileSync(join(kModel, 'tokenizer_config.json'), 'utf8'));
    expect(chat_template).to.be.a('string');
    rmSync(join(folder, 'tokenizer_config.json'));
    writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(tokenizer));
    const { out } = await warpsight(['chat', kRocket, '--device', 'cpu', '-m', folder, '-p', 'What is it?', '-n', '8']);
    const prompt = 'USER: <image>\nWhat is it? ASSISTANT:';
    expect(out).to.equal(`${(await llava.generate({ prompt, images: [kRocket], maxNewTokens: 8 }).result).text}\n`);
  });

  it('takes a Llama too, which sees no pictures', async () => {
    const llama = await Llama.fromPretrained(kLlama, { device: 'cpu' });
    const { text } = await llama.generate({ prompt: 'Once upon a time', maxNewTokens: 8 }).result;
    llama.dispose();
    const args = ['--device', 'cpu', '-m', kLlama, '-p', 'Once upon a time', '-n', '8'];
    expect(await warpsight(['chat', ...args])).to.deep.include({ code: 0, out: `${text}\n` });
    expect(await warpsight(['chat', kRocket, ...args])).to.deep.include({ code: 2, out: '' });
  });

  const wrong: readonly (readonly [what: string, args: readonly string[], code: number, message: RegExp])[] = [
    ['no model', ['-p', 'a'], 2, /chat needs --model/],
    ['an unknown option', [...cpu, '--promt', 'a'], 2, /unknown option --promt: did you mean --prompt\?/],
    ['a number that is none', [...cpu, '-p', 'a', '--temperature', 'hot'], 2, /--temperature must be a number: it is "hot"/],
    ['a temperature that can not be', [...cpu, '-p', 'a', '--temperature', '-1'], 2, /temperature must be a number from 0/],
    ['a picture that is none', [__filename, ...cpu, '-p', 'a'], 1, /chat\.test/],
    ['no such folder', ['-m', '/nowhere', '-p', 'a'], 1, /no such folder/],
  ];
  for (const [what, args, expectedCode, message] of wrong) {
    it(`says so: ${what}`, async () => {
      const { code, out, err } = await warpsight(['chat', ...args]);
      expect(err).to.match(message);
      expect({ code, out }).to.deep.equal({ code: expectedCode, out: '' });
    });
  }
});
