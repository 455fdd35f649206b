import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { DType, Quantization } from './dtype';
import { WarpsightError } from './errors';

/** A tensor, weight, program, checkpoint or flag that the addon owns. */
export interface NativeHandle<Kind extends string> {
  readonly kind: Kind;
}
export type NativeTensor = NativeHandle<'tensor'>;
export type NativeWeight = NativeHandle<'weight'>;
export type NativeProgram = NativeHandle<'program'>;
export type NativeCheckpoint = NativeHandle<'checkpoint'>;
export type NativeFlag = NativeHandle<'flag'>;

/** Numbers that go in: of a user (copied by the call) or of a tensor. */
export type TypedArray = Float32Array | Int32Array | Uint16Array | Uint8Array | Uint8ClampedArray;

export interface DeviceInfo {
  readonly name: string;
  readonly description: string;
  readonly usable: boolean;
  /** Why it is not usable. */
  readonly reason?: string;
}

export interface DeviceMemory {
  readonly total: number;
  readonly free: number;
  readonly weights: number;
  readonly tensors: number;
  readonly arenas: number;
}

export interface Counters {
  readonly calls: number;
  readonly steps: number;
  readonly kernels: number;
  readonly graphLaunches: number;
  readonly deviceAllocations: number;
  readonly multiplyAdds: number;
}

export interface NativeSlot {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly symbol: number;
  readonly multiple: number;
}

export type NativeOperand = null | NativeWeight | (Omit<NativeSlot, 'dtype'> & { readonly slot: number });

export interface NativeStep {
  readonly op: string;
  readonly params: Readonly<Record<string, number | boolean | string>>;
  readonly inputs: readonly NativeOperand[];
  readonly outputs: readonly NativeOperand[];
}

export interface NativeProgramDescription {
  readonly symbols: number;
  readonly slots: readonly NativeSlot[];
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  /** Slots that are a tensor of their own in every run: constants, and caches that steps change in place. */
  readonly bound: readonly { readonly slot: number; readonly tensor: NativeTensor }[];
  readonly steps: readonly NativeStep[];
  readonly record: boolean;
}

export interface StepInfo {
  readonly op: string;
  /** The kernel that was chosen when the program was planned. */
  readonly kernel: string;
  /** At the planned sizes; a multiply-add counts as 2. */
  readonly flops: number;
  readonly bytes: number;
  readonly shapes: string;
}

export interface StoredTensor {
  readonly name: string;
  /** As the file says: "F32", "BF16", … */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Index into the list of files. */
  readonly file: number;
}

export type WeightLayout = 'matrix' | 'vector' | 'table';

export interface WeightRequest {
  readonly layout: WeightLayout;
  readonly compute: DType;
  /** Of a matrix. */
  readonly quantization: Quantization;
  readonly columns: number;
  /** tensor: index into the checkpoint's tensors, or -1 for rows of zeros. */
  readonly parts: readonly { readonly tensor: number; readonly firstRow: number; readonly rows: number }[];
}

/** A tensor, numbers that are copied by the call, or arrays that are read later where they lie and must not change meanwhile. */
export type NativeInput = NativeTensor | TypedArray | readonly TypedArray[];

/** What native/src/addon.cpp exports; the meaning of each is stated there. */
export interface Native {
  setErrorClass(errorClass: typeof WarpsightError): void;
  devices(): DeviceInfo[];
  openDevice(name: string): void;
  deviceMemory(name: string): DeviceMemory;
  limitMemory(name: string, bytes: number | null): void;
  setThreads(count: number): void;
  threads(): number;
  counters(): Counters;
  createTensor(device: string, dtype: DType, shape: readonly number[], data: TypedArray | null): NativeTensor;
  readTensor(tensor: NativeTensor): Promise<Float32Array | Int32Array | Uint8Array>;
  dispose(handle: NativeHandle<string>): void;
  compile(device: string, program: NativeProgramDescription): NativeProgram;
  programSteps(program: NativeProgram): StepInfo[];
  run(
    program: NativeProgram,
    bulk: boolean,
    symbols: readonly number[],
    inputs: readonly NativeInput[],
    out: readonly NativeTensor[] | null,
    flag: NativeFlag | null,
    /** Called once the borrowed arrays are read no more; the event loop stays alive until then. */
    done: (() => void) | null,
  ): NativeTensor[];
  profile(program: NativeProgram, bulk: boolean, symbols: readonly number[], inputs: readonly NativeInput[]): Promise<number[]>;
  abortFlag(): NativeFlag;
  /** @param options what the errors of the runs that it ends are made with */
  abort(flag: NativeFlag, options: { readonly cause: unknown }): void;
  openCheckpoint(
    paths: readonly string[],
  ): Promise<{ readonly handle: NativeCheckpoint; readonly tensors: readonly StoredTensor[] }>;
  readStored(checkpoint: NativeCheckpoint, tensor: number): Promise<Float32Array>;
  /** Whether each is in the process already, so that loading it takes no memory. */
  hasWeights(device: string, checkpoint: NativeCheckpoint, requests: readonly WeightRequest[]): boolean[];
  loadWeights(
    device: string,
    checkpoint: NativeCheckpoint,
    requests: readonly WeightRequest[],
    flag: NativeFlag | null,
  ): Promise<NativeWeight[]>;
  createWeight(
    device: string,
    layout: WeightLayout,
    dtype: DType,
    compute: DType,
    quantization: Quantization,
    rows: number,
    columns: number,
    data: TypedArray,
  ): NativeWeight;
  weightInfo(weight: NativeWeight): { readonly dtype: DType | 'int8'; readonly bytes: number };
}

/** The folder of our package.json: the compiled files lie at different depths in the package and in the test build. */
export const packageRoot: string = findPackageRoot(__dirname);

function findPackageRoot(from: string): string {
  for (let folder = from; ; folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    if (existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).name === 'warpsight') return folder;
    if (dirname(folder) === folder) throw new WarpsightError('ERR_ADDON', `warpsight's package.json was not found above ${from}`);
  }
}

/** "linux-x64", "linux-arm64-musl", "darwin-arm64" */
function platformName(): string {
  const musl = process.platform === 'linux' && existsSync(`/lib/ld-musl-${process.arch === 'x64' ? 'x86_64' : 'aarch64'}.so.1`);
  return `${process.platform}-${process.arch}${musl ? '-musl' : ''}`;
}

function load(): Native {
  const override = process.env.WARPSIGHT_ADDON;
  const built = join(packageRoot, 'build', 'Release', 'warpsight.node');
  const prebuilt = join(packageRoot, 'prebuilds', platformName(), 'warpsight.node');
  const path = override || [built, prebuilt].find((candidate) => existsSync(candidate));
  if (!path) {
    throw new WarpsightError(
      'ERR_ADDON',
      `there is no addon for ${platformName()}: neither ${built} nor ${prebuilt} exists. ` +
        `Build it with \`npm run build\` in ${packageRoot} (it needs a C++20 compiler, and CMake or Python 3 + make).`,
    );
  }
  try {
    const native: Native = createRequire(__filename)(path);
    native.setErrorClass(WarpsightError);
    return native;
  } catch (cause) {
    throw new WarpsightError(
      'ERR_ADDON',
      `the addon ${path} could not be loaded: ${cause instanceof Error ? cause.message : String(cause)}. ` +
        `It may be built for another platform, libc or Node.js; build it again with \`npm run build\` in ${packageRoot}.`,
      { cause },
    );
  }
}

export const native: Native = load();
