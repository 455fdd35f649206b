import type { RunProfile } from '../../profile';
import type { Peaks } from '../../roofline';
import { type Arguments, UsageError } from '../arguments';
import type { Command } from '../command';
import { type ChatModel, canTalk, folderOrModel, loadChatModel, loadModel } from '../model';
import { printable, stdout } from '../terminal';

const kTokens = 32;
/** A call is measured so often, and no longer than that once it has run five times. */
const [kLeastRuns, kMostRuns, kSeconds] = [5, 100, 2];

/** One thing that a model does. `run` tells what it knows better than the clock outside. */
interface Work {
  readonly name: string;
  readonly unit: 'images' | 'texts' | 'tokens';
  readonly count: number;
  run(): Promise<Told>;
  /** The same in fewer steps, for a profile. */
  readonly profiled?: () => Promise<unknown>;
}

interface Told {
  readonly perSecond?: number;
  readonly firstTokenMs?: number;
}

interface Measured extends Told {
  readonly name: string;
  readonly unit: Work['unit'];
  readonly count: number;
  readonly runs: number;
  readonly medianMs: number;
  readonly leastMs: number;
  readonly mostMs: number;
  readonly perSecond: number;
}

export const bench: Command = {
  name: 'bench',
  operands: '[folder]',
  operandNames: { folder: 'a checkpoint folder or "org/name"; the model that ships, by default' },
  describe:
    'Measures a model on this machine: encodeImage and encodeText, or generate; with --profile each step of their programs.',
  options: {
    batch: { value: 'N', short: 'b', describe: 'pictures, and texts, at a time; 1 by default' },
    profile: { describe: 'show operation, kernel, shapes, time, bytes, operations and share of the roofline of every step' },
    trace: { value: 'FILE', describe: 'write the steps as a Chrome trace, for chrome://tracing or ui.perfetto.dev' },
  },
  examples: [
    ['bench', 'milliseconds of the model that ships, on this machine'],
    ['bench ./clip-vit-base-patch32 --device cuda --batch 64', 'pictures and texts per second'],
    ['bench ./llava-1.5-7b --profile --trace steps.json', 'where the time of an answer goes'],
  ],

  async run(args: Arguments): Promise<boolean> {
    const name = folderOrModel(args);
    const batch = args.count('batch', 4096);
    const trace = args.text('trace');
    const talks = name !== undefined && (await canTalk(name));
    if (talks && batch !== undefined)
      throw new UsageError('--batch is for models that encode: this one answers one question at a time');
    const { device, dtype, works, dispose } =
      name !== undefined && talks ? await talking(args, name) : await encoding(args, name, batch ?? 1);
    try {
      const { devices } = await import('../../index.js');
      const description = devices().find((each) => each.name === device)?.description;
      const results: Measured[] = [];
      for (const work of works) results.push(await measure(work));
      const runs = args.flag('profile') || trace !== undefined ? await profile(works) : [];
      const peaks = runs.length > 0 ? await (await import('../../roofline.js')).peaksOf(device) : undefined;
      if (trace !== undefined) await (await import('../../profile.js')).writeTrace(trace, runs);
      const shown = args.flag('profile') ? { peaks: peaks ?? null, runs } : {};
      const model = name ?? 'clip-pictograms';
      if (args.flag('json')) {
        await stdout(`${JSON.stringify({ model, device, description, dtype, results, ...shown })}\n`);
      } else {
        await stdout(`${printable(model)} on ${device} (${description}) in ${dtype}\n${results.map(line).join('')}`);
        if (args.flag('profile')) await stdout(profileText(runs, peaks));
      }
      return true;
    } finally {
      dispose();
    }
  },
};

interface Loaded {
  readonly device: string;
  readonly dtype: string;
  readonly works: readonly Work[];
  dispose(): void;
}

async function encoding(args: Arguments, name: string | undefined, batch: number): Promise<Loaded> {
  const clip = await loadModel(args, name);
  const side = clip.config?.vision.imageSize ?? 0;
  const pixels = Float32Array.from({ length: batch * 3 * side * side }, (_, i) => Math.sin(i));
  const texts = Array.from({ length: batch }, (_, i) => `a photo of object number ${i}`);
  const images: Work = {
    name: 'encodeImage',
    unit: 'images',
    count: batch,
    async run() {
      const features = await clip.encodeImage({ pixels, shape: [batch, 3, side, side] });
      await features.read();
      features.dispose();
      return {};
    },
  };
  const text: Work = {
    name: 'encodeText',
    unit: 'texts',
    count: batch,
    async run() {
      const features = await clip.encodeText(texts);
      await features.read();
      features.dispose();
      return {};
    },
  };
  if (!clip.tokenizer) process.stderr.write('encodeText is left out: the folder has no tokenizer\n');
  return {
    device: clip.device,
    dtype: clip.dtype,
    works: clip.tokenizer ? [images, text] : [images],
    dispose: () => clip.dispose(),
  };
}

async function talking(args: Arguments, name: string): Promise<Loaded> {
  const model = await loadChatModel(args, name);
  const { device, dtype } = model;
  const work: Work = {
    name: 'generate',
    unit: 'tokens',
    count: kTokens,
    async run() {
      const { timings } = await answer(model, kTokens);
      return { perSecond: timings.tokensPerSecond, firstTokenMs: timings.firstTokenMs };
    },
    profiled: () => answer(model, 2), // the prompt, and one step behind it
  };
  return { device, dtype, works: [work], dispose: () => model.dispose() };
}

function answer(model: ChatModel, maxNewTokens: number) {
  const [width, height] = [336, 336];
  const data = Uint8Array.from({ length: 3 * width * height }, (_, i) => (i * 73) % 256);
  const [prompt, images] = model.seesPictures
    ? ['USER: <image>\nWhat is shown here? ASSISTANT:', [{ data, width, height, channels: 3 as const }]]
    : ['Once upon a time', []];
  return model.generate({ prompt, maxNewTokens }, images).result;
}

async function measure({ name, unit, count, run }: Work): Promise<Measured> {
  for (let i = 0; i < 2; i++) await run(); // planned, recorded and in the caches
  const took: { readonly told: Told; readonly ms: number }[] = [];
  const begun = performance.now();
  while (took.length < kLeastRuns || (took.length < kMostRuns && performance.now() - begun < 1000 * kSeconds)) {
    const start = performance.now();
    const told = await run();
    took.push({ told, ms: performance.now() - start });
  }
  const sorted = took.sort((a, b) => a.ms - b.ms);
  const median = sorted[Math.floor(sorted.length / 2)]!;
  return {
    name,
    unit,
    count,
    runs: took.length,
    medianMs: median.ms,
    leastMs: sorted[0]!.ms,
    mostMs: sorted.at(-1)!.ms,
    perSecond: (1000 * count) / median.ms,
    ...median.told,
  };
}

async function profile(works: readonly Work[]): Promise<RunProfile[]> {
  const { profileRuns } = await import('../../profile.js');
  const runs: RunProfile[] = [];
  for (const { name, run, profiled } of works) runs.push(...(await profileRuns(name, profiled ?? run)));
  return runs;
}

function line({ name, unit, count, runs, medianMs, leastMs, mostMs, perSecond, firstTokenMs }: Measured): string {
  const what = `${name}, ${unit === 'tokens' ? `${count} tokens` : `batch ${count}`}`;
  const times = `median ${medianMs.toFixed(2)} ms, ${leastMs.toFixed(2)} to ${mostMs.toFixed(2)} in ${runs} runs`;
  const first = firstTokenMs === undefined ? '' : `first token after ${firstTokenMs.toFixed(2)} ms, `;
  return `${what.padEnd(22)} ${times}; ${first}${perSecond.toFixed(1)} ${unit} per second\n`;
}

function profileText(runs: readonly RunProfile[], peaks: Peaks | undefined): string {
  return `\npeaks of the roofline: ${peaks ? peaksText(peaks) : 'none are known for this device'}\n${runs.map(runText).join('')}`;
}

function peaksText({ bandwidth, float32, float16, int8, source }: Peaks): string {
  const rates = [`${si(float32, 'FLOP/s')} in float32`, `${si(float16, 'FLOP/s')} in 16 bits`];
  if (int8 !== undefined) rates.push(`${si(int8, 'FLOP/s')} in int8`);
  return `${[si(bandwidth, 'B/s'), ...rates].join(', ')}: ${source}`;
}

function runText({ name, steps }: RunProfile): string {
  const total = steps.reduce((sum, { ms }) => sum + ms, 0);
  const head = ['operation', 'kernel', 'shapes', 'ms', 'of run', 'bytes', 'operations', 'bound by', 'roofline'];
  const rows = steps.map(({ op, kernel, shapes, ms, bytes, flops, bound, roofline }) => [
    op,
    kernel,
    shapes,
    ms.toFixed(4),
    share(ms / total),
    si(bytes, 'B'),
    si(flops, 'FLOP'),
    bound ?? '-',
    roofline === null ? '-' : share(roofline),
  ]);
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const text = [head, ...rows].map((row) =>
    row.map((cell, i) => (i >= 3 && i !== 7 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!))).join('  '),
  );
  return `\n${name}: ${steps.length} steps, ${total.toFixed(3)} ms\n${text.map((row) => `${row.trimEnd()}\n`).join('')}`;
}

const share = (part: number) => (Number.isFinite(part) ? `${(100 * part).toFixed(1)} %` : '-');

/** "1.61 MB" */
function si(value: number, unit: string): string {
  const prefixes = ['', 'k', 'M', 'G', 'T', 'P'];
  const step = value < 1000 ? 0 : Math.min(prefixes.length - 1, Math.floor(Math.log10(value) / 3));
  return `${step === 0 ? value.toFixed(0) : (value / 1000 ** step).toPrecision(3)} ${prefixes[step]}${unit}`;
}
