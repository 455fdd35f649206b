import { getEventListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { runInNewContext } from 'node:vm';
import { expect } from 'chai';
import { CLIP, device, ops, Tensor, ZeroShotClassifier } from '../../lib';
import { packageRoot } from '../../lib/native';
import { expectError } from '../support/errors';
import { normal } from '../support/numbers';

const size = 64; // of the model that ships
const jpeg = join(packageRoot, 'examples', 'rocket.jpg');

async function numbersOf(promise: Promise<Tensor<'float32'>>): Promise<Float32Array> {
  const tensor = await promise;
  try {
    return await tensor.read();
  } finally {
    tensor.dispose();
  }
}

let clip: CLIP;
before(async () => {
  clip = await CLIP.fromPretrained(undefined, { device: 'cpu' });
});
after(() => clip.dispose());

describe('memory of the caller', () => {
  const shape = [1, 3, size, size];
  const values = normal(3 * size * size, 1);
  const bytes = readFileSync(jpeg);
  const raw = Uint8Array.from({ length: 50 * 40 * 3 }, (_, i) => (i * 7) % 256);
  const rawShape = { width: 50, height: 40, channels: 3 } as const;
  let pixelsWanted: Float32Array;
  let jpegWanted: Float32Array;
  let rawWanted: Float32Array;

  before(async () => {
    pixelsWanted = await numbersOf(clip.encodeImage({ pixels: values, shape }));
    jpegWanted = await numbersOf(clip.encodeImage(bytes));
    rawWanted = await numbersOf(clip.encodeImage({ data: raw, ...rawShape }));
  });

  it('may be transferred away as soon as the call has returned', async () => {
    const pixels = values.slice();
    const encoded = Uint8Array.from(bytes);
    const data = raw.slice();
    const results = [clip.encodeImage({ pixels, shape }), clip.encodeImage(encoded), clip.encodeImage({ data, ...rawShape })].map(
      numbersOf,
    );
    for (const { buffer } of [pixels, encoded, data]) structuredClone(buffer, { transfer: [buffer] });
    expect(await Promise.all(results)).to.deep.equal([pixelsWanted, jpegWanted, rawWanted]);
  });

  it('may be overwritten as soon as the call has returned', async () => {
    const pixels = values.slice();
    const encoded = Uint8Array.from(bytes);
    const data = raw.slice();
    const results = [clip.encodeImage({ pixels, shape }), clip.encodeImage(encoded), clip.encodeImage({ data, ...rawShape })].map(
      numbersOf,
    );
    for (const array of [pixels, encoded, data]) array.fill(0);
    expect(await Promise.all(results)).to.deep.equal([pixelsWanted, jpegWanted, rawWanted]);
  });

  it('may be shared with other threads, resizable, or of another realm', async () => {
    const shared = <A extends Float32Array | Uint8Array>(array: A): A => {
      const copy = new (array.constructor as new (buffer: SharedArrayBuffer) => A)(new SharedArrayBuffer(array.byteLength));
      copy.set(array);
      return copy;
    };
    const maxByteLength = 2 * values.byteLength;
    const resizable = new Float32Array(Reflect.construct(ArrayBuffer, [values.byteLength, { maxByteLength }]));
    resizable.set(values);
    const foreign: { floats: Float32Array; bytes: Uint8Array; raw: Uint8ClampedArray } = runInNewContext(
      '({ floats: new Float32Array(values), bytes: new Uint8Array(bytes), raw: new Uint8ClampedArray(raw) })',
      { values: [...values], bytes: [...bytes], raw: [...raw] },
    );
    for (const pixels of [shared(values), resizable, foreign.floats])
      expect(await numbersOf(clip.encodeImage({ pixels, shape }))).to.deep.equal(pixelsWanted);
    for (const encoded of [shared(Uint8Array.from(bytes)), foreign.bytes])
      expect(await numbersOf(clip.encodeImage(encoded))).to.deep.equal(jpegWanted);
    for (const data of [shared(raw), foreign.raw])
      expect(await numbersOf(clip.encodeImage({ data, ...rawShape }))).to.deep.equal(rawWanted);
  });

  it('that was transferred away before the call is an error', async () => {
    const pixels = values.slice();
    structuredClone(pixels.buffer, { transfer: [pixels.buffer] });
    await expectError(() => clip.encodeImage({ pixels, shape }), 'ERR_SHAPE');
    const encoded = Uint8Array.from(bytes);
    structuredClone(encoded.buffer, { transfer: [encoded.buffer] });
    await expectError(() => clip.encodeImage(encoded), 'ERR_IMAGE');
  });

  it('that a result gives may be transferred: it is the caller’s', async () => {
    const tensor = Tensor.from(new Float32Array(100_000).fill(3), [100_000]);
    const first = await tensor.read();
    const moved = new Float32Array(structuredClone(first.buffer as ArrayBuffer, { transfer: [first.buffer as ArrayBuffer] }));
    expect(first.length).to.equal(0);
    expect(moved[99_999]).to.equal(3);
    expect((await tensor.read())[99_999]).to.equal(3);
    tensor.dispose();
  });
});

describe('AbortSignal', () => {
  const calls: Readonly<Record<string, (signal: AbortSignal) => Promise<unknown>>> = {
    'encodeImage()': async (signal) => numbersOf(clip.encodeImage([jpeg, jpeg, jpeg], { signal })),
    'encodeText()': async (signal) =>
      numbersOf(
        clip.encodeText(
          Array.from({ length: 300 }, (_, i) => `a photo of number ${i}`),
          { signal },
        ),
      ),
    'forward()': async (signal) => (await clip.forward(jpeg, 'a rocket', { signal })).logitsPerImage.read(),
    'similarity()': (signal) => clip.similarity(jpeg, 'a rocket', { signal }),
    'fromPretrained()': async (signal) => (await CLIP.fromPretrained(undefined, { device: 'cpu', signal })).dispose(),
  };

  for (const [name, call] of Object.entries(calls)) {
    it(`${name} rejects if it has fired already, and at whatever moment it fires`, async () => {
      await expectError(() => call(AbortSignal.abort()), 'ERR_ABORTED');
      let aborted = 0;
      for (let turns = 0; turns < 12; turns++) {
        const controller = new AbortController();
        const result = call(controller.signal).then(
          () => 'done',
          (error) => error,
        );
        for (let i = 0; i < turns; i++) await nextTurn();
        controller.abort(new Error('enough'));
        const end = await result;
        if (end === 'done') continue;
        aborted++;
        expect(end).to.include({ code: 'ERR_ABORTED' });
        expect(end.cause).to.be.an('error').with.property('message', 'enough');
      }
      expect(aborted).to.be.above(0);
      await call(new AbortController().signal); // the model goes on
    });
  }

  it('that ends work which is already queued is named by every read: of its results, and of what is computed from them', async () => {
    const controller = new AbortController();
    const n = 30; // of 17 rows each: one run, so that the call ends when it is queued
    const pixels = { pixels: new Float32Array(n * 3 * size * size), shape: [n, 3, size, size] };
    const pending = Array.from({ length: 3 }, () => clip.encodeImage(pixels, { signal: controller.signal }));
    controller.abort(new Error('enough')); // the second waits for the first
    const features = (await Promise.all(pending)).at(-1)!;
    const computed = ops.l2Normalize(features);
    for (const tensor of [features, computed]) {
      const error = await expectError(() => tensor.read(), 'ERR_ABORTED');
      expect(error.cause).to.be.an('error').with.property('message', 'enough');
      tensor.dispose();
    }
    for (const tensor of await Promise.all(pending)) tensor.dispose();
  });

  it('classify() rejects, and leaves the classifier usable', async () => {
    const classifier = new ZeroShotClassifier(clip, ['rocket', 'cat']);
    await expectError(() => classifier.classify(jpeg, { signal: AbortSignal.abort() }), 'ERR_ABORTED');
    const controller = new AbortController();
    const result = classifier.classify(jpeg, { signal: controller.signal });
    controller.abort();
    await expectError(() => result, 'ERR_ABORTED');
    expect((await classifier.classify(jpeg)).scores).to.have.length(2);
    classifier.dispose();
  });

  it('that serves a thousand calls is listened to by a few', async () => {
    const { signal } = new AbortController();
    const pixels = { pixels: new Float32Array(3 * size * size), shape: [1, 3, size, size] };
    for (let i = 0; i < 300; i++) (await clip.encodeImage(pixels, { signal })).dispose();
    for (let i = 0; i < 20; i++) {
      (await clip.encodeImage(jpeg, { signal })).dispose();
      (await clip.encodeText('a rocket', { signal })).dispose();
    }
    expect(getEventListeners(signal, 'abort').length).to.be.below(4);
  });
});

describe('dispose()', () => {
  const load = () => CLIP.fromPretrained(undefined, { device: 'cpu' });

  it('of a model: later calls are errors, all of them', async () => {
    const model = await load();
    const classifier = new ZeroShotClassifier(model, ['rocket', 'cat']);
    await classifier.ready;
    model.dispose();
    model.dispose();
    const message = 'the model was used after dispose()';
    await expectError(() => model.encodeImage(jpeg), 'ERR_DISPOSED', message);
    await expectError(
      () => model.encodeImage({ pixels: new Float32Array(3 * size * size), shape: [1, 3, size, size] }),
      'ERR_DISPOSED',
      message,
    );
    await expectError(() => model.encodeText('a rocket'), 'ERR_DISPOSED', message);
    await expectError(() => model.encodeText({ inputIds: [[1, 2999]] }), 'ERR_DISPOSED', message);
    await expectError(() => model.forward(jpeg, 'a rocket'), 'ERR_DISPOSED', message);
    await expectError(() => model.similarity(jpeg, 'a rocket'), 'ERR_DISPOSED', message);
    await expectError(() => model.memoryUsage(), 'ERR_DISPOSED', message);
    await expectError(() => model.warmup(), 'ERR_DISPOSED', message);
    await expectError(() => classifier.classify(jpeg), 'ERR_DISPOSED', message);
    await expectError(() => new ZeroShotClassifier(model, ['rocket']).ready, 'ERR_DISPOSED', message);
    classifier.dispose();
    classifier.dispose();
    await expectError(() => classifier.classify(jpeg), 'ERR_DISPOSED', 'the classifier was used after dispose()');
  });

  it('of a model with work in flight: what is queued is computed, what is not yet is an error', async () => {
    const wanted = await numbersOf(clip.encodeText({ inputIds: [[1, 5, 2999]] }));
    for (let turns = 1; turns <= 12; turns++) {
      const model = await load();
      const queued = Array.from({ length: 20 }, () => numbersOf(model.encodeText({ inputIds: [[1, 5, 2999]] })));
      const later = [model.encodeImage(jpeg), model.encodeText('a rocket')].map((result) =>
        numbersOf(result).then(
          () => 'done',
          ({ code }) => code,
        ),
      );
      for (let i = 0; i < turns; i++) await nextTurn();
      model.dispose();
      for (const numbers of await Promise.all(queued)) expect(numbers).to.deep.equal(wanted);
      for (const end of await Promise.all(later)) expect(end).to.be.oneOf(['done', 'ERR_DISPOSED']);
    }
  });

  it('of a classifier and its model while it classifies', async () => {
    for (let turns = 0; turns < 8; turns++) {
      const model = await load();
      const classifier = new ZeroShotClassifier(model, ['rocket', 'cat']);
      const result = classifier.classify([jpeg, jpeg]).then(
        ({ length }) => length,
        ({ code }) => code,
      );
      for (let i = 0; i < turns; i++) await nextTurn();
      classifier.dispose();
      model.dispose();
      expect(await result).to.be.oneOf([2, 'ERR_DISPOSED']);
    }
  });
});

describe('a failure on the device', () => {
  it('reaches everything that depends on it, nothing else, and needs no reader', async () => {
    const wide = Tensor.from(new Float32Array(1 << 20), [1 << 20, 1]);
    const broken = ops.scaledLogits(wide, wide, 0); // 4 TiB
    const program = device('cpu').compile((x) => ops.softmax(x as Tensor<'float32'>), [{ shape: [1 << 20, 1 << 20] }]);
    const after = await program.run([broken]);
    const last = ops.argmax(after as Tensor<'float32'>);
    for (const tensor of [last, after, broken]) await expectError(() => tensor.read(), 'ERR_OUT_OF_MEMORY', /^scaledLogits/);
    ops.softmax(broken).dispose(); // nobody reads it
    expect((await numbersOf(clip.encodeText('a rocket'))).every(Number.isFinite)).to.equal(true);
    for (const tensor of [wide, broken, after, last]) tensor.dispose();
    program.dispose();
  });
});
