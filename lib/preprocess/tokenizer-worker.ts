// The worker thread that reads tokenizers and encodes batches, so that neither holds the thread of its user.
import { stat } from 'node:fs/promises';
import { getPriority, setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';
import { WarpsightError } from '../errors';
import { TokenizerEngine } from './tokenizer-engine';
import { readTokenizer } from './tokenizer-files';
import type { EncodeReply, Reply, Request } from './tokenizer-messages';

const kWarmUpTurns = 15;
const kWarmUpTurnMs = 4;
const kWarmUpIds = 64;

/** Whether texts have been encoded here. */
let warm = false;
const engines = new Map<number, TokenizerEngine>();

/** As native/src/give_way.h: this thread stands back behind the event loop of its user. */
async function giveWay(): Promise<void> {
  if (process.platform !== 'linux') return;
  await stat(__filename); // libuv's threads inherit the niceness of the one that starts them: they are started before
  setPriority(0, Math.min(getPriority(process.pid) + 5, 19)); // 0 is the calling thread
}

const ready = giveWay();

parentPort?.on('message', async (request: Request) => {
  try {
    await ready;
    const reply = await answer(request);
    if (reply?.kind === 'encoded') {
      parentPort?.postMessage(reply, [reply.ids.buffer, reply.ends.buffer, reply.truncated.buffer]);
    } else if (reply !== undefined) {
      parentPort?.postMessage(reply);
    }
  } catch (error) {
    const known = error instanceof WarpsightError;
    const reply: Reply = {
      request: request.request,
      kind: 'error',
      code: known ? error.code : 'ERR_TOKENIZER',
      message: known ? error.message : `tokenizer: ${String(error)}`,
    };
    parentPort?.postMessage(reply);
  }
});

async function answer(request: Request): Promise<Reply | undefined> {
  switch (request.kind) {
    case 'load': {
      const tables = await readTokenizer(request.folder);
      const engine = new TokenizerEngine(tables); // what the library doesn't know fails here
      if (!warm) setImmediate(() => warmUp(engine));
      return { request: request.request, kind: 'loaded', tables, frameLength: engine.frameLength };
    }
    case 'encode': {
      warm = true;
      if (request.tables !== undefined) engines.set(request.tokenizer, new TokenizerEngine(request.tables));
      const engine = engines.get(request.tokenizer);
      if (engine === undefined) throw new Error(`number ${request.tokenizer} has never been sent`);
      return encodeAll(engine, request.texts, request.maxLength, request.request);
    }
    case 'release':
      engines.delete(request.tokenizer);
      return undefined;
  }
}

/**
 * V8 optimises what has run for a while, in threads that compete with the event loop: better while weights are read than under the first
 * request. A request that comes meanwhile waits for one turn, and does the same.
 */
function warmUp(engine: TokenizerEngine, turn = 0): void {
  if (warm) return;
  warm = turn === kWarmUpTurns - 1;
  const end = performance.now() + kWarmUpTurnMs;
  for (let i = turn * 1000; performance.now() < end; i++) {
    engine.encode(`a photo of the ${i}th word, number ${(i * 7919) % 100_003}`, kWarmUpIds);
  }
  setImmediate(() => warmUp(engine, turn + 1));
}

function encodeAll(engine: TokenizerEngine, texts: readonly string[], maxLength: number, request: number): EncodeReply {
  const encodings = texts.map((text) => engine.encode(text, maxLength));
  const ends = new Int32Array(texts.length + 1);
  encodings.forEach(({ ids }, i) => {
    ends[i + 1] = ends[i]! + ids.length;
  });
  const ids = new Int32Array(ends[texts.length]!);
  encodings.forEach((encoding, i) => {
    ids.set(encoding.ids, ends[i]);
  });
  const truncated = Uint8Array.from(encodings, (encoding) => (encoding.truncated ? 1 : 0));
  return { request, kind: 'encoded', ids, ends, truncated };
}
