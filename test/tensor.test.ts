import { runInNewContext } from 'node:vm';
import { expect } from 'chai';
import { ops, scope, Tensor } from '../lib';
import { expectError } from './support/errors';

describe('Tensor', () => {
  it('gives back what it was made of', async () => {
    expect(await Tensor.from([1, 2, 3, 4, 5, 6], [2, 3]).read()).to.deep.equal(Float32Array.of(1, 2, 3, 4, 5, 6));
    expect(await Tensor.from(Int32Array.of(-1, 7), [2]).read()).to.deep.equal(Int32Array.of(-1, 7));
    expect(await Tensor.from(Uint8Array.of(0, 255), [2, 1]).read()).to.deep.equal(Uint8Array.of(0, 255));
    expect(await Tensor.from([], [0, 4]).read()).to.deep.equal(new Float32Array(0));
    expect(await Tensor.from([42], []).read()).to.deep.equal(Float32Array.of(42));
  });

  it('widens 16-bit floats exactly: normal, subnormal, infinite, NaN', async () => {
    const half = Uint16Array.of(0x3c00, 0x0001, 0x83ff, 0x7c00, 0xfc00, 0x7e00, 0x7bff, 0x8000);
    const wide = await Tensor.from(half, [8], { dtype: 'float16' }).read();
    expect([...wide]).to.deep.equal([1, 2 ** -24, -1023 * 2 ** -24, Infinity, -Infinity, NaN, 65504, -0]);
    const brain = Uint16Array.of(0x3f80, 0x4049, 0xff80);
    expect([...(await Tensor.from(brain, [3], { dtype: 'bfloat16' }).read())]).to.deep.equal([1, 3.140625, -Infinity]);
  });

  it('copies: the array may change after the call', async () => {
    const data = Float32Array.of(1, 2);
    const tensor = Tensor.from(data, [2]);
    data.fill(9);
    expect([...(await tensor.read())]).to.deep.equal([1, 2]);
  });

  it('takes arrays of another realm and shared memory', async () => {
    const foreign: Float32Array = runInNewContext('new Float32Array([1, 2, 3, 4])');
    expect([...(await Tensor.from(foreign, [4]).read())]).to.deep.equal([1, 2, 3, 4]);
    const shared = new Float32Array(new SharedArrayBuffer(8));
    shared.set([5, 6]);
    expect([...(await Tensor.from(shared, [2]).read())]).to.deep.equal([5, 6]);
  });

  it('refuses a buffer that was transferred away', async () => {
    const data = new Float32Array(4);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    await expectError(() => Tensor.from(data, [4]), 'ERR_SHAPE', 'Tensor.from: the data has 0 elements, the shape [4] needs 4');
  });

  it('refuses lengths, shapes and dtypes that disagree', async () => {
    await expectError(
      () => Tensor.from([1, 2, 3], [2, 2]),
      'ERR_SHAPE',
      'Tensor.from: the data has 3 elements, the shape [2, 2] needs 4',
    );
    await expectError(() => Tensor.from([1], [-1]), 'ERR_SHAPE', 'a shape is at most 6 whole numbers >= 0: it is [-1]');
    await expectError(() => Tensor.from([1], [1.5]), 'ERR_SHAPE');
    await expectError(() => Tensor.from(new Uint16Array(1), [1]), 'ERR_DTYPE', /float16 or bfloat16/);
    await expectError(() => Tensor.from(new Float64Array(1) as unknown as Float32Array, [1]), 'ERR_DTYPE', /Float64Array/);
    await expectError(() => Tensor.from(new Float32Array(1), [1], { dtype: 'int32' }), 'ERR_DTYPE');
    await expectError(() => Tensor.from([1], [1], { device: 'tpu' }), 'ERR_DEVICE', /unknown device "tpu"/);
  });

  it('reads rows, and large tensors more than once', async () => {
    const rows = await Tensor.from([1, 2, 3, 4], [2, 2]).rows();
    expect(rows.map((row) => [...row])).to.deep.equal([
      [1, 2],
      [3, 4],
    ]);
    const large = Tensor.from(new Float32Array(300_000).fill(3), [300_000]); // above what is copied: an external buffer
    const [first, second] = await Promise.all([large.read(), large.read()]);
    first.fill(0);
    expect(second[299_999]).to.equal(3);
  });

  it('is disposed safely: again, while in use, and by scope()', async () => {
    const x = Tensor.from([1, -2, 3], [1, 3]);
    const y = ops.activate(x, 'relu');
    x.dispose();
    x.dispose();
    expect([...(await y.read())]).to.deep.equal([1, 0, 3]);
    await expectError(() => x.read(), 'ERR_DISPOSED', 'a tensor [1, 3] float32 was used after dispose()');
    await expectError(() => ops.softmax(x), 'ERR_DISPOSED');

    let inner: Tensor | undefined;
    const kept = scope(() => {
      inner = Tensor.from([1, 2], [1, 2]);
      return ops.softmax(inner as Tensor<'float32'>);
    });
    expect(inner!.disposed).to.equal(true);
    expect((await kept.read()).length).to.equal(2);
  });

  it('reshapes without a copy; each handle is disposed by itself', async () => {
    const x = Tensor.from([1, 2, 3, 4, 5, 6], [2, 3]);
    const y = x.reshape([3, 2]);
    x.dispose();
    expect((await y.rows()).length).to.equal(3);
    await expectError(() => y.reshape([4, 2]), 'ERR_SHAPE', "reshape: [3, 2] can't become [4, 2]");
  });

  it('a failure later is inherited by what depends on it, and names its first cause', async () => {
    const x = Tensor.from([1], [1, 1]);
    const wide = Tensor.from(new Float32Array(1 << 20), [1 << 20, 1]);
    const outer = ops.scaledLogits(wide, wide, 0); // 4 TiB
    const after = ops.softmax(outer);
    await expectError(() => after.read(), 'ERR_OUT_OF_MEMORY', /scaledLogits/);
    await expectError(() => outer.read(), 'ERR_OUT_OF_MEMORY');
    expect((await ops.softmax(x).read())[0]).to.equal(1); // the device goes on
  });
});
