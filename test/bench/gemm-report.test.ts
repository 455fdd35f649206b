import { expect } from 'chai';
import { type GemmDevice, type GemmRow, type GemmTiles, gemmTable, peaksOf, tilesTable } from '../../bench/gemm-report';
import { geometricMean, median, quantile } from '../../bench/statistics';

const device: GemmDevice = {
  kind: 'device',
  name: 'a GPU',
  dtype: 'float16',
  multiprocessors: 100,
  l2Bytes: 1 << 20,
  cublas: 1,
  copyBytes: 1e9,
  differenceLimit: 1e-3,
  copyUs: [1000, 500, 400],
  emptyNodeUs: [1, 1, 1],
};

const row = (index: number, M: number, N: number, K: number, us: GemmRow['us']): GemmRow => ({
  kind: 'row',
  index,
  model: 'model',
  part: `part ${index}`,
  size: '',
  M,
  N,
  K,
  kernel: 'gemm',
  copies: 2,
  products: 8,
  candidates: 5,
  difference: 0,
  us,
});

/** 1e12 operations and 3 · 2e8 bytes: bound by arithmetic. 2.001e8 · 4 operations, 4e8 bytes: bound by bandwidth. */
const square = row(1, 1e4, 1e4, 5e3, { warpsight: [2000], cublas: [1000], cublasLt: [1000] });
const vector = row(0, 1, 2e4, 1e4, { warpsight: [200, 210, 190], cublas: [100], cublasLt: [800] });

describe('the table of bench:gemm', () => {
  it('takes its peaks from the run: a copy moves each byte twice, and any side may be the fastest', () => {
    const { bandwidth, flops, emptyNodeUs } = peaksOf(device, [square, vector]);
    expect(bandwidth).closeTo(2e9 / 500e-6, 1);
    expect(flops).closeTo(1e12 / 1000e-6, 1e3);
    expect(emptyNodeUs).equal(1);
  });

  it('has its rows in the order of the table, whatever order they were measured in', () => {
    const lines = gemmTable(device, [square, vector]).split('\n');
    expect(lines[2]).contain('part 0');
    expect(lines[3]).contain('part 1');
  });

  it('says µs, TFLOP/s, GB/s, share of the roofline and the ratio of medians', () => {
    const [, , first, second] = gemmTable(device, [square, vector]).split('\n');
    // 4.0006e8 bytes in 200 µs, of 4 TB/s; 4e8 operations
    expect(first).equal('| model, part 0 | 1 x 20000 x 10000 | gemm | 200.00 | 100.00 | 800.00 (5) | 2.0 | 2000 | 50 % | 4.00 |');
    expect(second).equal(
      '| model, part 1 | 10000 x 10000 x 5000 | gemm | 2000.00 | 1000.00 | 1000.00 (5) | 500.0 | 200 | 50 % | 0.50 |',
    );
  });

  it('ends with the geometric means, and counts a node for the large weights only', () => {
    const text = gemmTable(device, [square, vector]);
    expect(text).match(/\n\nMeasured in this run: a copy moves 4000 GB\/s, the fastest product computes 1000\.0 TFLOP\/s/);
    // (100.015 + 1) / 200
    expect(text).contain('(1 rows): (roofline + empty node) ÷ time is 51 % in the geometric mean, at least 51 %');
    expect(text).contain('cuBLAS ÷ ours over 2 rows: 0.500');
    expect(text).match(/cuBLASLt's best ÷ ours over 2 rows: 1\.414$/);
  });

  it('does without rivals', () => {
    const text = gemmTable(device, [row(0, 8, 8, 8, { warpsight: [3] })]);
    expect(text).contain('| 3.00 | - | - |');
    expect(text).not.contain('÷ ours over');
  });
});

describe('statistics of the benches', () => {
  it('take quantiles by rank', () => {
    const values = Array.from({ length: 101 }, (_, i) => 100 - i);
    expect([0, 0.5, 0.99, 1].map((q) => quantile(values, q))).deep.equal([0, 50, 99, 100]);
    expect(median([3, 1, 2])).equal(2);
    expect(() => median([])).throw('no values');
  });

  it('take the mean of ratios geometrically', () => {
    expect(geometricMean([4, 0.25])).closeTo(1, 1e-12);
    expect(geometricMean([2, 8])).closeTo(4, 1e-12);
  });
});

describe('the table of bench:gemm --tiles', () => {
  const size = { kind: 'tiles', model: 'model', part: 'fc1', size: '', M: 50, N: 3072, K: 768 } as const;
  const tiles = (chosen: string): GemmTiles => ({
    ...size,
    chosen,
    us: { gemm_a: [4, 5, 6], gemm_b_split2: [2, 9, 3], gemm_c: [8] },
  });

  it('has the chosen tile beside the fastest, and how much is lost in the mean', () => {
    const lines = tilesTable([tiles('gemm_a<half>'), tiles('gemm_b_split2<half>')]).split('\n');
    expect(lines[2]).contain('| gemm_a<half> | 5.00 | gemm_b_split2 | 3.00 | 0.60 |');
    expect(lines[3]).contain('| gemm_b_split2<half> | 3.00 | gemm_b_split2 | 3.00 | 1.00 |');
    expect(lines.at(-1)).equal('Geometric mean, fastest ÷ chosen over 2 rows: 0.775');
  });

  it('has no time for a kernel that is not of the table', () => {
    expect(
      tilesTable([tiles('gemv_rows<half>')])
        .split('\n')
        .at(-1),
    ).equal('Geometric mean, fastest ÷ chosen over 0 rows: -');
  });
});
