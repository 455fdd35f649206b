import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { counters, device, dim, ops, scope, Tensor, Weight } from '../lib';
import { boundOf } from '../lib/roofline';
import { expectError } from './support/errors';
import { expectClose, normal } from './support/numbers';

interface TraceEvent {
  readonly name: string;
  readonly ts: number;
  readonly dur: number;
  readonly args: { readonly kernel?: string };
}

const K = 24;
const N = 40;
const weight = () => Weight.matrix(normal(N * K, 1), [N, K]);

/** act(x·Wᵀ) in float64 */
function reference(x: Float32Array, w: Float32Array): Float64Array {
  const rows = x.length / K;
  const out = new Float64Array(rows * N);
  for (let r = 0; r < rows; r++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += x[r * K + k]! * w[n * K + k]!;
      out[r * N + n] = Math.max(sum, 0);
    }
  }
  return out;
}

describe('Program', () => {
  it('replays a traced function with one native call', async () => {
    const w = weight();
    const program = device('cpu').compile(
      (x) => ops.linear(x as Tensor<'float32'>, w, { activation: 'relu' }),
      [{ shape: [3, K] }],
    );
    expect(program.steps.map(({ op }) => op)).to.deep.equal(['linear']);
    expect(program.steps[0]!.kernel).to.match(/^gemm_/);
    expect(program.steps[0]!.flops).to.equal(2 * 3 * N * K);
    const x = normal(3 * K, 2);
    const before = counters().calls;
    const y = await program.run([x]);
    expect(counters().calls - before).to.equal(1);
    expect(y.shape).to.deep.equal([3, N]);
    expectClose(await y.read(), reference(x, normal(N * K, 1)), 1e-5);
  });

  it('serves all sizes of a bucket, with the bits of each size alone', async () => {
    const w = weight();
    const fn = (x: Tensor) => ops.softmax(ops.linear(x as Tensor<'float32'>, w));
    const program = device('cpu').compile(fn, [{ shape: [dim('n', 8), K] }]);
    for (const n of [0, 1, 3, 8]) {
      const x = normal(n * K, 3 + n);
      const y = await program.run([x]);
      expect(y.shape).to.deep.equal([n, N]);
      const eager = fn(Tensor.from(x, [n, K]));
      expect(await y.read()).to.deep.equal(await eager.read());
    }
    await expectError(() => program.run([normal(9 * K, 1)]), 'ERR_ARGUMENT', 'a size must be an integer from 0 to 8');
    await expectError(() => program.run([normal(K + 1, 1)]), 'ERR_SHAPE', /the size "n" must be a whole number/);
    await expectError(() => program.run([]), 'ERR_ARGUMENT', 'the program takes 1 inputs, 0 were given');
  });

  it('gives the bits of its operations one by one, whoever reads what lies between', async () => {
    const heads = 2;
    for (const width of [32, 24]) {
      const vector = (seed: number) => Weight.vector(normal(width, seed));
      const matrix = (rows: number, columns: number, seed: number) =>
        Weight.matrix(normal(rows * columns, seed), [rows, columns]);
      const norm = vector(1);
      const qkv = matrix(3 * width, width, 2);
      const out = matrix(width, width, 3);
      const up = matrix(4 * width, width, 4);
      const down = matrix(width, 4 * width, 5);
      const layer = (x: Tensor<'float32'>, segments: Tensor<'int32'>, returned: boolean) => {
        const rows = ops.linear(ops.layerNorm(x, norm), qkv);
        const seen = ops.attentionRows(rows, rows, rows, {
          heads,
          headWidth: width / heads,
          offsets: [0, width, 2 * width],
          segments,
          maxQueries: 64,
          maxKeys: 64,
        });
        const { y, sum } = ops.addLayerNorm(ops.linear(seen, out), x, norm);
        const hidden = ops.linear(ops.rmsNorm(y, norm), up, { activation: 'quickGelu' });
        const result = ops.linear(hidden, down, { residual: sum });
        return returned ? [result, seen, hidden] : [result];
      };
      for (const returned of [false, true]) {
        const program = device('cpu').compile(
          (x, segments) => layer(x as Tensor<'float32'>, segments as Tensor<'int32'>, returned),
          [{ shape: [dim('n', 64), width] }, { shape: [2, 6], dtype: 'int32' }],
        );
        for (const n of [1, 2, 13, 14, 15, 33, 50, 64]) {
          const x = normal(n * width, n);
          const first = Math.ceil(n / 2);
          // the second of them sees keys that are not there, in every other size: its rows are NaN
          const segments = Int32Array.of(0, first, 0, first, 0, 0, first, n - first, n % 2 ? 1000 : 0, n, 0, 0);
          const results = await program.run([x, segments]);
          const eager = layer(Tensor.from(x, [n, width]), Tensor.from(segments, [2, 6]), returned);
          for (const [i, tensor] of results.entries()) expect(await tensor.read()).to.deep.equal(await eager[i]!.read());
        }
      }
    }
  });

  it('returns what the function returns: one tensor, an array, an object', async () => {
    const both = (x: Tensor) => ops.topK(x as Tensor<'float32'>, 2);
    const program = device('cpu').compile(both, [{ shape: [1, 4] }]);
    const { values, indices } = await program.run([Float32Array.of(1, 4, 2, 3)]);
    expect([...(await values.read())]).to.deep.equal([4, 3]);
    expect([...(await indices.read())]).to.deep.equal([1, 3]);
    const list = device('cpu').compile(
      (x) => [ops.softmax(x as Tensor<'float32'>), ops.argmax(x as Tensor<'float32'>)],
      [{ shape: [1, 2] }],
    );
    const [, best] = await list.run([Float32Array.of(0, 1)]);
    expect([...(await best!.read())]).to.deep.equal([1]);
  });

  it('writes into tensors that were given with out', async () => {
    const program = device('cpu').compile((x) => ops.activate(x as Tensor<'float32'>, 'relu'), [{ shape: [4] }]);
    const out = Tensor.from([9, 9, 9, 9], [4]);
    await program.run([Float32Array.of(-1, 2, -3, 4)], { out: [out] });
    expect([...(await out.read())]).to.deep.equal([0, 2, 0, 4]);
    await program.run([Float32Array.of(5, -6, 7, -8)], { out: [out] });
    expect([...(await out.read())]).to.deep.equal([5, 0, 7, 0]);
    await expectError(() => program.run([new Float32Array(4)], { out: [Tensor.from([1], [1])] }), 'ERR_SHAPE', /out 0 is \[1\]/);
    await expectError(() => program.run([out], { out: [out] }), 'ERR_ARGUMENT', 'out must not be an input of the same run');
  });

  it('copies arrays before the call returns, each into memory of its own while it is under way', async () => {
    const size = 300_000;
    const program = device('cpu').compile((x) => ops.activate(x as Tensor<'float32'>, 'relu'), [{ shape: [dim('n', size)] }]);
    for (let round = 0; round < 3; round++) {
      const array = new Float32Array(size);
      const runs = Array.from({ length: 12 }, (_, i) => {
        array.fill(i + 1);
        return program.run([array.subarray(0, size - i * 20_000)]);
      });
      array.fill(-1);
      for (const [i, run] of runs.entries()) {
        const y = await run;
        expect(
          (await y.read()).every((value) => value === i + 1),
          String(i),
        ).to.equal(true);
        y.dispose();
      }
    }
    program.dispose();
  });

  it('uses tensors that the function captured', async () => {
    const row = Tensor.from([10, 20], [2]);
    const program = device('cpu').compile((x) => ops.add(x as Tensor<'float32'>, row), [{ shape: [2, 2] }]);
    const y = await program.run([Float32Array.of(1, 2, 3, 4)]);
    expect([...(await y.read())]).to.deep.equal([11, 22, 13, 24]);
  });

  it('keeps the tensors that it made and disposed, once it has used them', async () => {
    const program = device('cpu').compile(
      (x) => scope(() => ops.add(x as Tensor<'float32'>, Tensor.from([10, 20], [2]))),
      [{ shape: [2, 2] }],
    );
    const y = await program.run([Float32Array.of(1, 2, 3, 4)]);
    expect([...(await y.read())]).to.deep.equal([11, 22, 13, 24]);
  });

  it('concat follows the tensor whose rows vary, wherever it stands', async () => {
    const zeros = Tensor.from(new Float32Array(4), [4, 1]);
    const program = device('cpu').compile((x) => ops.concat([zeros, x as Tensor<'float32'>]), [{ shape: [dim('n', 4), 2] }]);
    const y = await program.run([Float32Array.of(1, 2, 3, 4)]);
    expect(y.shape).to.deep.equal([2, 3]);
    expect([...(await y.read())]).to.deep.equal([0, 1, 2, 0, 3, 4]);
  });

  it('inherits a failure of its inputs', async () => {
    const wide = Tensor.from(new Float32Array(1 << 20), [1 << 20, 1]);
    const broken = ops.scaledLogits(wide, wide, 0).reshape([1 << 20, 1 << 20]);
    const program = device('cpu').compile((x) => ops.softmax(x as Tensor<'float32'>), [{ shape: [1 << 20, 1 << 20] }]);
    const y = await program.run([broken]);
    await expectError(() => y.read(), 'ERR_OUT_OF_MEMORY');
  });

  it('says what a step took', async () => {
    const program = device('cpu').compile((x) => ops.softmax(ops.softmax(x as Tensor<'float32'>)), [{ shape: [64, 64] }]);
    const steps = await program.profile([new Float32Array(64 * 64)]);
    expect(steps.map(({ op }) => op)).to.deep.equal(['softmax', 'softmax']);
    for (const { ms } of steps) expect(ms).to.be.at.least(0);
  });

  it('says how near a step comes to the peaks of the device', async () => {
    const peaks = await device('cpu').peaks();
    expect(peaks?.source).to.match(/^measured with \d+ threads: 64 MiB of weights for one row/);
    expect(peaks!.bandwidth).to.be.within(1e8, 1e13);
    for (const rate of [peaks!.float32, peaks!.float16, peaks!.int8]) expect(rate).to.be.within(1e8, 1e14);
    expect(await device('cpu').peaks(), 'measured once').to.equal(peaks);

    const w = Weight.matrix(normal(512 * 512, 1), [512, 512]);
    const program = device('cpu').compile((x) => ops.softmax(ops.linear(x as Tensor<'float32'>, w)), [{ shape: [256, 512] }]);
    const [linear, softmax] = await program.profile([normal(256 * 512, 2)]);
    expect(linear).to.include({ op: 'linear', shapes: '([256, 512], [512, 512], -, -)', flops: 2 * 256 * 512 * 512 });
    expect(softmax).to.include({ op: 'softmax', bytes: 2 * 4 * 256 * 512 });
    for (const step of [linear!, softmax!]) {
      const { bound, seconds } = boundOf(step, peaks!);
      expect(step.bound).to.equal(bound);
      expect(step.roofline).to.be.closeTo((1000 * seconds) / step.ms, 1e-9);
    }
  });

  it('is bound by what takes longer at the peaks: bytes, or operations at the rate of the dtype', () => {
    const peaks = { bandwidth: 1e9, float32: 1e10, float16: 1e11, int8: 1e12, source: 'a test' };
    const step = (kernel: string, flops: number, bytes: number) =>
      boundOf({ op: 'linear', kernel, flops, bytes, shapes: '' }, peaks);
    expect(step('gemm_simt<float>', 2e10, 1e9)).to.deep.equal({ bound: 'compute', seconds: 2 });
    expect(step('gemm_sm90_128x256<half>', 2e10, 1e9)).to.deep.equal({ bound: 'memory', seconds: 1 });
    expect(step('gemm_sm90_128x256<bf16>', 2e11, 1e9)).to.deep.equal({ bound: 'compute', seconds: 2 });
    expect(step('gemm_avx2_6x16', 2e10, 1e9)).to.deep.equal({ bound: 'compute', seconds: 2 });
    expect(step('gemm_bfloat16_amx_32x32', 2e11, 1e9)).to.deep.equal({ bound: 'compute', seconds: 2 });
    expect(step('gemm_int8_avx2_6x16', 2e12, 1e9)).to.deep.equal({ bound: 'compute', seconds: 2 });
  });

  it('writes a Chrome trace of a profile', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'warpsight-trace-'));
    const trace = join(folder, 'trace.json');
    const program = device('cpu').compile((x) => ops.argmax(ops.softmax(x as Tensor<'float32'>)), [{ shape: [64, 64] }]);
    try {
      const steps = await program.profile([new Float32Array(64 * 64)], { trace });
      const { traceEvents }: { traceEvents: TraceEvent[] } = JSON.parse(readFileSync(trace, 'utf8'));
      const [run, ...events] = traceEvents;
      expect(run).to.deep.include({ name: 'program', ph: 'X', pid: 'cpu', ts: 0 });
      expect(events.map(({ name }) => name)).to.deep.equal(['softmax', 'argmax']);
      expect(events.map(({ args }) => args.kernel)).to.deep.equal(steps.map(({ kernel }) => kernel));
      expect(events.map(({ dur }) => dur)).to.deep.equal(steps.map(({ ms }) => 1000 * ms));
      expect(events[1]!.ts, 'one after the other').to.equal(events[0]!.dur);
      expect(run!.dur).to.equal(events[1]!.ts + events[1]!.dur);

      const nowhere = { trace: join(folder, 'nowhere', 'trace.json') };
      const message = /^the trace cannot be written: ENOENT/;
      await expectError(() => program.profile([new Float32Array(64 * 64)], nowhere), 'ERR_ARGUMENT', message);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('profiles what fails with the error that a run has', async () => {
    const wide = Tensor.from(new Float32Array(1 << 20), [1 << 20, 1]);
    const program = device('cpu').compile(
      (x, y) => ops.scaledLogits(x as Tensor<'float32'>, y as Tensor<'float32'>, 0),
      [{ shape: [1 << 20, 1] }, { shape: [1 << 20, 1] }],
    );
    await expectError(() => program.profile([wide, wide]), 'ERR_OUT_OF_MEMORY');
  });

  it('refuses a function that returns its input, and use after dispose()', async () => {
    await expectError(
      () => device('cpu').compile((x) => x!, [{ shape: [1] }]),
      'ERR_ARGUMENT',
      /must return tensors that its operations made/,
    );
    const program = device('cpu').compile((x) => ops.softmax(x as Tensor<'float32'>), [{ shape: [1, 1] }]);
    program.dispose();
    program.dispose();
    await expectError(() => program.run([new Float32Array(1)]), 'ERR_DISPOSED', 'the program was used after dispose()');
  });

  it('plans shapes that can not work with a clear error at the call', async () => {
    await expectError(
      () =>
        ops.linear(
          Tensor.from(new Float32Array(2 * 77 * 512), [2, 77, 512]),
          Weight.matrix(new Float32Array(512 * 768), [512, 768]),
        ),
      'ERR_SHAPE',
      'linear: inner dimensions must agree: x is [2, 77, 512], weight is [512, 768]',
    );
  });

  it('aborts between steps', async () => {
    const controller = new AbortController();
    const program = device('cpu').compile(
      (x) => {
        let y = x as Tensor<'float32'>;
        for (let i = 0; i < 200; i++) y = ops.softmax(y);
        return y;
      },
      [{ shape: [512, 512] }],
    );
    const y = await program.run([new Float32Array(512 * 512)], { signal: controller.signal });
    controller.abort(new Error('enough'));
    await expectError(() => y.read(), 'ERR_ABORTED', /aborted/);
    await expectError(() => program.run([new Float32Array(512 * 512)], { signal: controller.signal }), 'ERR_ABORTED');
  });
});
