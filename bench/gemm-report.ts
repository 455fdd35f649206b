// The table of bench:gemm, from what bench/gemm.cpp prints: an object a line.
import { markdown } from './report';
import { geometricMean, median } from './statistics';

export interface GemmDevice {
  readonly kind: 'device';
  readonly name: string;
  readonly dtype: string;
  readonly multiprocessors: number;
  readonly l2Bytes: number;
  /** 0: not found */
  readonly cublas: number;
  readonly copyBytes: number;
  readonly differenceLimit: number;
  readonly copyUs: readonly number[];
  readonly emptyNodeUs: readonly number[];
}

export interface GemmRow {
  readonly kind: 'row';
  /** Its place in the table. */
  readonly index: number;
  readonly model: string;
  readonly part: string;
  readonly size: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly kernel: string;
  readonly copies: number;
  readonly products: number;
  /** Algorithms of cuBLASLt that were tried. */
  readonly candidates: number;
  /** ‖ours − theirs‖ / ‖theirs‖, the larger of both libraries' */
  readonly difference: number;
  /** Of one product, by rounds. */
  readonly us: {
    readonly warpsight: readonly number[];
    readonly cublas?: readonly number[];
    readonly cublasLt?: readonly number[];
  };
}

/** Of --tiles: µs of each tile and split by its name, and the name of the chosen one with its dtype. */
export interface GemmTiles extends Pick<GemmRow, 'model' | 'part' | 'size' | 'M' | 'N' | 'K'> {
  readonly kind: 'tiles';
  readonly chosen: string;
  readonly us: Readonly<Record<string, readonly number[]>>;
}

export interface GemmEnd {
  readonly kind: 'end';
  readonly seconds: number;
  /** Rows whose outputs differed, or that could not be run. */
  readonly failed: number;
  readonly notMeasured: number;
}

export type GemmLine = GemmDevice | GemmRow | GemmTiles | GemmEnd;

export interface Peaks {
  /** Bytes and operations per second; µs */
  readonly bandwidth: number;
  readonly flops: number;
  readonly emptyNodeUs: number;
}

const kBytes = 2; // of an element, in both dtypes
const flopsOf = ({ M, N, K }: GemmRow) => 2 * M * N * K;
const bytesOf = ({ M, N, K }: GemmRow) => kBytes * (M * K + N * K + M * N);

/** Bytes per second: a copy reads and writes each byte. */
export function copyBandwidthOf({ copyBytes, copyUs }: GemmDevice): number {
  return (2 * copyBytes * 1e6) / median(copyUs);
}

/** What the run itself saw at best: a copy, and the fastest product of any side. */
export function peaksOf(device: GemmDevice, rows: readonly GemmRow[]): Peaks {
  const fastest = rows.flatMap((row) => Object.values(row.us).map((us: readonly number[]) => flopsOf(row) / median(us)));
  return {
    bandwidth: copyBandwidthOf(device),
    flops: Math.max(...fastest) * 1e6,
    emptyNodeUs: median(device.emptyNodeUs),
  };
}

/** The time that bandwidth and arithmetic allow, in µs. */
function roofline(row: GemmRow, { bandwidth, flops }: Peaks): number {
  return 1e6 * Math.max(flopsOf(row) / flops, bytesOf(row) / bandwidth);
}

/** Large weights and few rows: what an encoder and a decoder spend their time on. */
const isLarge = ({ M, N, K }: GemmRow) => M <= 577 && kBytes * N * K >= 8e6;

export function gemmTable(device: GemmDevice, measured: readonly GemmRow[]): string {
  const rows = [...measured].sort((a, b) => a.index - b.index);
  const peaks = peaksOf(device, rows);
  const us = (values: readonly number[] | undefined) => (values ? median(values).toFixed(2) : '-');
  const cells = rows.map((row) => {
    const ours = median(row.us.warpsight);
    const { cublasLt } = row.us;
    return [
      [row.model, row.part, row.size].filter(Boolean).join(', '),
      `${row.M} x ${row.N} x ${row.K}`,
      row.kernel,
      us(row.us.warpsight),
      us(row.us.cublas),
      cublasLt ? `${us(cublasLt)} (${row.candidates})` : '-',
      (flopsOf(row) / ours / 1e6).toFixed(1),
      (bytesOf(row) / ours / 1e3).toFixed(0),
      `${((100 * roofline(row, peaks)) / ours).toFixed(0)} %`,
      cublasLt ? (median(cublasLt) / ours).toFixed(2) : '-',
    ];
  });
  const columns = [
    'product',
    'M x N x K',
    'kernel',
    'µs',
    'cuBLAS µs',
    'cuBLASLt µs (tried)',
    'TFLOP/s',
    'GB/s',
    'of the roofline',
  ];
  return `${markdown([...columns, 'cuBLASLt ÷ ours'], cells)}\n\n${summary(rows, peaks).join('\n')}`;
}

/** What the choice of the tile costs: the chosen one beside the fastest. A kernel of another table (a few rows) has no time here. */
export function tilesTable(rows: readonly GemmTiles[]): string {
  const ratios: number[] = [];
  const cells = rows.map(({ model, part, size, M, N, K, chosen, us }) => {
    const times = Object.entries(us).map(([name, values]) => [name, median(values)] as const);
    const [fastest, best] = times.reduce((a, b) => (b[1] < a[1] ? b : a));
    const mine = us[chosen.replace(/<.*/, '')];
    if (mine) ratios.push(best / median(mine));
    return [
      [model, part, size].filter(Boolean).join(', '),
      `${M} x ${N} x ${K}`,
      chosen,
      mine ? median(mine).toFixed(2) : '-',
      fastest,
      best.toFixed(2),
      mine ? (best / median(mine)).toFixed(2) : '-',
    ];
  });
  const columns = ['product', 'M x N x K', 'chosen', 'µs', 'fastest', 'µs', 'fastest ÷ chosen'];
  const mean = ratios.length > 0 ? geometricMean(ratios).toFixed(3) : '-';
  return `${markdown(columns, cells)}\n\nGeometric mean, fastest ÷ chosen over ${ratios.length} rows: ${mean}`;
}

function summary(rows: readonly GemmRow[], peaks: Peaks): string[] {
  const lines = [
    `Measured in this run: a copy moves ${(peaks.bandwidth / 1e9).toFixed(0)} GB/s, the fastest product computes ${(peaks.flops / 1e12).toFixed(1)} TFLOP/s, an empty node takes ${peaks.emptyNodeUs.toFixed(2)} µs.`,
  ];
  const large = rows.filter(isLarge);
  if (large.length > 0) {
    const shares = large.map((row) => (roofline(row, peaks) + peaks.emptyNodeUs) / median(row.us.warpsight));
    const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
    lines.push(
      `Weights of 8 MB and more at M <= 577 (${large.length} rows): (roofline + empty node) ÷ time is ${percent(geometricMean(shares))} in the geometric mean, at least ${percent(Math.min(...shares))}.`,
    );
  }
  for (const [key, name] of [
    ['cublas', 'cuBLAS'],
    ['cublasLt', "cuBLASLt's best"],
  ] as const) {
    const compared = rows.filter((row) => row.us[key] !== undefined);
    if (compared.length === 0) continue;
    const mean = geometricMean(compared.map(({ us }) => median(us[key]!) / median(us.warpsight)));
    lines.push(`Geometric mean, ${name} ÷ ours over ${compared.length} rows: ${mean.toFixed(3)}`);
  }
  return lines;
}
