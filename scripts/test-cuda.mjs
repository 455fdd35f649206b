// npm run test:cuda: native/test/{gemm_test,ops_golden}.cpp and test/cuda/ on the GPU where there is one, otherwise on gpusim as a device
// of compute capability 9.0 and one of 8.0 (GPUSIM_CC: only that), with its memory, race and initialisation checkers, each in another order
// of warps (GPUSIM_SEED: that one) and with its check of dependent launches.
// Tests named *.wide.test.ts (whole models) run without the checkers that cost time. Nothing may be skipped on either.
// Arguments are spec files (test/cuda/x.test.ts) or options of mocha; with any, the native programs are left out.
import { readdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { buildWithCmake } from './addon.mjs';
import { buildForGpusim } from './build-gpusim.mjs';
import { requireDependencies } from './install.mjs';
import { mocha, report, testProgram } from './mocha.mjs';
import { fail, root } from './process.mjs';
import { cudaWanted, gpus, requirePrerequisites } from './toolchain.mjs';
import { compileIfPossible } from './typescript.mjs';

requirePrerequisites();
requireDependencies();
compileIfPossible('tsconfig.json');

const onGpu = gpus().length > 0;
process.env.WARPSIGHT_CUDA = '1';
const addon = onGpu ? buildWithCmake({ folder: 'build', cuda: cudaWanted(), tests: true }) : buildForGpusim();
const checkers = onGpu ? {} : { GPUSIM_INITCHECK: '1', GPUSIM_RACECHECK: '1' };

const args = process.argv.slice(2);
const named = args.filter((arg) => arg.endsWith('.ts')).map((arg) => relative(root, resolve(arg)));
const options = args.filter((arg) => !arg.endsWith('.ts'));
const specs = (named.length > 0 ? named : testsIn('test/cuda')).map((file) => join('dist', file).replace(/\.ts$/, '.js'));
if (specs.length === 0) fail('test/cuda holds no tests');

const runs = [];
const programs = ['gemm_test', 'ops_golden'];
// The simulator is each of the two devices whose kernels differ, unless it is told to be one.
const tiers = onGpu ? [undefined] : process.env.GPUSIM_CC ? [process.env.GPUSIM_CC] : ['9.0', '8.0'];
for (const tier of tiers) {
  const place = onGpu ? gpus()[0].name : `gpusim, compute capability ${tier}`;
  const simulator = onGpu ? {} : { GPUSIM_CC: tier };
  // With the check of dependent launches only gemm_test: of ops_golden's none depends on another; test/cuda has its cases in programs.
  const settings = onGpu
    ? [{ env: {}, programs }]
    : [
        { env: { ...checkers, GPUSIM_SEED: process.env.GPUSIM_SEED ?? (tier === '8.0' ? '2' : '1') }, programs },
        ...(tier === '9.0' ? [{ env: { GPUSIM_PDLCHECK: '1' }, programs: ['gemm_test'] }] : []),
      ];
  for (const { env, programs } of args.length === 0 ? settings : []) {
    for (const program of programs) {
      const path = join(root, onGpu ? 'build' : 'build-gpusim', 'test', program);
      const title = Object.entries(env).map(([name, value]) => `${name}=${value}`);
      console.log(`\n${[place, ...title].join(' ')}: ${relative(root, path)}`);
      runs.push(await testProgram(program === 'ops_golden' ? [path, 'cuda:0'] : [path], { env: { ...simulator, ...env } }));
    }
  }
  for (const wide of [false, true]) {
    const files = specs.filter((file) => file.endsWith('.wide.test.js') === wide);
    if (files.length === 0) continue;
    console.log(`\n${place}: ${wide ? 'whole models' : 'operations'}, ${files.length} files`);
    const dependent = tier === '9.0' ? { GPUSIM_PDLCHECK: '1' } : {};
    const env = { WARPSIGHT_ADDON: addon, ...simulator, ...(wide ? {} : { ...checkers, ...dependent }) };
    const fixed = [
      '--no-config',
      '--forbid-pending',
      '--forbid-only',
      '--timeout',
      '600000',
      '--node-option',
      'enable-source-maps',
    ];
    runs.push(await mocha([...fixed, ...options, ...files], { env }));
  }
}
report(runs);

function testsIn(folder) {
  const names = readdirSync(join(root, folder), { recursive: true }).filter((name) => name.endsWith('.test.ts'));
  return names.map((name) => join(folder, name)).sort();
}
