import { WarpsightError } from '../errors';
import type { LanguageModel, SplicedFeatures } from '../models/language-model';
import type { Tensor } from '../tensor';
import type { SequencePages } from './kv-cache';
import type { GenerateSettings } from './options';
import { TextStream } from './text-stream';

export interface GenerationResult {
  readonly text: string;
  /** Without the end mark. */
  readonly tokens: readonly number[];
  /** An end mark or a stop text; maxNewTokens or the context length; the signal, or a `for await` that was left early. */
  readonly finishReason: 'stop' | 'length' | 'aborted';
  readonly usage: { readonly promptTokens: number; readonly completionTokens: number; readonly totalTokens: number };
  readonly timings: {
    /** From the call to the first token, waiting and reading the prompt included. */
    readonly firstTokenMs: number;
    readonly totalMs: number;
    /** Tokens after the first, by the time they took. */
    readonly tokensPerSecond: number;
  };
}

/** A prompt as the model reads it. */
export interface Prompt {
  readonly ids: Int32Array;
  /** Owned by the generation, which disposes its tensor. */
  readonly spliced?: SplicedFeatures | undefined;
}

/** What a generation needs of its model. */
export interface GenerationContext {
  readonly model: LanguageModel;
  readonly decode: (ids: readonly number[]) => string;
  readonly endIds: ReadonlySet<number>;
}

/**
 * One answer, under way from the moment it is made. Iterate over its pieces of text, or wait for `result`, or both.
 *
 * @example
 * for await (const piece of llava.generate({ prompt, images })) process.stdout.write(piece);
 */
export class Generation implements AsyncIterable<string> {
  /** Rejects with what went wrong: the error that iterating throws as well. */
  readonly result: Promise<GenerationResult>;
  readonly #pieces: string[] = [];
  #wake: (() => void) | undefined;
  #done = false;
  #failure: unknown;
  #left = false;

  /** @internal */
  constructor(prompt: () => Promise<Prompt>, context: () => GenerationContext, settings: GenerateSettings) {
    this.result = this.#run(prompt, context, settings);
    this.result.then(
      () => this.#end(undefined),
      (error: unknown) => this.#end(error),
    );
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, void> {
    try {
      for (;;) {
        const piece = this.#pieces.shift();
        if (piece !== undefined) yield piece;
        else if (this.#failure !== undefined) throw this.#failure;
        else if (this.#done) return;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.#left = true;
    }
  }

  #end(failure: unknown): void {
    this.#done = true;
    this.#failure = failure;
    this.#wake?.();
  }

  #say(piece: string): void {
    if (piece === '') return;
    this.#pieces.push(piece);
    this.#wake?.();
  }

  async #run(
    makePrompt: () => Promise<Prompt>,
    makeContext: () => GenerationContext,
    settings: GenerateSettings,
  ): Promise<GenerationResult> {
    const { signal } = settings;
    const begun = performance.now();
    const tokens: number[] = [];
    let text = '';
    let promptTokens = 0;
    let first = begun;
    const finish = (finishReason: GenerationResult['finishReason']): GenerationResult => {
      const end = performance.now();
      const seconds = (end - first) / 1000;
      return {
        text,
        tokens,
        finishReason,
        usage: { promptTokens, completionTokens: tokens.length, totalTokens: promptTokens + tokens.length },
        timings: {
          firstTokenMs: first - begun,
          totalMs: end - begun,
          tokensPerSecond: tokens.length > 1 && seconds > 0 ? (tokens.length - 1) / seconds : 0,
        },
      };
    };
    const stopped = () => signal?.aborted === true || this.#left;

    let prompt: Prompt | undefined;
    let pages: SequencePages | undefined;
    let pending: Tensor<'int32'> | undefined;
    try {
      prompt = await makePrompt();
      const { ids, spliced } = prompt;
      promptTokens = ids.length;
      const { model, decode, endIds } = makeContext();
      const limit = lengthLimit(ids.length, settings.maxNewTokens, model);
      pages = await model.pages.reserve(limit, signal);
      if (stopped()) return finish('aborted');
      const stream = new TextStream(decode, settings.stop);
      const say = (piece: string) => {
        text += piece;
        this.#say(piece);
      };
      const draw = (number: number) => ({
        ...settings,
        draw: number,
        seen: settings.repetitionPenalty === 1 ? [] : new Set([...ids, ...tokens]),
      });
      pending = model.prefill(pages, ids, spliced, draw(0));
      for (;;) {
        const [id] = await pending.read();
        pending.dispose();
        pending = undefined;
        if (tokens.length === 0) first = performance.now();
        if (stopped()) return finish('aborted');
        if (id === undefined || endIds.has(id)) {
          say(stream.flush());
          return finish('stop');
        }
        tokens.push(id);
        say(stream.push(id));
        if (stream.stopped) return finish('stop');
        if (ids.length + tokens.length >= limit) {
          say(stream.flush());
          return finish(stream.stopped ? 'stop' : 'length');
        }
        makeContext(); // throws once the model is disposed
        pending = model.step(pages, Int32Array.of(id), ids.length + tokens.length - 1, undefined, draw(tokens.length));
      }
    } catch (error) {
      if (error instanceof WarpsightError && error.code === 'ERR_ABORTED' && stopped()) return finish('aborted');
      throw error;
    } finally {
      await pending?.read().catch(() => undefined); // pages go to others only when nothing writes to them any more
      pending?.dispose();
      pages?.release();
      prompt?.spliced?.features.dispose();
    }
  }
}

/** The most positions the sequence may have. */
function lengthLimit(promptTokens: number, maxNewTokens: number, { config }: LanguageModel): number {
  const { contextLength } = config;
  if (promptTokens >= contextLength) {
    throw new WarpsightError(
      'ERR_ARGUMENT',
      `the prompt has ${promptTokens} tokens, images included; the model's context holds ${contextLength}, the answer included`,
    );
  }
  return Math.min(promptTokens + maxNewTokens, contextLength);
}
