// What this process holds of the machine's memory, from /proc.
import { readFileSync, writeFileSync } from 'node:fs';

/** Resident memory in bytes. */
export function residentBytes(): number {
  return statusBytes('VmRSS');
}

/** The most resident memory since forgetPeak(), in bytes. */
export function peakBytes(): number {
  return statusBytes('VmHWM');
}

/** Starts the peak anew, at what is resident now. */
export function forgetPeak(): void {
  writeFileSync('/proc/self/clear_refs', '5');
}

function statusBytes(field: string): number {
  const [, kibibytes] = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  return Number(kibibytes) * 1024;
}
