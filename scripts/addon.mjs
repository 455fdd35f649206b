// Builds the addon with CMake (through cmake-js, which knows Node's headers) or with node-gyp.
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fail, root, run } from './process.mjs';
import { findCmake, findNodeGyp, nodeHeaders, packages } from './toolchain.mjs';

const require = createRequire(join(root, 'package.json'));
const jobs = process.env.WARPSIGHT_JOBS ?? String(availableParallelism());

/**
 * @typedef {object} CudaBuild
 * @property {string} nvcc
 * @property {string} toolkit
 * @property {string[]} gencode
 * @property {string} [rpath] folder of a shared CUDA runtime to run with; without it the runtime is linked in
 *
 * @param {{ folder: string, cuda?: CudaBuild | undefined, sanitize?: boolean, tests?: boolean, targets?: string[] }} build
 *   folder: relative to the package; tests: the native ones as well; targets: further ones of CMakeLists.txt
 * @returns {string} the addon's path
 */
export function buildWithCmake({ folder, cuda, sanitize = false, tests = false, targets = [] }) {
  const cmake = findCmake();
  if (cmake === undefined) fail(`CMake is needed for this build.\n${packages('cmake')}`);
  const options = {
    WARPSIGHT_CUDA: cuda ? 'ON' : 'OFF',
    ...(cuda && {
      WARPSIGHT_NVCC: cuda.nvcc,
      WARPSIGHT_GENCODE: cuda.gencode.join(';'),
      WARPSIGHT_CUDART: cuda.rpath ? 'Shared' : 'Static',
      ...(cuda.rpath && { WARPSIGHT_RPATH: cuda.rpath }),
    }),
    WARPSIGHT_SANITIZE: sanitize ? 'ON' : 'OFF',
  };
  const output = join(root, folder);
  configureOnce(output, options, () => {
    const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
    const defines = Object.entries(options).map(([name, value]) => `--CD${name}=${value}`);
    run(process.execPath, [cmakeJs, 'configure', '-O', output, '-d', root, '-l', 'warn', ...defines]);
  });
  const all = ['warpsight', ...(tests ? ['native_tests'] : []), ...targets];
  run(cmake, ['--build', output, '--config', 'Release', '--parallel', jobs, '--target', ...all]);
  return join(output, 'Release', 'warpsight.node');
}

/** Calls `configure` in an empty folder unless it was done there with the same options: CMake keeps a cache that ignores changed ones. */
export function configureOnce(folder, options, configure) {
  const record = join(folder, 'warpsight-options.json');
  const wanted = JSON.stringify({ root, options }, null, 2);
  const done = existsSync(record) && readFileSync(record, 'utf8') === wanted;
  if (done) return;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  configure();
  writeFileSync(record, wanted);
}

/**
 * The same addon through binding.gyp. node-gyp always writes to build/, so another folder gets links to what it needs.
 * @param {{ folder?: string, cuda?: CudaBuild | undefined }} build folder: a folder of links; without it the package itself
 * @returns {string} the addon's path
 */
export function buildWithGyp({ folder, cuda }) {
  const nodeGyp = findNodeGyp();
  if (nodeGyp === undefined) fail('node-gyp is not installed: npm install --no-save node-gyp@12');
  const place = folder === undefined ? root : join(root, folder);
  if (folder !== undefined) {
    mkdirSync(place, { recursive: true });
    for (const name of ['binding.gyp', 'native', 'node_modules', 'package.json', 'scripts']) {
      rmSync(join(place, name), { force: true });
      symlinkSync(join(root, name), join(place, name), 'junction');
    }
  }
  const options = {
    cuda: cuda ? '1' : '0',
    ...(cuda && { nvcc: cuda.nvcc, toolkit: cuda.toolkit, gencode: cuda.gencode.map((code) => `-gencode=${code}`).join(' ') }),
  };
  const defines = Object.entries(options).map(([name, value]) => `-D${name}=${value}`);
  const headers = nodeHeaders();
  const gyp = (...args) => [nodeGyp, ...args, '-C', place, '--loglevel', 'warn', ...(headers ? ['--nodedir', headers] : [])];
  // make would run gyp again when these change, with paths that don't fit a folder of links
  const inputs = ['binding.gyp', 'native/sources.json'].map((file) => readFileSync(join(root, file), 'utf8'));
  configureOnce(join(place, 'build'), { gyp: options, inputs }, () => {
    run(process.execPath, [...gyp('configure'), '--', ...defines]);
  });
  run(process.execPath, gyp('build', '-j', jobs));
  return join(place, 'build', 'Release', 'warpsight.node');
}
