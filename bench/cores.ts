import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';

/** "0-2,5" of the kernel's lists of processors */
export function parseCpuList(text: string): number[] {
  return text
    .trim()
    .split(',')
    .filter(Boolean)
    .flatMap((range) => {
      const [first, last = first] = range.split('-').map(Number);
      return Array.from({ length: last! - first! + 1 }, (_, i) => first! + i);
    });
}

/** Processors that this process may use, one of each core; undefined where nothing can be pinned (no Linux). */
export function ownCores(): number[] | undefined {
  const [, allowed] = /^Cpus_allowed_list:\s*(\S+)/m.exec(readIfThere('/proc/self/status')) ?? [];
  if (allowed === undefined) return undefined;
  const taken = new Set<number>();
  return parseCpuList(allowed).filter((cpu) => {
    if (taken.has(cpu)) return false;
    for (const sibling of parseCpuList(readIfThere(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`)))
      taken.add(sibling);
    return true;
  });
}

/** The command, and its arguments, with `taskset` in front where the cores are known. */
export function pinned(cores: readonly number[] | undefined, command: string, args: readonly string[]): [string, string[]] {
  return cores ? ['taskset', ['-c', cores.join(','), command, ...args]] : [command, [...args]];
}

/** How many threads can have a core each. */
export function coreCount(): number {
  return ownCores()?.length ?? availableParallelism();
}

/** Bytes of the largest cache, 32 MiB where nobody says. */
export function lastLevelCacheBytes(): number {
  const folder = '/sys/devices/system/cpu/cpu0/cache';
  const sizes = (existsSync(folder) ? readdirSync(folder) : []).map((index) => readIfThere(join(folder, index, 'size')));
  const kibibytes = sizes.map((size) => Number.parseInt(size, 10)).filter((size) => size > 0);
  return kibibytes.length > 0 ? Math.max(...kibibytes) * 1024 : 32 << 20;
}

/** Whether products of 8 bits are summed in 32: VNNI, or the dot products that NEON has. */
export function sumsBytesIn32Bits(): boolean {
  return process.arch === 'arm64' || /\bavx(512)?_vnni\b/.test(readIfThere('/proc/cpuinfo'));
}

/** "AMD EPYC (family 25, model 17)": hosts that hide a processor's name leave these two, which tell its generation. @param info /proc/cpuinfo */
export function cpuName(model = cpus()[0]?.model ?? 'unknown', info = readIfThere('/proc/cpuinfo')): string {
  const [, family] = /^cpu family\s*: (\d+)$/m.exec(info) ?? [];
  const [, number] = /^model\s*: (\d+)$/m.exec(info) ?? [];
  return family && number ? `${model} (family ${family}, model ${number})` : model;
}

/** "amd-epyc-family-25-model-17" */
export function cpuSlug(name = cpuName()): string {
  return name
    .toLowerCase()
    .replace(/\((r|tm)\)|\bcpu\b|@[^(]*|\bprocessor\b/g, ' ')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

function readIfThere(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
