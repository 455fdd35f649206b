// Tables and plot of bench:cpu from its raw numbers.
import type { Bar, BarGroup } from './bar-plot';
import { cosine } from './clip-inputs';
import type { MultiplyAdds, Sample } from './cpu-work';
import { markdown } from './report';
import { median, quantile } from './statistics';

export type EngineName =
  | 'warpsight'
  | 'warpsight int8'
  | 'warpsight bfloat16'
  | 'warpsight alone'
  | 'onnxruntime'
  | 'onnxruntime int8'
  | 'PyTorch'
  | 'read';

export interface EngineResult extends Partial<Agreement> {
  /** One for each round, in milliseconds */
  readonly samples: readonly Sample[];
  /** How the work is given to a peer, where it has a choice: the fastest was taken. */
  readonly form?: string;
}

export interface CpuRow {
  readonly name: string;
  readonly kind: 'image' | 'products' | 'text' | 'int8' | 'bfloat16' | 'beside' | 'load';
  readonly threads: number;
  readonly cores: string;
  /** Multiply-adds twice, of one sample: those that ours executes in float32 */
  readonly flops?: number;
  /** Products or images in one sample: times are shown for one */
  readonly items: number;
  /** GFLOP/s of the FMA loop in each round: of the runs before and after ours */
  readonly peak: readonly number[];
  readonly engines: Readonly<Partial<Record<EngineName, EngineResult>>>;
  readonly multiplyAdds?: MultiplyAdds & { readonly executed: number };
  /** Milliseconds of the longest step of what runs beside */
  readonly longestStep?: number;
  /** Bytes, of some processes */
  readonly memory?: readonly { readonly peak: number; readonly weights: number }[];
  /** Engines that are not there, and why */
  readonly missing: Readonly<Partial<Record<EngineName, string>>>;
}

/** Of float32 results: sums of the same numbers in another order. Of our int8 and bfloat16: what the library states. */
export const kAgreement = { cosine: 1 - 1e-6, difference: 1e-4, int8Cosine: 0.995, bfloat16Cosine: 0.999 };

/** How near an engine's result is to ours. */
export interface Agreement {
  /** The least of two rows */
  readonly cosine: number;
  /** The largest, over the largest number */
  readonly difference: number;
}

/** NaN where the results have not as many numbers. @param rows of each result */
export function compare(ours: readonly number[], theirs: readonly number[], rows: number): Agreement {
  if (ours.length !== theirs.length) return { cosine: Number.NaN, difference: Number.NaN };
  const width = ours.length / rows;
  const cosines = Array.from({ length: rows }, (_, i) => {
    const [begin, end] = [i * width, (i + 1) * width];
    return cosine(ours.slice(begin, end), theirs.slice(begin, end));
  });
  const largest = ours.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const apart = ours.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs[i]!)), 0);
  return { cosine: cosines.reduce((least, value) => Math.min(least, value), 1), difference: apart / largest };
}

/** Whether a row counts; of onnxruntime's int8, whose accuracy is its own affair, nothing is asked but numbers. */
export function agrees(name: EngineName, { cosine, difference }: Agreement): boolean {
  if (name === 'warpsight int8') return cosine >= kAgreement.int8Cosine;
  if (name === 'warpsight bfloat16') return cosine >= kAgreement.bfloat16Cosine;
  if (name === 'onnxruntime int8') return Number.isFinite(cosine);
  return cosine >= kAgreement.cosine && difference <= kAgreement.difference;
}

/** Median and quartiles of `over` against `under`, sample by sample of the same round. */
export function ratios(over: readonly number[], under: readonly number[]): { median: number; low: number; high: number } {
  const each = over.map((value, i) => value / under[i]!);
  return { median: median(each), low: quantile(each, 0.25), high: quantile(each, 0.75) };
}

const ms = (engine: EngineResult) => engine.samples.map(([wall]) => wall);

/** Speed of an engine, by the flops that ours needs, as a share of the FMA loop in the same rounds. */
export function shareOfPeak({ flops, peak }: CpuRow, engine: EngineResult) {
  return ratios(
    ms(engine).map((wall) => flops! / wall / 1e6),
    peak,
  );
}

function timeCell(row: CpuRow, engine: EngineResult | undefined): string {
  if (!engine) return '-';
  const times = ms(engine).map((wall) => wall / row.items);
  const shown = (value: number) => value.toPrecision(4);
  return `${shown(median(times))} (${shown(quantile(times, 0.25))} to ${shown(quantile(times, 0.75))})`;
}

function ratioCell(over: EngineResult | undefined, under: EngineResult | undefined): string {
  return over && under ? ratios(ms(over), ms(under)).median.toFixed(2) : '-';
}

/** Computing time over time that passed: how many cores an engine really took. */
function coresUsed(engine: EngineResult | undefined): string {
  return engine ? median(engine.samples.map(([wall, cpu]) => cpu / wall)).toFixed(2) : '-';
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

/** "0.999999 / 1e-6": how far a peer's result is from ours */
function agreementCell(engine: EngineResult | undefined): string {
  if (engine?.cosine === undefined) return '-';
  return `${engine.cosine.toFixed(7)}, ${engine.difference!.toExponential(0)}`;
}

function floatTable(rows: readonly CpuRow[]): string {
  const columns = ['row', 'threads', 'ms', 'GFLOP/s', 'FMA loop', 'of it', 'onnxruntime ms', '÷ ours', 'PyTorch ms', '÷ ours'];
  return markdown(
    [...columns, 'cores used: ours, onnxruntime, PyTorch', 'onnxruntime agrees', 'PyTorch agrees'],
    rows.map((row) => {
      const { warpsight, onnxruntime, PyTorch } = row.engines;
      return [
        row.name,
        String(row.threads),
        timeCell(row, warpsight),
        (row.flops! / median(ms(warpsight!)) / 1e6).toFixed(1),
        median(row.peak).toFixed(1),
        percent(shareOfPeak(row, warpsight!).median),
        timeCell(row, onnxruntime),
        ratioCell(onnxruntime, warpsight),
        timeCell(row, PyTorch),
        ratioCell(PyTorch, warpsight),
        [warpsight, onnxruntime, PyTorch].map(coresUsed).join(', '),
        agreementCell(onnxruntime),
        agreementCell(PyTorch),
      ];
    }),
  );
}

function textTable(rows: readonly CpuRow[]): string {
  const millions = (count: number) => (count / 1e6).toFixed(0);
  return markdown(
    ['text', 'million multiply-adds executed', 'sum over real lengths', 'executed ÷ sum', 'padded', 'padded ÷ executed'],
    rows.map(({ name, multiplyAdds }) => {
      const { executed, realLengths, padded } = multiplyAdds!;
      return [
        name,
        millions(executed),
        millions(realLengths),
        (executed / realLengths).toFixed(3),
        millions(padded),
        (padded / executed).toFixed(1),
      ];
    }),
  );
}

/** Images in fewer bits, beside float32 and onnxruntime. */
function narrowTable(form: 'int8' | 'bfloat16', peer: 'onnxruntime int8' | 'onnxruntime', rows: readonly CpuRow[]): string {
  const columns = [
    form,
    'threads',
    'ms',
    'our float32 ms',
    `÷ ${form}`,
    `${peer}${peer === 'onnxruntime' ? ' float32' : ''} ms`,
    '÷ ours',
  ];
  return markdown(
    [...columns, 'cosine to float32: ours', 'onnxruntime', 'cores used: ours, float32, onnxruntime'],
    rows.map((row) => {
      const { warpsight, [`warpsight ${form}` as const]: ours, [peer]: theirs } = row.engines;
      const similarity = (engine: EngineResult | undefined) => engine?.cosine?.toFixed(4) ?? '-';
      return [
        row.name,
        String(row.threads),
        timeCell(row, ours),
        timeCell(row, warpsight),
        ratioCell(warpsight, ours),
        timeCell(row, theirs),
        ratioCell(theirs, ours),
        similarity(ours),
        similarity(theirs),
        [ours, warpsight, theirs].map(coresUsed).join(', '),
      ];
    }),
  );
}

/** An image that comes while a batch is encoded, and one that comes to an idle process. */
function besideTable(rows: readonly CpuRow[]): string {
  const most = (engine: EngineResult | undefined) => (engine ? Math.max(...ms(engine)).toPrecision(4) : '-');
  const columns = ['beside a batch', 'threads', 'ms', 'at most', 'alone ms', 'later by ms', 'longest step of the batch, ms'];
  return markdown(
    [...columns, 'onnxruntime ms', 'at most', '÷ ours'],
    rows.map((row) => {
      const { warpsight, 'warpsight alone': alone, onnxruntime } = row.engines;
      return [
        row.name,
        String(row.threads),
        timeCell(row, warpsight),
        most(warpsight),
        timeCell(row, alone),
        median(ms(warpsight!).map((wall, i) => wall - ms(alone!)[i]!)).toFixed(1),
        row.longestStep?.toFixed(1) ?? '-',
        timeCell(row, onnxruntime),
        most(onnxruntime),
        ratioCell(onnxruntime, warpsight),
      ];
    }),
  );
}

function loadTable(rows: readonly CpuRow[]): string {
  return markdown(
    ['load', 'threads', 'ms', 'reading the file ms', 'ours ÷ reading', 'peak memory ÷ weights', 'cores used: ours, reading'],
    rows.map((row) => {
      const { warpsight, read } = row.engines;
      const shares = (row.memory ?? []).map(({ peak, weights }) => peak / weights);
      return [
        row.name,
        String(row.threads),
        timeCell(row, warpsight),
        timeCell(row, read),
        ratioCell(warpsight, read),
        shares.length > 0 ? median(shares).toFixed(3) : '-',
        [warpsight, read].map(coresUsed).join(', '),
      ];
    }),
  );
}

/** A table for each kind of row that there is. */
export function cpuTables(rows: readonly CpuRow[]): string {
  const of = (...kinds: CpuRow['kind'][]) => rows.filter(({ kind }) => kinds.includes(kind));
  const tables: [CpuRow[], (rows: readonly CpuRow[]) => string][] = [
    [of('image', 'products', 'text'), floatTable],
    [of('text'), textTable],
    [of('int8'), (some) => narrowTable('int8', 'onnxruntime int8', some)],
    [of('bfloat16'), (some) => narrowTable('bfloat16', 'onnxruntime', some)],
    [of('beside'), besideTable],
    [of('load'), loadTable],
  ];
  return tables
    .filter(([some]) => some.length > 0)
    .map(([some, table]) => table(some))
    .join('\n\n');
}

const kColours: Readonly<Record<EngineName, string>> = {
  warpsight: '#1f77b4',
  'warpsight int8': '#0b3d66',
  'warpsight bfloat16': '#17becf',
  'warpsight alone': '#1f77b4',
  onnxruntime: '#d68910',
  'onnxruntime int8': '#8a5a08',
  PyTorch: '#c0392b',
  read: '#888888',
};

/** For each row the speed of each engine by the same flops, so that lengths compare in a row and with the FMA loop. */
export function cpuBars(rows: readonly CpuRow[]): BarGroup[] {
  return rows
    .filter(({ flops }) => flops !== undefined)
    .map((row) => ({
      label: `${row.name}, ${row.threads} ${row.threads === 1 ? 'thread' : 'threads'}`,
      bars: Object.entries(row.engines).map(([engine, result]): Bar => {
        const { median: value, low, high } = shareOfPeak(row, result);
        return { label: engine, colour: kColours[engine as EngineName], value, low, high };
      }),
    }));
}
