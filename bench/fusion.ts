// npm run bench:fusion -- [rounds] [seeds]: what early, mid and late fusion cost at one width and depth: one pair, and one more candidate. See
// docs/fusion.md and docs/benchmarks.md.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { BlipImageTextMatching, CLIP, counters, type PixelTensor, type Tensor, threads, ViLT } from '../lib';
import { scaledLogits } from '../lib/ops';
import { linePlot } from './line-plot';
import { type FusionSize, makeFusion, type Strategy } from './make-fusion';
import { benchFolder, conditions, report } from './report';

const kSize: FusionSize = { width: 512, layers: 8, heads: 8, image: 224, patch: 32, vocabulary: 1000, context: 32 };
const kTokens = 12;
const kCounts = [1, 2, 4, 8, 16, 32];
const kStrategies = ['late', 'mid', 'early'] as const;
const kColours: Readonly<Record<Strategy, string>> = { early: '#c0392b', mid: '#d68910', late: '#1f77b4' };
/** What a strategy can know before the text comes: nothing, or all that it computes of pictures alone. */
const kStates = ['unseen', 'kept'] as const;
type State = (typeof kStates)[number];

/** Median of samples with its bootstrap interval of 95 %. */
interface Estimate {
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly n: number;
}

interface Row {
  readonly strategy: Strategy;
  readonly state: State;
  /** Milliseconds for a text and so many pictures. */
  readonly latency: readonly (Estimate & { readonly candidates: number })[];
  /** Milliseconds for one candidate more: least squares over each round's counts. */
  readonly oneMore: Estimate;
  /** Multiply-adds, in millions: of the text with one picture, and of one picture more. */
  readonly pairMultiplyAdds: number;
  readonly oneMoreMultiplyAdds: number;
  readonly weightsMB: number;
  /** What is kept of a picture. */
  readonly keptKB: number;
}

/** A model of one strategy: how well a text goes with pictures, in one call. */
interface Engine {
  rank(ids: readonly number[], images: PixelTensor): Promise<unknown>;
  keep(images: PixelTensor): Promise<Tensor<'float32'> | undefined>;
  rankKept(ids: readonly number[], kept: Tensor<'float32'>): Promise<unknown>;
  weights(): number;
  dispose(): void;
}

async function engines(folders: Record<Strategy, string>): Promise<Record<Strategy, Engine>> {
  const options = { device: 'cpu' } as const;
  const [vilt, blip, clip] = await Promise.all([
    ViLT.fromPretrained(folders.early, options),
    BlipImageTextMatching.fromPretrained(folders.mid, options),
    CLIP.fromPretrained(folders.late, options),
  ]);
  const ranked = async (ids: readonly number[], images: Tensor<'float32'>) => {
    const text = await clip.encodeText({ inputIds: [ids] }, { normalize: true });
    const cosines = scaledLogits(text, images, 0, { unit: true });
    const values = await cosines.read();
    for (const tensor of [text, cosines]) tensor.dispose();
    return values;
  };
  return {
    early: {
      rank: (ids, images) => vilt.score(images, { inputIds: [ids] }),
      keep: async () => undefined,
      rankKept: () => Promise.reject(new Error('early fusion keeps nothing')),
      weights: () => vilt.memoryUsage().weights,
      dispose: () => vilt.dispose(),
    },
    mid: {
      rank: (ids, images) => blip.match(images, { inputIds: [ids] }),
      keep: (images) => blip.imageFeatures(images),
      rankKept: (ids, kept) => blip.match(kept, { inputIds: [ids] }),
      weights: () => blip.memoryUsage().weights,
      dispose: () => blip.dispose(),
    },
    late: {
      rank: async (ids, images) => {
        const embeds = await clip.encodeImage(images, { normalize: true });
        const values = await ranked(ids, embeds);
        embeds.dispose();
        return values;
      },
      keep: (images) => clip.encodeImage(images, { normalize: true }),
      rankKept: ranked,
      weights: () => clip.memoryUsage().weights,
      dispose: () => clip.dispose(),
    },
  };
}

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};

function estimate(samples: readonly number[]): Estimate {
  const random = seeded(7);
  const medians = Array.from({ length: 1000 }, () => median(samples.map(() => samples[Math.floor(random() * samples.length)]!)));
  medians.sort((a, b) => a - b);
  return { median: median(samples), low: medians[25]!, high: medians[974]!, n: samples.length };
}

/** Least squares of milliseconds over candidates. */
function slope(ms: readonly number[]): number {
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const [x, y] = [mean(kCounts), mean(ms)];
  const over = kCounts.reduce((sum, count, i) => sum + (count - x) * (ms[i]! - y), 0);
  return over / kCounts.reduce((sum, count) => sum + (count - x) ** 2, 0);
}

async function multiplyAdds(run: () => Promise<unknown>): Promise<number> {
  const before = counters().multiplyAdds;
  await run();
  return (counters().multiplyAdds - before) / 1e6;
}

/** Milliseconds of a round by state and strategy, one for each of kCounts. */
type Samples = Record<State, Record<Strategy, number[][]>>;

async function measure(seed: number, rounds: number, samples: Samples, rows: Map<string, Partial<Row>>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  try {
    const made = await engines(makeFusion(folder, kSize, seed));
    const random = seeded(seed);
    const ids = [
      ...Array.from({ length: kTokens - 1 }, () => 1 + Math.floor(random() * (kSize.vocabulary - 2))),
      kSize.vocabulary - 1,
    ];
    const inner = 3 * kSize.image ** 2;
    const all = Float32Array.from({ length: kCounts.at(-1)! * inner }, () => 2 * random() - 1);
    const images = (count: number): PixelTensor => ({
      pixels: all.subarray(0, count * inner),
      shape: [count, 3, kSize.image, kSize.image],
    });
    const kept = new Map<string, Tensor<'float32'>>();
    for (const strategy of kStrategies)
      for (const count of kCounts) {
        const features = await made[strategy].keep(images(count));
        await features?.read(); // done, so that its work is not counted below
        if (features) kept.set(`${strategy} ${count}`, features);
      }
    const run = (strategy: Strategy, state: State, count: number): Promise<unknown> => {
      const features = kept.get(`${strategy} ${count}`);
      return state === 'kept' && features ? made[strategy].rankKept(ids, features) : made[strategy].rank(ids, images(count));
    };
    for (const strategy of kStrategies)
      for (const state of kStates) {
        const pair = await multiplyAdds(() => run(strategy, state, 1));
        const two = await multiplyAdds(() => run(strategy, state, 2));
        const one = kept.get(`${strategy} 1`);
        rows.set(`${strategy} ${state}`, {
          pairMultiplyAdds: pair,
          oneMoreMultiplyAdds: two - pair,
          weightsMB: made[strategy].weights() / 1e6,
          keptKB: one ? (4 * one.shape.reduce((product, n) => product * n, 1)) / 1e3 : 0,
        });
      }
    for (let round = -1; round < rounds; round++) {
      for (const state of kStates)
        for (const strategy of kStrategies) {
          const ms: number[] = [];
          await run(strategy, state, 1); // the weights are in the caches then, as far as they fit
          for (const count of kCounts) {
            const start = performance.now();
            await run(strategy, state, count);
            ms.push(performance.now() - start);
          }
          if (round >= 0) samples[state][strategy].push(ms); // the round before warms programs and caches
        }
    }
    for (const tensor of kept.values()) tensor.dispose();
    for (const engine of Object.values(made)) engine.dispose();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function table(rows: readonly Row[]): string {
  const shown = ({ median: of, low, high }: Estimate) => `${of.toPrecision(3)} (${low.toPrecision(3)} to ${high.toPrecision(3)})`;
  const lines = [
    '| strategy | pictures | million multiply-adds a pair | one more | ms a pair | ms one more | weights MB | kept a picture |',
    '|---|---|---|---|---|---|---|---|',
  ];
  for (const { strategy, state, latency, oneMore, pairMultiplyAdds, oneMoreMultiplyAdds, weightsMB, keptKB } of rows) {
    const cells = [
      strategy,
      state === 'kept' && keptKB === 0 ? 'nothing can be kept' : state,
      pairMultiplyAdds.toFixed(0),
      oneMoreMultiplyAdds.toPrecision(3),
      shown(latency[0]!),
      shown(oneMore),
      weightsMB.toFixed(0),
      state === 'kept' && keptKB > 0 ? `${keptKB.toPrecision(3)} KB` : '-',
    ];
    lines.push(`| ${cells.join(' | ')} |`);
  }
  return lines.join('\n');
}

async function main(): Promise<void> {
  const [rounds = 10, seeds = 3] = process.argv.slice(2).map(Number);
  const here = conditions(`npm run bench:fusion -- ${rounds} ${seeds}`, `${threads()} threads of ${cpus().length}`);
  const none = () => Object.fromEntries(kStrategies.map((strategy) => [strategy, []])) as unknown as Record<Strategy, number[][]>;
  const samples: Samples = { unseen: none(), kept: none() };
  const known = new Map<string, Partial<Row>>();
  const usedSeeds = Array.from({ length: seeds }, (_, i) => i + 1);
  for (const seed of usedSeeds) await measure(seed, rounds, samples, known);
  const rows = kStrategies.flatMap((strategy) =>
    kStates.map((state): Row => {
      const measured = samples[state][strategy];
      const latency = kCounts.map((candidates, i) => ({ candidates, ...estimate(measured.map((ms) => ms[i]!)) }));
      const counted = known.get(`${strategy} ${state}`) as Omit<Row, 'strategy' | 'state' | 'latency' | 'oneMore'>;
      return { strategy, state, latency, oneMore: estimate(measured.map(slope)), ...counted };
    }),
  );
  const { width, layers, image, patch } = kSize;
  const about = {
    ...here,
    models: `ViLT (early), BLIP (mid), CLIP (late) with random weights: ${layers} layers of ${width} in every tower, pictures of ${image} in patches of ${patch}, texts of ${kTokens} tokens`,
    samples: `medians of ${rounds} rounds for each of ${seeds} seeds (weights and inputs: ${usedSeeds.join(', ')}), strategies alternating; in brackets the 95 % bootstrap interval`,
  };
  report('fusion-cpu', 'Early, mid and late fusion on the CPU', about, table(rows), { rows });
  const lines = rows
    .filter(({ state, keptKB }) => state === 'unseen' || keptKB > 0)
    .map(({ strategy, state, latency }) => ({
      label: state === 'unseen' ? `${strategy}, pictures not seen before` : `${strategy}, what it can keep is kept`,
      colour: kColours[strategy],
      dashed: state === 'kept',
      points: latency.map(({ candidates, median: y, low, high }) => ({ x: candidates, y, low, high })),
    }));
  const plot = linePlot({ title: 'One text against pictures', x: 'candidates', y: 'milliseconds', lines });
  writeFileSync(join(benchFolder, '..', 'docs', 'images', 'fusion-cost.svg'), plot);
}

main();
