// npm run bench:llava -- [SIZE] [ROUNDS] [--device cuda|cpu] [--dtype …]: reading a prompt and decoding with a random LLaVA, beside PyTorch on the
// same shape and the memory bandwidth that a plain read loop (CPU) or copy (CUDA) has, taking turns in every round. See docs/benchmarks.md.
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { device as deviceOf, devices, type Float, LLaVA, threads } from '../lib';
import { copyBandwidth } from './gemm-program';
import type { StoredType } from './make-checkpoint';
import { kLlavaSizes, llavaTensors, makeLlava } from './make-llava';
import { compileNative } from './native-program';
import { Peer, pythonWithTorch } from './peer';
import { benchFolder, conditions, markdown, report } from './report';
import { median } from './statistics';

const kPrompt = 512;
const kDecoded = 32;
const kTypes: Readonly<Record<string, readonly [StoredType, Float]>> = {
  f32: ['F32', 'float32'],
  f16: ['F16', 'float16'],
  bf16: ['BF16', 'bfloat16'],
};

type DeviceKind = 'cpu' | 'cuda';

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

/** What memory gives in the same round, in GB/s. */
interface Bandwidth {
  measure(): Promise<number>;
  end(): Promise<void>;
}

function readLoop(): Bandwidth {
  const program = compileNative('read-bandwidth');
  const loop = new Peer(program.path, [String(threads())]);
  return {
    measure: () => loop.number('read'),
    end: async () => {
      await loop.end();
      program.dispose();
    },
  };
}

const deviceCopy: Bandwidth = { measure: async () => copyBandwidth(), end: async () => undefined };

async function measure(
  name: string,
  device: DeviceKind,
  [stored, dtype]: readonly [StoredType, Float],
  rounds: number,
  bandwidth: Bandwidth,
): Promise<{ rows: Row[]; reads: number[] }> {
  const size = kLlavaSizes[name];
  if (!size) throw new Error(`SIZE is one of ${Object.keys(kLlavaSizes).join(', ')}: it is ${name}`);
  const folder = mkdtempSync(join(tmpdir(), 'warpsight-bench-'));
  const interpreter = pythonWithTorch(device, { atLeast2: device === 'cuda' });
  const env = { OMP_NUM_THREADS: String(threads()), OPENBLAS_NUM_THREADS: String(threads()) };
  const peer = interpreter
    ? new Peer(interpreter, [join(benchFolder, 'llava_torch.py'), JSON.stringify(size.text), dtype, device], env)
    : undefined;
  const peers = [['PyTorch', 'decode'], ...(device === 'cuda' ? ([['PyTorch compiled', 'compiled']] as const) : [])] as const;
  try {
    makeLlava(folder, size, { dtype: stored });
    const arithmetic = device === 'cpu' ? 'float32' : dtype;
    const llava = await LLaVA.fromPretrained(folder, { device, dtype: arithmetic, cacheTokens: 2048 });
    const prompt = 'x'.repeat(kPrompt);
    const ours: Round[] = [];
    const theirs: Round[][] = peers.map(() => []);
    const pictures: number[] = [];
    const image = {
      pixels: new Float32Array(3 * size.vision.image ** 2),
      shape: [1, 3, size.vision.image, size.vision.image],
    } as const;
    for (let round = -1; round < rounds; round++) {
      const read = await bandwidth.measure();
      const { timings, usage } = await llava.generate({ prompt, maxNewTokens: kDecoded + 1, stop: 'never said' }).result;
      const mine = { read, prefill: (1000 * usage.promptTokens) / timings.firstTokenMs, decode: timings.tokensPerSecond };
      const seen = await llava.generate({ prompt: '<image>What is it?', images: image, maxNewTokens: 1 }).result;
      const rivals: Round[] = [];
      for (const [, decode] of peer ? peers : []) {
        const prefill = kPrompt / (await peer!.number(`prefill ${kPrompt}`));
        rivals.push({ read, prefill, decode: kDecoded / (await peer!.number(`${decode} ${kDecoded}`)) });
      }
      if (round < 0) continue; // warms caches, programs and threads
      ours.push(mine);
      pictures.push(seen.timings.firstTokenMs);
      rivals.forEach((rival, i) => {
        theirs[i]!.push(rival);
      });
    }
    llava.dispose();

    const elements = (wanted: RegExp) =>
      llavaTensors(size)
        .filter((tensor) => wanted.test(tensor.name))
        .reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0);
    const layers = elements(/^language_model\.model\.(layers|norm)/);
    const head = elements(size.text.tied ? /embed_tokens/ : /lm_head/);
    const bytes = (layers + head) * (stored === 'F32' ? 4 : 2);
    const row = (engine: string, of: readonly Round[]): Row => ({
      stored,
      engine,
      prefill: median(of.map(({ prefill }) => prefill)),
      decode: median(of.map(({ decode }) => decode)),
      gflops: (2 * layers * median(of.map(({ prefill }) => prefill))) / 1e9,
      bandwidth: (bytes * median(of.map(({ decode }) => decode))) / 1e9,
      share: median(of.map(({ decode, read }) => (bytes * decode) / 1e9 / read)),
    });
    const rows: Row[] = [{ ...row('warpsight', ours), pictureMs: median(pictures) }];
    peers.forEach(([engine], i) => {
      if (theirs[i]!.length > 0) rows.push(row(engine, theirs[i]!));
    });
    return { rows, reads: ours.map(({ read }) => read) };
  } finally {
    await peer?.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

function table(rows: readonly Row[], device: DeviceKind): string {
  const cells = rows.map(({ stored, engine, prefill, gflops, decode, bandwidth, share, pictureMs }) => [
    stored,
    engine,
    prefill.toFixed(0),
    gflops.toFixed(0),
    decode.toFixed(2),
    bandwidth.toFixed(1),
    `${(100 * share).toFixed(0)} %`,
    pictureMs === undefined ? '-' : `${pictureMs.toFixed(0)} ms`,
  ]);
  const yardstick = device === 'cpu' ? 'of the read loop' : 'of a copy';
  const columns = ['weights', 'engine', 'prefill tokens/s', 'GFLOP/s', 'decode tokens/s', 'GB/s', yardstick];
  return markdown([...columns, 'picture to first token'], cells);
}

/** The largest whose weights fit twice, ours and PyTorch's, with room for what is computed. */
function defaultSize(device: DeviceKind): string {
  return device === 'cuda' && deviceOf('cuda').memory().free > 40e9 ? '7b' : '1b';
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { device: { type: 'string' }, dtype: { type: 'string' } },
  });
  const hasGpu = devices().some(({ name, usable }) => name !== 'cpu' && usable);
  const device: DeviceKind = (values.device ?? (hasGpu ? 'cuda' : 'cpu')) === 'cuda' ? 'cuda' : 'cpu';
  const [given, rounds = '5'] = positionals;
  const name = given ?? defaultSize(device);
  const types = (values.dtype ?? (device === 'cuda' ? 'bf16' : 'f32,bf16')).split(',').map((type) => {
    const known = kTypes[type];
    if (!known) throw new Error(`--dtype takes ${Object.keys(kTypes).join(', ')}: one is ${type}`);
    return known;
  });
  const command = ['npm run bench:llava --', ...process.argv.slice(2)].join(' ').trim();
  const here = conditions(command, `${threads()} threads of ${cpus().length}`);
  const bandwidth = device === 'cpu' ? readLoop() : deviceCopy;
  const results = [];
  for (const type of types) results.push(await measure(name, device, type, Number(rounds), bandwidth));
  await bandwidth.end();
  const rows = results.flatMap((result) => result.rows);
  const reads = results.flatMap((result) => result.reads);
  const about = {
    device: deviceOf(device).description,
    ...here,
    model: `random LLaVA "${name}" of bench/make-llava.ts; a prompt of ${kPrompt} tokens, then ${kDecoded} tokens; medians of ${rounds} rounds`,
    bandwidth: `${device === 'cpu' ? 'a read loop' : 'a copy, read and written bytes'}: ${median(reads).toFixed(1)} GB/s (${Math.min(...reads).toFixed(1)} to ${Math.max(...reads).toFixed(1)})`,
  };
  report(
    `llava-${device}${given === undefined ? '' : `-${given}`}`,
    `LLaVA on ${device === 'cpu' ? 'the CPU' : 'CUDA'}`,
    about,
    table(rows, device),
    { rows },
  );
}

main();
