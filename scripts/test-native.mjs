// node scripts/test-native.mjs asan|neon: the programs of native/test (each ends with "N passed, N failed").
//   asan  with AddressSanitizer and UBSan on this machine, then the tests of parsers and of the binding in Node on the same addon
//   neon  compiled for arm64 and run by qemu-user: the CPU operations with NEON
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { configureOnce } from './addon.mjs';
import { buildWithSanitizers } from './build-asan.mjs';
import { mocha, report, testProgram } from './mocha.mjs';
import { capture, fail, root, run } from './process.mjs';
import { findCmake, packages, which } from './toolchain.mjs';
import { compile } from './typescript.mjs';

const tests = JSON.parse(readFileSync(join(root, 'native', 'sources.json'), 'utf8')).test.map(
  (file) => /([^/]+)\.cpp$/.exec(file)[1],
);
if (tests.length === 0) fail('native/sources.json names no test');

/** The programs that run once for each set of instructions. */
const kEachIsa = new Set(['ops_golden', 'bfloat16_test']);

/** Runs every program in `folder`. `prefix` is the emulator, if any. */
async function runAll(folder, isas, { prefix = [], env = {} } = {}) {
  const runs = [];
  for (const test of tests) {
    for (const isa of kEachIsa.has(test) ? isas : [undefined]) {
      console.log(`\n${test}${isa ? ` with WARPSIGHT_ISA=${isa}` : ''}`);
      const command = [...prefix, join(folder, test), ...(test === 'ops_golden' ? ['cpu'] : [])];
      runs.push(await testProgram(command, { env: { ...env, ...(isa && { WARPSIGHT_ISA: isa }) } }));
    }
  }
  return runs;
}

/** What this processor can run; WARPSIGHT_ISA of a set that it lacks is an error. */
function isasHere() {
  if (process.platform !== 'linux') return ['generic'];
  const words = new Set(readFileSync('/proc/cpuinfo', 'utf8').split(/\s+/));
  const all = {
    avx2: 'avx2',
    avx_vnni: 'avx_vnni',
    avx512bw: 'avx512',
    avx512_vnni: 'avx512_vnni',
    avx512_bf16: 'avx512_bf16',
    amx_bf16: 'amx',
    asimd: 'neon',
    asimddp: 'neon_dotprod',
  };
  return ['generic', ...Object.keys(all).flatMap((flag) => (words.has(flag) ? [all[flag]] : []))];
}

const sanitizerOptions = {
  ASAN_OPTIONS: 'detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1:allocator_may_return_null=1',
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
};

async function asan() {
  const addon = buildWithSanitizers();
  const runs = await runAll(join(root, 'build-asan', 'test'), isasHere(), { env: sanitizerOptions });
  // Node keeps some memory until its end and tests of exit codes need the code that the leak check would replace: leaks are looked
  // for in the native tests only.
  const specs = readdirSync(join(root, 'test'), { recursive: true }).filter((name) =>
    /^(checkpoint|ops|program|tensor|models)\b.*\.test\.ts$/.test(name),
  );
  if (specs.length > 0) {
    compile('tsconfig.json');
    const runtime = capture(process.env.CXX ?? 'c++', ['-print-file-name=libasan.so']).stdout.trim();
    const env = {
      ...sanitizerOptions,
      ASAN_OPTIONS: 'detect_leaks=0:allocator_may_return_null=1',
      LD_PRELOAD: runtime,
      WARPSIGHT_ADDON: addon,
    };
    const files = specs.sort().map((name) => join('dist', 'test', name).replace(/\.ts$/, '.js'));
    runs.push(await mocha(['--no-config', '--timeout', '300000', ...files], { env }));
  }
  report(runs);
}

async function neon() {
  const compiler = which('aarch64-linux-gnu-g++') ?? which('aarch64-linux-gnu-g++-12');
  const emulator = which('qemu-aarch64') ?? which('qemu-aarch64-static');
  if (!compiler || !emulator) fail(`an arm64 compiler and qemu-user are needed.\n${packages('emulator')}`);
  const cmake = findCmake();
  if (cmake === undefined) fail(`CMake is needed.\n${packages('cmake')}`);
  const folder = join(root, 'build-neon');
  const options = {
    CMAKE_SYSTEM_NAME: 'Linux',
    CMAKE_SYSTEM_PROCESSOR: 'aarch64',
    CMAKE_CXX_COMPILER: compiler,
    WARPSIGHT_BINDING: 'OFF',
  };
  configureOnce(folder, options, () => {
    const defines = Object.entries(options).map(([name, value]) => `-D${name}=${value}`);
    run(cmake, ['-S', root, '-B', folder, ...defines]);
  });
  run(cmake, ['--build', folder, '--parallel', process.env.WARPSIGHT_JOBS ?? '2', '--target', 'native_tests']);
  const prefix = [emulator, '-L', '/usr/aarch64-linux-gnu', '-cpu', 'max'];
  report(await runAll(join(folder, 'test'), ['neon', 'neon_dotprod'], { prefix }));
}

const kinds = { asan, neon };
const kind = kinds[process.argv[2]];
if (kind === undefined) fail('usage: node scripts/test-native.mjs asan|neon');
await kind();
