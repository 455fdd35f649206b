// The stand-in for the CUDA runtime that executes kernels on the CPU: built once per version of its sources, outside of them.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { availableParallelism, homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { fail, root, run } from './process.mjs';
import { findCuda, packages } from './toolchain.mjs';

/** The folder of its sources: WARPSIGHT_GPUSIM, or ../shared/gpusim beside the package. */
export const gpusimSources = resolve(root, process.env.WARPSIGHT_GPUSIM ?? '../shared/gpusim');

/**
 * Builds it unless that was done before.
 * @returns {{ folder: string, nvcc: string, toolkit: string }} the folder with libcudart.so.13
 */
export function buildGpusim() {
  const cuda = findCuda();
  if (cuda === undefined) fail(`nvcc is needed to compile the kernels.\n${packages('nvcc')}`);
  if (!existsSync(join(gpusimSources, 'Makefile'))) {
    fail(`gpusim is not in ${gpusimSources}: WARPSIGHT_GPUSIM names the folder with its Makefile`);
  }
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'warpsight');
  const folder = join(cache, `gpusim-${hash(gpusimSources)}`);
  if (!existsSync(folder)) {
    const unfinished = `${folder}.${process.pid}`; // renamed when whole, so that two builds at once don't meet
    mkdirSync(unfinished, { recursive: true });
    const jobs = process.env.WARPSIGHT_JOBS ?? String(availableParallelism());
    run('make', ['-C', gpusimSources, '-j', jobs, `BUILD=${unfinished}`, `CUDA=${cuda.toolkit}`]);
    rmSync(join(unfinished, 'obj'), { recursive: true });
    if (existsSync(folder)) rmSync(unfinished, { recursive: true });
    else renameSync(unfinished, folder);
  }
  return { folder, ...cuda };
}

function hash(folder) {
  const sum = createHash('sha256');
  const files = readdirSync(join(folder, 'src'), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((entry) => join(entry.parentPath, entry.name)).sort();
  for (const path of [join(folder, 'Makefile'), ...paths]) sum.update(path.slice(folder.length)).update(readFileSync(path));
  return sum.digest('hex').slice(0, 16);
}
