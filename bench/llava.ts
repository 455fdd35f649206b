// npm run bench:llava: reading a prompt and decoding with a random LLaVA on the CPU, beside the bandwidth that a plain read loop has and PyTorch on
// the same shape, one after the other in every round. See docs/benchmarks.md.
import { type ChildProcessByStdio, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { LLaVA, threads } from '../lib';
import { kLlavaSizes, llavaTensors, makeLlava } from './make-llava';
import { benchFolder, conditions, report } from './report';

const kPrompt = 512;
const kDecoded = 32;
const kTypes = [
  ['F32', 'float32'],
  ['BF16', 'bfloat16'],
] as const;

/** A program that answers each line with one. */
class Asked {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.#child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
    });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async number(question: string): Promise<number> {
    this.#child.stdin.write(`${question}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${question}: the program has ended`);
    return Number.parseFloat(value);
  }

  async end(): Promise<void> {
    const closed = once(this.#child, 'close');
    this.#child.stdin.end();
    await closed;
  }
}

interface Row {
  readonly stored: string;
  readonly engine: string;
  /** Tokens per second, medians of the rounds. */
  readonly prefill: number;
  readonly decode: number;
  readonly gflops: number;
  /** Bytes of weights per token · tokens per second, in GB/s, and as a share of the read loop's in the same round. */
  readonly bandwidth: number;
  readonly share: number;
  readonly pictureMs?: number;
}

interface Round {
  readonly read: number;
  readonly prefill: number;
  readonly decode: number;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}

/** A PyTorch with which Debian's python3 or another one comes; undefined where there is none. */
function python(): string | undefined {
  const candidates = [process.env.WARPSIGHT_PYTHON, '/usr/bin/python3', 'python3'].filter((name) => name !== undefined);
  return candidates.find((name) => spawnSync(name, ['-c', 'import torch']).status === 0);
}

async function measure(
  name: string,
  [stored, dtype]: (typeof kTypes)[number],
  rounds: number,
  readLoop: Asked,
): Promise<{ rows: Row[]; reads: number[] }> {
  const size = kLlavaSizes[name]!;
  const folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  const interpreter = python();
  const env = { OMP_NUM_THREADS: String(threads()), OPENBLAS_NUM_THREADS: String(threads()) };
  const peer = interpreter
    ? new Asked(interpreter, [join(benchFolder, 'llava_torch.py'), JSON.stringify(size.text), dtype], env)
    : undefined;
  try {
    makeLlava(folder, size, { dtype: stored });
    const llava = await LLaVA.fromPretrained(folder, { device: 'cpu', cacheTokens: 2048 });
    const prompt = 'x'.repeat(kPrompt);
    const ours: Round[] = [];
    const theirs: Round[] = [];
    const pictures: number[] = [];
    const image = {
      pixels: new Float32Array(3 * size.vision.image ** 2),
      shape: [1, 3, size.vision.image, size.vision.image],
    } as const;
    for (let round = -1; round < rounds; round++) {
      const read = await readLoop.number('read');
      const { timings, usage } = await llava.generate({ prompt, maxNewTokens: kDecoded + 1, stop: 'never said' }).result;
      const mine = { read, prefill: (1000 * usage.promptTokens) / timings.firstTokenMs, decode: timings.tokensPerSecond };
      const seen = await llava.generate({ prompt: '<image>What is it?', images: image, maxNewTokens: 1 }).result;
      const prefill = peer && kPrompt / (await peer.number(`prefill ${kPrompt}`));
      const decode = peer && kDecoded / (await peer.number(`decode ${kDecoded}`));
      if (round < 0) continue; // warms caches, programs and threads
      ours.push(mine);
      pictures.push(seen.timings.firstTokenMs);
      if (prefill !== undefined && decode !== undefined) theirs.push({ read, prefill, decode });
    }
    llava.dispose();

    const elements = (wanted: RegExp) =>
      llavaTensors(size)
        .filter((tensor) => wanted.test(tensor.name))
        .reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0);
    const weights = elements(/^language_model\./);
    const bytes = weights * (stored === 'F32' ? 4 : 2);
    const row = (engine: string, of: readonly Round[]): Row => ({
      stored,
      engine,
      prefill: median(of.map(({ prefill }) => prefill)),
      decode: median(of.map(({ decode }) => decode)),
      gflops: (2 * (weights - elements(/embed_tokens/)) * median(of.map(({ prefill }) => prefill))) / 1e9,
      bandwidth: (bytes * median(of.map(({ decode }) => decode))) / 1e9,
      share: median(of.map(({ decode, read }) => (bytes * decode) / 1e9 / read)),
    });
    const rows: Row[] = [{ ...row('warpsight', ours), pictureMs: median(pictures) }];
    if (theirs.length > 0) rows.push(row('PyTorch', theirs));
    return { rows, reads: ours.map(({ read }) => read) };
  } finally {
    await peer?.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

function table(rows: readonly Row[]): string {
  const lines = [
    '| weights | engine | prefill tokens/s | GFLOP/s | decode tokens/s | GB/s | of the read loop | picture to first token |',
    '|---|---|---|---|---|---|---|---|',
  ];
  for (const { stored, engine, prefill, gflops, decode, bandwidth, share, pictureMs } of rows) {
    const cells = [stored, engine, prefill.toFixed(0), gflops.toFixed(0), decode.toFixed(2), bandwidth.toFixed(1)];
    lines.push(
      `| ${[...cells, `${(100 * share).toFixed(0)} %`, pictureMs === undefined ? '-' : `${pictureMs.toFixed(0)} ms`].join(' | ')} |`,
    );
  }
  return lines.join('\n');
}

async function main(): Promise<void> {
  const [name = '1b', rounds = '5'] = process.argv.slice(2);
  const here = conditions(`npm run bench:llava -- ${name} ${rounds}`, `${threads()} threads of ${cpus().length}`);
  const folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  const program = join(folder, 'read-bandwidth');
  execFileSync(process.env.CXX ?? 'c++', [
    '-O3',
    '-march=native',
    '-pthread',
    join(benchFolder, 'read-bandwidth.cpp'),
    '-o',
    program,
  ]);
  const readLoop = new Asked(program, [String(threads())]);
  const results = [];
  for (const type of kTypes) results.push(await measure(name, type, Number(rounds), readLoop));
  await readLoop.end();
  rmSync(folder, { recursive: true, force: true });
  const rows = results.flatMap((result) => result.rows);
  const reads = results.flatMap((result) => result.reads);
  const about = {
    ...here,
    model: `random LLaVA "${name}" of bench/make-llava.ts; a prompt of ${kPrompt} tokens, then ${kDecoded} tokens; medians of ${rounds} rounds`,
    readLoop: `${median(reads).toFixed(1)} GB/s (${Math.min(...reads).toFixed(1)} to ${Math.max(...reads).toFixed(1)})`,
  };
  report('llava-cpu', 'LLaVA on the CPU', about, table(rows), { rows });
}

main();
