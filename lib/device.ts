import type { DType } from './dtype';
import { WarpsightError } from './errors';
import { type Counters, type DeviceInfo, type DeviceMemory, native } from './native';
import { compile, type InputSpec, type Program, type ProgramResult } from './program';
import { type Peaks, peaksOf } from './roofline';
import type { Tensor } from './tensor';

export type DeviceName = 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;

/** A device of this process; get it with {@link device}. */
export class Device {
  /** @internal */
  constructor(
    /** 'cpu', 'cuda:0' */
    readonly name: string,
    readonly description: string,
  ) {}

  /** Bytes on the device, in total and free, and what this process holds there. */
  memory(): DeviceMemory {
    return native.deviceMemory(this.name);
  }

  /**
   * From here on this process takes at most so many bytes of the device, weights included; what it has stays. Beyond it is ERR_OUT_OF_MEMORY of the
   * tensor or model that needed them, and the device stays usable.
   *
   * @param bytes null: no limit
   * @throws {WarpsightError} ERR_ARGUMENT; ERR_DEVICE on the CPU, whose memory the system limits
   */
  limitMemory(bytes: number | null): void {
    native.limitMemory(this.name, bytes);
  }

  /**
   * What the roofline of profiles is made of: figures of the GPU's data sheet, or for the CPU measured once. Undefined for a GPU that is not in the
   * table.
   */
  peaks(): Promise<Peaks | undefined> {
    return peaksOf(this.name);
  }

  /**
   * Traces `fn` once with tensors that have shapes but no numbers, and plans it as a program that is replayed with one native call; on CUDA as one
   * graph launch. `fn` must call operations only; which ones must not depend on numbers.
   */
  compile<R extends ProgramResult>(fn: (...inputs: Tensor<DType>[]) => R, inputs: readonly InputSpec[]): Program<R> {
    return compile(this.name, fn, inputs);
  }
}

/** Every device that this machine might have, with the reason where one can't be used. */
export function devices(): DeviceInfo[] {
  return native.devices();
}

/**
 * 'auto' is CUDA where it can be used, else the CPU; the name of what was chosen is in `.name`.
 *
 * @throws {WarpsightError} ERR_DEVICE with the reason if the device asked for can't be used
 */
export function device(name: DeviceName = 'auto'): Device {
  if (typeof name !== 'string' || !/^(auto|cpu|cuda(:\d{1,3})?)$/.test(name)) {
    throw new WarpsightError('ERR_DEVICE', `device must be 'auto', 'cpu', 'cuda' or 'cuda:N': it is ${JSON.stringify(name)}`);
  }
  const all = native.devices();
  const wanted =
    name === 'auto' ? (all.find((info) => info.name !== 'cpu' && info.usable)?.name ?? 'cpu') : name === 'cuda' ? 'cuda:0' : name;
  native.openDevice(wanted);
  return new Device(wanted, all.find((info) => info.name === wanted)?.description ?? '');
}

/** The number of threads that the CPU backend uses; by default the cores this process may use, or WARPSIGHT_THREADS. */
export function setThreads(count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > 1024) {
    throw new WarpsightError('ERR_ARGUMENT', `setThreads: a whole number from 1 to 1024 is needed: it is ${count}`);
  }
  native.setThreads(count);
}

export function threads(): number {
  return native.threads();
}

/** What this process has executed so far: native calls that queue work, kernels, graph launches, allocations, multiply-adds. */
export function counters(): Counters {
  return native.counters();
}
