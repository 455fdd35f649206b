import { expect } from 'chai';
import { device, dim, ops, Tensor } from '../../lib';
import { expectError } from '../support/errors';

const numbersOf = async (tensor: Tensor): Promise<number[]> => [...(await tensor.read())];

describe('ops.add, multiply and maximum', () => {
  const x = Tensor.from([1, -2, 3, 4, -5, 6], [2, 3]);

  it('take y of the shape of x, one row, or one number for each row', async () => {
    expect(await numbersOf(ops.maximum(x, Tensor.from([0, 0, 4, 5, -6, 6], [2, 3])))).to.deep.equal([1, 0, 4, 5, -5, 6]);
    expect(await numbersOf(ops.multiply(x, Tensor.from([1, 2, 3], [3])))).to.deep.equal([1, -4, 9, 4, -10, 18]);
    expect(await numbersOf(ops.multiply(x, Tensor.from([10, -1], [2, 1])))).to.deep.equal([10, -20, 30, -4, 5, -6]);
    expect(await numbersOf(ops.add(x.reshape([1, 2, 3]), Tensor.from([1, 2], [1, 2, 1])))).to.deep.equal([2, -1, 4, 6, -3, 8]);
  });

  it('maximum lets no NaN go', async () => {
    const [a, b] = [Tensor.from([Number.NaN, 1, 2], [1, 3]), Tensor.from([1, Number.NaN, 1], [1, 3])];
    expect(await numbersOf(ops.maximum(a, b))).to.deep.equal([Number.NaN, Number.NaN, 2]);
    expect(await numbersOf(ops.maximum(a, Tensor.from([Number.NaN], [1, 1])))).to.deep.equal(Array(3).fill(Number.NaN));
  });

  it('follow a batch that varies', async () => {
    const program = device('cpu').compile(
      (features, weights) => ops.multiply(features as Tensor<'float32'>, weights as Tensor<'float32'>),
      [{ shape: [dim('n', 4), 3] }, { shape: [dim('n', 4), 1] }],
    );
    const y = await program.run([x, Tensor.from([2, 3], [2, 1])]);
    expect(await numbersOf(y)).to.deep.equal([2, -4, 6, 12, -15, 18]);
  });

  it('refuse another shape', async () => {
    await expectError(
      () => ops.maximum(x, Tensor.from([1, 2, 3, 4], [4])),
      'ERR_SHAPE',
      'maximum: y must have the shape of x, or be one of its rows, or have one number for each row: [..., 1]: x is [2, 3], y is [4]',
    );
    await expectError(() => ops.add(x, Tensor.from([1, 2], [2])), 'ERR_SHAPE');
  });
});
