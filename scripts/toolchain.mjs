// What this machine can build with: the one place that looks for a compiler, CMake, node-gyp, nvcc and a GPU.
import { cpSync, existsSync, realpathSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join, resolve } from 'node:path';
import { capture, fail, root } from './process.mjs';

const windows = process.platform === 'win32';
const require = createRequire(join(root, 'package.json'));

/** The path of a program on PATH, or undefined. */
export function which(name) {
  const endings = windows ? ['.exe', '.cmd', '.bat'] : [''];
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    for (const ending of endings) {
      const path = join(folder, name + ending);
      if (folder !== '' && existsSync(path)) return path;
    }
  }
  return undefined;
}

/**
 * nvcc itself, not a wrapper script of the same name, and the toolkit it belongs to; from CUDA_HOME, PATH or /usr/local/cuda.
 * @returns {{ nvcc: string, toolkit: string, version: string } | undefined}
 */
export function findCuda() {
  const home = process.env.CUDA_HOME ?? process.env.CUDA_PATH;
  const candidates = [home && join(home, 'bin', 'nvcc'), which('nvcc'), '/usr/local/cuda/bin/nvcc'].filter(Boolean);
  for (const candidate of candidates) {
    const { ok, stdout } = capture(candidate, ['--version']);
    if (!ok) continue;
    const plan = capture(candidate, ['--dryrun', '-c', 'x.cu']).stderr;
    const top = /^#\$ TOP=(.*)$/m.exec(plan)?.[1]?.trim();
    const toolkit = resolve(top ?? join(dirname(realpathSync(candidate)), '..'));
    const nvcc = join(toolkit, 'bin', windows ? 'nvcc.exe' : 'nvcc');
    return { nvcc, toolkit, version: /release ([\d.]+)/.exec(stdout)?.[1] ?? 'unknown' };
  }
  return undefined;
}

/**
 * The GPUs that the driver shows.
 * @returns {{ name: string, capability: string }[]} capability as "9.0"; empty where there is no driver or no GPU
 */
export function gpus() {
  for (const program of ['nvidia-smi', '/usr/lib/wsl/lib/nvidia-smi']) {
    const { ok, stdout } = capture(program, ['--query-gpu=name,compute_cap', '--format=csv,noheader']);
    if (!ok) continue;
    const rows = stdout.trim().split('\n').filter(Boolean);
    return rows.map((row) => {
      const [name = '', capability = ''] = row.split(',').map((cell) => cell.trim());
      return { name, capability };
    });
  }
  return [];
}

/** What an addon for any GPU holds; the kernels for Hopper use instructions that only the variant 90a has. */
const everyArch = ['80', '86', '89', '90a'];

/**
 * nvcc's -gencode values for a list of architectures: machine code for each, with one front end for all of a major number.
 * @param {string} archs words between semicolons: "native" (the GPUs seen, or all), "all", compute capabilities without the dot ("80"), and
 *   "ptx": GPUs that come later get the PTX of the highest that is no variant, as they take that of none
 * @returns {string[]} "arch=compute_80,code=[sm_80,sm_86,compute_80]", "arch=compute_90a,code=sm_90a"
 */
export function gencode(archs) {
  const words = archs.split(/[;,\s]+/).filter(Boolean);
  const listed = new Set(words.filter((word) => word !== 'ptx').flatMap(archsOf));
  const fronts = new Map(); // virtual architecture → what is made from it
  for (const arch of [...listed].sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10))) {
    const shared = [...fronts.keys()].find((front) => /^\d+$/.test(front + arch) && front.slice(0, -1) === arch.slice(0, -1));
    const front = shared ?? arch;
    fronts.set(front, [...(fronts.get(front) ?? []), `sm_${arch}`]);
  }
  if (words.includes('ptx')) {
    const latest = [...fronts.keys()].filter((front) => /^\d+$/.test(front)).at(-1);
    if (latest === undefined)
      fail(`WARPSIGHT_CUDA_ARCHS: ptx needs an architecture that is no variant, such as 80, beside it: "${archs}"`);
    fronts.get(latest).push(`compute_${latest}`);
  }
  return [...fronts].map(([front, codes]) => `arch=compute_${front},code=${codes.length > 1 ? `[${codes}]` : codes[0]}`);
}

function archsOf(word) {
  if (word === 'all') return everyArch;
  if (word === 'native') {
    const seen = gpus().map(({ capability }) => capability.replace('.', ''));
    return seen.length > 0 ? seen.flatMap(archsOf) : everyArch;
  }
  if (!/^\d{2,3}[af]?$/.test(word))
    fail(`WARPSIGHT_CUDA_ARCHS: "${word}" is no compute capability: give native, all, or a list such as 80;90a;ptx`);
  return [word === '90' ? '90a' : word];
}

/** Whether and for what the CUDA backend is built, from the environment and what is there; see README, "Building". */
export function cudaWanted() {
  const asked = process.env.WARPSIGHT_CUDA;
  if (asked === '0') return undefined;
  const cuda = findCuda();
  const archs = process.env.WARPSIGHT_CUDA_ARCHS;
  if (asked === '1' && cuda === undefined) {
    fail(`WARPSIGHT_CUDA=1, but there is no nvcc in CUDA_HOME, on PATH or in /usr/local/cuda.\n${packages('nvcc')}`);
  }
  if (cuda === undefined || (asked !== '1' && gpus().length === 0)) return undefined;
  return { ...cuda, gencode: gencode(archs ?? 'native') };
}

/** CMake's path, or undefined. WARPSIGHT_CMAKE=0 pretends that there is none. */
export function findCmake() {
  return process.env.WARPSIGHT_CMAKE === '0' ? undefined : which('cmake');
}

/** The script of node-gyp: ours, or the one that npm brings. */
export function findNodeGyp() {
  try {
    return require.resolve('node-gyp/bin/node-gyp.js');
  } catch {
    return process.env.npm_config_node_gyp ?? npmsNodeGyp();
  }
}

function npmsNodeGyp() {
  const npm = process.env.npm_execpath ?? which('npm');
  if (npm === undefined) return undefined;
  const script = join(dirname(realpathSync(npm)), '..', 'node_modules', 'node-gyp', 'bin', 'node-gyp.js');
  return existsSync(script) ? script : undefined;
}

/**
 * A folder with include/node for node-gyp, so that it downloads nothing: that of this node, or one made from node-api-headers, which
 * hold all that Node-API needs. Undefined on Windows, which needs node.lib as well: there node-gyp downloads.
 */
export function nodeHeaders() {
  const prefix = resolve(dirname(realpathSync(process.execPath)), '..');
  if (existsSync(join(prefix, 'include', 'node', 'common.gypi'))) return prefix;
  if (windows) return undefined;
  const made = join(root, 'build-headers');
  const folder = join(made, 'include', 'node');
  cpSync(require('node-api-headers').include_dir, folder, { recursive: true });
  const settings = { default_configuration: 'Release', configurations: { Release: {}, Debug: {} } };
  writeFileSync(join(folder, 'common.gypi'), JSON.stringify({ target_defaults: settings }));
  writeFileSync(join(folder, 'config.gypi'), JSON.stringify(process.config));
  return made;
}

/** What is missing on this machine for a build, checked before anything starts; ends the process with the packages to install. */
export function requirePrerequisites() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19))
    fail(`Node.js 20.19 or later is needed; this is ${process.version}.\n${packages('node')}`);
  if (!windows && !hasCompiler()) fail(`a C++20 compiler (g++ 11, clang 14 or later) is needed.\n${packages('compiler')}`);
  if (findCmake() === undefined && !hasGyp()) {
    fail(`CMake, or Python 3 with make, is needed to build the addon.\n${packages('cmake')}`);
  }
}

function hasCompiler() {
  const compilers = [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean);
  const program = '#include <span>\n#include <version>\nstatic_assert(__cpp_lib_span >= 202002L);\n';
  return compilers.some(
    (compiler) => capture(compiler, ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-'], { input: program }).ok,
  );
}

function hasGyp() {
  const python = process.env.PYTHON ?? (windows ? 'python' : 'python3');
  return findNodeGyp() !== undefined && capture(python, ['--version']).ok && (windows || which('make') !== undefined);
}

const commands = {
  node: ['nodejs  (Node 20.19 or later: https://nodejs.org)', 'node', 'OpenJS.NodeJS.LTS'],
  compiler: [
    'g++',
    'llvm  (or: xcode-select --install)',
    'Microsoft.VisualStudio.2022.BuildTools --override "--passive --add Microsoft.VisualStudio.Workload.VCTools --includeRecommended"',
  ],
  cmake: ['cmake', 'cmake', 'Kitware.CMake'],
  nvcc: ['nvidia-cuda-toolkit', undefined, 'Nvidia.CUDA'],
  'clang-format': ['clang-format', 'clang-format', 'LLVM.LLVM'],
  valgrind: ['valgrind', undefined, undefined],
  emulator: ['g++-aarch64-linux-gnu qemu-user', undefined, undefined],
};

/** The lines that install something with apt, brew or winget. */
export function packages(what) {
  const [apt, brew, winget] = commands[what];
  const lines = [`  apt:    sudo apt-get install ${apt}`];
  if (brew !== undefined) lines.push(`  brew:   brew install ${brew}`);
  if (winget !== undefined) lines.push(`  winget: winget install ${winget}`);
  return lines.join('\n');
}
