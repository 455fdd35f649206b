// The native program of bench:gemm, which the build leaves beside the addon that is used.
import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import { packageRoot } from '../lib/native';
import { copyBandwidthOf, type GemmDevice } from './gemm-report';

const addon = process.env.WARPSIGHT_ADDON ?? join(packageRoot, 'build', 'Release', 'warpsight.node');
export const gemmProgram: string = resolve(addon, '..', '..', 'bench', 'bench_gemm');

/** What a copy on the device reads and writes together, measured in a process of its own. @returns GB/s */
export function copyBandwidth(): number {
  const { status, stdout, stderr } = spawnSync(gemmProgram, ['--device-only', '--rounds', '5'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${gemmProgram}: ${stderr}`);
  return copyBandwidthOf(JSON.parse(stdout) as GemmDevice) / 1e9;
}
