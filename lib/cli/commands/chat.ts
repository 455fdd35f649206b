import { createInterface } from 'node:readline';
import { WarpsightError } from '../../errors';
import type { GenerateOptions, GenerationResult } from '../../index';
import { type Arguments, UsageError } from '../arguments';
import type { Command } from '../command';
import { Conversation } from '../conversation';
import { loadChatModel } from '../model';
import { printable, stdout } from '../terminal';

/** 128 + SIGINT, as shells count. */
const kInterrupted = 130;

export const chat: Command = {
  name: 'chat',
  operands: '[image..]',
  operandNames: { image: 'pictures to talk about: JPEG, PNG, WebP or GIF; none is fine' },
  describe: 'Answers questions about pictures (LLaVA), or without any (Llama too). Ctrl-C stops an answer.',
  options: {
    prompt: { value: 'TEXT', short: 'p', describe: 'one question; without it a conversation is read line by line from stdin' },
    'max-new-tokens': { value: 'N', short: 'n', describe: 'the most tokens of an answer; 256 by default' },
    temperature: { value: 'T', short: 't', describe: '0 (default) takes the likeliest token each time' },
    'top-k': { value: 'K', describe: 'only the K likeliest tokens' },
    'top-p': { value: 'P', describe: 'only the likeliest tokens whose probabilities sum to P' },
    'repetition-penalty': { value: 'X', describe: 'above 1: what was said becomes less likely' },
    seed: { value: 'N', describe: 'the same seed gives the same answer' },
    stop: { value: 'TEXT', describe: 'ends the answer; may be given several times' },
  },
  examples: [
    ['chat photo.jpg -m ./llava-1.5-7b -p "What is on this picture?"', 'the answer, as it comes'],
    ['chat photo.jpg -m ./llava-1.5-7b', 'a conversation about the picture'],
    ['chat -m ./llama -p "Hello" --json', 'text, tokens, usage and timings as one line of JSON'],
  ],

  async run(args: Arguments): Promise<boolean | number> {
    const images = args.texts('image');
    const prompt = args.text('prompt');
    const options = generateOptions(args);
    const name = args.text('model');
    if (name === undefined) throw new UsageError('chat needs --model: the model that ships can not talk');
    const model = await loadChatModel(args, name);
    try {
      const speaker = new Speaker(new Conversation(model, images), options, args.flag('json'));
      return prompt === undefined ? await speaker.converse() : await speaker.answerOnce(prompt);
    } finally {
      model.dispose();
    }
  },
};

function generateOptions(args: Arguments): GenerateOptions {
  const given = {
    maxNewTokens: args.number('max-new-tokens'),
    temperature: args.number('temperature'),
    topK: args.number('top-k'),
    topP: args.number('top-p'),
    repetitionPenalty: args.number('repetition-penalty'),
    seed: args.number('seed'),
  };
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  return { ...Object.fromEntries(set), stop: args.texts('stop') };
}

/** Prints answers as they come; Ctrl-C stops the one under way, or leaves. */
class Speaker {
  #answering: AbortController | undefined;

  constructor(
    readonly conversation: Conversation,
    readonly options: GenerateOptions,
    readonly json: boolean,
  ) {
    process.removeAllListeners('SIGINT'); // the program's own, which leaves at once
    process.on('SIGINT', () => this.#interrupt());
  }

  async answerOnce(question: string): Promise<boolean | number> {
    const { finishReason } = await this.#answer(question);
    return finishReason === 'aborted' ? kInterrupted : true;
  }

  async converse(): Promise<boolean> {
    const terminal = process.stdin.isTTY === true && process.stderr.isTTY === true;
    const lines = createInterface({ input: process.stdin, output: process.stderr, terminal, prompt: '> ' });
    lines.on('SIGINT', () => this.#interrupt()); // a terminal in raw mode sends the key, not the signal
    let good = true;
    if (terminal) lines.prompt();
    for await (const line of lines) {
      if (line.trim() !== '') good = (await this.#answerOrReport(line)) && good;
      if (terminal) lines.prompt();
    }
    return good;
  }

  async #answerOrReport(question: string): Promise<boolean> {
    try {
      await this.#answer(question);
      return true;
    } catch (error) {
      if (!(error instanceof WarpsightError)) throw error;
      process.stderr.write(`warpsight: ${printable(error.message)}\n`);
      return false;
    }
  }

  async #answer(question: string): Promise<GenerationResult> {
    this.#answering = new AbortController();
    try {
      const run = this.conversation.ask(question, { ...this.options, signal: this.#answering.signal });
      if (!this.json) {
        for await (const piece of run) await stdout(process.stdout.isTTY ? withoutEscapes(piece) : piece);
        await stdout('\n');
      }
      const result = await run.result;
      if (result.text !== '') this.conversation.keep(question, result.text); // stopped before it began: as if never asked
      if (this.json) await stdout(`${JSON.stringify({ images: this.conversation.images, prompt: question, ...result })}\n`);
      return result;
    } finally {
      this.#answering = undefined;
    }
  }

  #interrupt(): void {
    if (!this.#answering || this.#answering.signal.aborted) process.exit(kInterrupted);
    this.#answering.abort();
  }
}

/** A model may say anything; a terminal obeys control characters. */
function withoutEscapes(text: string): string {
  return text
    .split(/([\n\t])/)
    .map((part) => (part === '\n' || part === '\t' ? part : printable(part)))
    .join('');
}
