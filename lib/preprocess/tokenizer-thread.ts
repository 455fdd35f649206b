import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { abortError, WarpsightError } from '../errors';
import type { EncodeReply, LoadReply, Reply, Request } from './tokenizer-messages';
import type { TokenizerTables } from './tokenizer-tables';

/** A vocabulary that needs more is refused with the worker, not with the process. */
const kHeapMiB = 1024;
/** Reading a tokenizer leaves garbage that V8 is in no hurry to collect; after so many of them an idle worker is let go with its heap. */
const kLoadsPerWorker = 16;

interface Pending {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: WarpsightError) => void;
}

/**
 * The one tokenizer worker of this JavaScript environment, started by the first request. It keeps the process alive only while
 * somebody waits for it; when it dies, those who wait get ERR_TOKENIZER and the next request starts another.
 */
class TokenizerThread {
  readonly #worker = new Worker(join(__dirname, 'tokenizer-worker.js'), {
    name: 'warpsight-tokenizer',
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: kHeapMiB },
  });
  readonly #pending = new Map<number, Pending>();
  /** The tokenizers whose tables this worker has been sent. */
  readonly #known = new Set<number>();
  #requests = 0;
  #loads = 0;

  constructor() {
    this.#worker.on('message', (reply: Reply) => {
      const pending = this.#pending.get(reply.request);
      this.#settle(reply.request);
      if (reply.kind === 'error') pending?.reject(new WarpsightError(reply.code, reply.message));
      else pending?.resolve(reply);
    });
    this.#worker.on('messageerror', (error) => this.#fail(error));
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', () => this.#fail(undefined));
    this.#worker.unref();
  }

  async load(folder: string, signal: AbortSignal | undefined): Promise<LoadReply> {
    this.#loads++;
    const reply = await this.#ask((request) => ({ request, kind: 'load', folder }), signal);
    if (reply.kind !== 'loaded') throw new WarpsightError('ERR_INTERNAL', `tokenizer: the worker answered "${reply.kind}"`);
    return reply;
  }

  async encode(
    tokenizer: number,
    tables: TokenizerTables,
    texts: readonly string[],
    maxLength: number,
    signal: AbortSignal | undefined,
  ): Promise<EncodeReply> {
    const sent = this.#known.has(tokenizer) ? undefined : tables;
    const answer = this.#ask((request) => ({ request, kind: 'encode', tokenizer, tables: sent, texts, maxLength }), signal);
    this.#known.add(tokenizer);
    const reply = await answer;
    if (reply.kind !== 'encoded') throw new WarpsightError('ERR_INTERNAL', `tokenizer: the worker answered "${reply.kind}"`);
    return reply;
  }

  release(tokenizer: number): void {
    if (this.#known.delete(tokenizer)) this.#worker.postMessage({ request: 0, kind: 'release', tokenizer } satisfies Request);
  }

  async terminate(): Promise<void> {
    await this.#worker.terminate();
  }

  #ask(make: (request: number) => Request, signal: AbortSignal | undefined): Promise<Reply> {
    const number = ++this.#requests;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(abortError(signal));
      const abort = (): void => {
        this.#settle(number);
        if (signal !== undefined) reject(abortError(signal));
      };
      const done = <T>(settle: (value: T) => void) => {
        return (value: T): void => {
          signal?.removeEventListener('abort', abort);
          settle(value);
        };
      };
      signal?.addEventListener('abort', abort, { once: true });
      this.#pending.set(number, { resolve: done(resolve), reject: done(reject) });
      this.#worker.ref();
      this.#worker.postMessage(make(number));
    });
  }

  #settle(request: number): void {
    this.#pending.delete(request);
    if (this.#pending.size > 0) return;
    this.#worker.unref();
    if (this.#loads >= kLoadsPerWorker) this.#retire();
  }

  /** The next request starts another worker, which is sent the tables that it needs. */
  #retire(): void {
    if (thread === this) thread = undefined;
    void this.terminate();
  }

  #fail(cause: unknown): void {
    if (thread === this) thread = undefined;
    const reason = cause instanceof Error ? `: ${cause.message}` : '';
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of waiting) {
      reject(
        new WarpsightError('ERR_TOKENIZER', `tokenizer: its worker thread ended before it had answered${reason}`, { cause }),
      );
    }
  }
}

let thread: TokenizerThread | undefined;

export function tokenizerThread(): TokenizerThread {
  thread ??= new TokenizerThread();
  return thread;
}

/** Tells a worker that is running to forget a tokenizer. */
export function releaseTokenizer(tokenizer: number): void {
  thread?.release(tokenizer);
}

/** Ends the worker, if one is running; the next request starts another. */
export async function endTokenizerThread(): Promise<void> {
  const ending = thread;
  thread = undefined;
  await ending?.terminate();
}
