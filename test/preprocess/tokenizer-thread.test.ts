import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { Tokenizer } from '../../lib/preprocess/tokenizer';
import { endTokenizerThread } from '../../lib/preprocess/tokenizer-thread';
import { kClipFolder, needs } from './tokenizer-reference';

const run = promisify(execFile);
const tokenizerModule = JSON.stringify(join(__dirname, '..', '..', 'lib', 'preprocess', 'tokenizer.js'));

/** A program that has `clip`, a tokenizer. */
function program(body: string): string {
  return `const { Tokenizer } = require(${tokenizerModule});
    (async () => { const clip = await Tokenizer.fromPretrained(${JSON.stringify(kClipFolder)}); ${body} })();`;
}

describe('the tokenizer worker', () => {
  const threads: Worker[] = [];
  const watch = (worker: Worker): unknown => threads.push(worker);
  before(async function () {
    needs(this, kClipFolder);
    await endTokenizerThread();
    process.on('worker', watch);
  });

  after(async () => {
    process.off('worker', watch);
    await endTokenizerThread();
  });

  it('an abort rejects at once, before and while it works', async () => {
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    const early: unknown = await Tokenizer.fromPretrained(kClipFolder, { signal }).catch((e: unknown) => e);
    expect(early).to.include({ code: 'ERR_ABORTED', cause: reason });

    const controller = new AbortController();
    const loading = Tokenizer.fromPretrained(kClipFolder, { signal: controller.signal }).catch((e: unknown) => e);
    controller.abort(reason);
    expect(await loading).to.include({ code: 'ERR_ABORTED', cause: reason });

    const clip = await Tokenizer.fromPretrained(kClipFolder);
    expect(await clip.encodeBatch(['a'], { signal }).catch((e: unknown) => e)).to.include({ code: 'ERR_ABORTED' });
    const second = new AbortController();
    const texts = Array.from({ length: 20_000 }, (_, i) => `a photo of number ${i}`);
    const batch = clip.encodeBatch(texts, { signal: second.signal }).catch((e: unknown) => e);
    setImmediate(() => second.abort(reason));
    expect(await batch).to.include({ code: 'ERR_ABORTED', cause: reason });
    expect((await clip.encodeBatch(['a'])).ids).to.have.length(1);
  });

  it('dies: who waits gets ERR_TOKENIZER, the next request starts another, encode() does not notice', async () => {
    const clip = await Tokenizer.fromPretrained(kClipFolder);
    const before = clip.encode('a photo of a cat');
    // More than a worker can answer before it is ended: a single short text sometimes was.
    const many = Array.from({ length: 20_000 }, (_, i) => `a photo of number ${i}`);
    const waiting = [clip.encodeBatch(many), Tokenizer.fromPretrained(kClipFolder)].map((p) => p.catch((e: unknown) => e));
    await threads.at(-1)?.terminate();
    for (const error of await Promise.all(waiting)) {
      expect(error).to.include({ code: 'ERR_TOKENIZER', message: 'tokenizer: its worker thread ended before it had answered' });
    }
    expect(clip.encode('a photo of a cat')).to.deep.equal(before);
    expect([...(await clip.encodeBatch(['a photo of a cat'])).ids[0]!]).to.deep.equal(before);
  });

  it('serves several tokenizers and callers at once', async () => {
    const tokenizers = await Promise.all([1, 2, 3].map(() => Tokenizer.fromPretrained(kClipFolder)));
    const texts = Array.from({ length: 600 }, (_, i) => `number ${i}`);
    const batches = await Promise.all(tokenizers.map((tokenizer) => tokenizer.encodeBatch(texts)));
    for (const { ids } of batches)
      expect(ids.map(String)).to.deep.equal(texts.map((text) => String(tokenizers[0]!.encode(text))));
  });

  it('does not keep the process alive, nor is it waited for by process.exit()', async () => {
    const { stdout } = await run(process.execPath, ['-e', program('console.log(clip.encode("cat").join());')]);
    expect(stdout.trim()).to.equal('49406,2368,49407');
    const aborted = `require(${tokenizerModule}).Tokenizer.fromPretrained('.', { signal: AbortSignal.abort() }).catch(() => console.log('aborted'))`;
    expect((await run(process.execPath, ['-e', aborted])).stdout.trim()).to.equal('aborted');
    const batch = 'void clip.encodeBatch(new Array(50000).fill("a cat")); setTimeout(() => process.exit(7), 5);';
    const exit: unknown = await run(process.execPath, ['-e', program(batch)]).catch((e: unknown) => e);
    expect(exit).to.include({ code: 7 });
  });

  it("works inside a user's worker, which may be terminated meanwhile", async () => {
    const send = "require('node:worker_threads').parentPort.postMessage([...(await clip.encodeBatch(['cat'])).ids[0]]);";
    const worker = new Worker(program(send), { eval: true });
    const [ids]: unknown[] = await once(worker, 'message');
    expect(ids).to.deep.equal([49406, 2368, 49407]);
    await worker.terminate();

    const busy = new Worker(
      program(
        "require('node:worker_threads').parentPort.postMessage(1); for (;;) await clip.encodeBatch(new Array(2000).fill('a cat'));",
      ),
      { eval: true },
    );
    await once(busy, 'message');
    expect(await busy.terminate()).to.equal(1);
  });
});
