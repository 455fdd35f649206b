import { expect } from 'chai';
import { ops, Tensor, WarpsightError, Weight } from '../../lib';
import { describeLanguageOps } from './language';

describeLanguageOps('cpu', 'float32');

describe('operations of language models', () => {
  it('linear with siluGate wants a weight of gate and up, and no residual', () => {
    const x = Tensor.from(new Float32Array(8), [2, 4]);
    const weight = (rows: number) => Weight.matrix(new Float32Array(rows * 4), [rows, 4]);
    const gated = (w: Weight<'matrix'> | Tensor<'float32'>, residual?: Tensor<'float32'>) =>
      ops.linear(x, w, { activation: 'siluGate', residual });
    const rule = 'linear: siluGate takes a Weight [2·N, K] of gate and up, and no residual: weight is';
    expect(() => gated(weight(5))).to.throw(WarpsightError, `${rule} [5, 4]`);
    expect(() => gated(Tensor.from(new Float32Array(8), [2, 4]))).to.throw(WarpsightError, `${rule} [2, 4]`);
    expect(() => gated(weight(6), Tensor.from(new Float32Array(6), [2, 3]))).to.throw(WarpsightError, `${rule} [6, 4]`);
  });

  it('ropeAppend names what does not fit', () => {
    const x = Tensor.from(new Float32Array(2 * 4 * 6), [2, 4, 6]);
    const append = (rows: number, width: number, kvHeads = 1) =>
      ops.ropeAppend(
        x,
        Tensor.from(Int32Array.of(0, 1), [2]),
        [1, 1, 1],
        Tensor.from(new Int32Array(rows), [rows]),
        Tensor.from(new Float32Array(3 * width), [3, width]),
        { heads: 2, kvHeads },
      );
    const rule = (kv: number) =>
      `ropeAppend: x must be [T, ${2 + 2 * kv}, d] with d even, and cache [R, ${2 * kv}·d]: x is [2, 4, 6], cache is`;
    expect(() => append(2, 13)).to.throw(WarpsightError, `${rule(1)} [3, 13]`);
    expect(() => append(2, 24, 2)).to.throw(WarpsightError, `${rule(2)} [3, 24]`);
    expect(() => append(3, 12)).to.throw(
      WarpsightError,
      'ropeAppend: positions and rows must have one number for each token of x: x is [2, 4, 6], positions is [2], rows is [3]',
    );
  });
});
