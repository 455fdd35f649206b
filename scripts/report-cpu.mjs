// npm run report:cpu: instructions that the main loops of the CPU backend execute, counted by callgrind, in docs/cpu-report.md. A step's count is the
// difference between two runs and one, so that planning and packing weights have no part in it. It knows nothing of time: it says how much
// of a loop is arithmetic. On x86-64 the kernels are those for AVX2, as valgrind has no AVX-512; on arm64 those for NEON.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildWithCmake } from './addon.mjs';
import { capture, captureAsync, fail, root } from './process.mjs';
import { cudaWanted, packages, requirePrerequisites, which } from './toolchain.mjs';

const isa = process.arch === 'arm64' ? 'neon' : 'avx2';
const env = { WARPSIGHT_ISA: isa };
/** Floats of a vector register: a multiply-add can't take less than one instruction for so many. */
const lanes = { avx2: 8, neon: 4 }[isa];

/** Instructions of a whole process, by what callgrind prints last: "Collected : 123". */
function collected(text) {
  const found = /Collected\s*:\s*(\d+)/.exec(text)?.[1];
  return found === undefined ? undefined : Number(found);
}

/** Of one run of a step. */
async function instructions(program, index) {
  const [once, twice] = await Promise.all(
    [1, 2].map(async (count) => {
      const options = ['--tool=callgrind', '--callgrind-out-file=/dev/null', program, String(index), String(count)];
      const { ok, stderr } = await captureAsync('valgrind', options, { env });
      const found = ok ? collected(stderr) : undefined;
      return found ?? fail(`valgrind did not count the instructions of step ${index}:\n${stderr}`);
    }),
  );
  return twice - once;
}

/** A row of the table. */
function row({ name, kernel, units, unit }, counted, width) {
  const each = counted / units;
  const share = unit === 'multiply-add' ? `${(100 / width / each).toFixed(1)} %` : '';
  return `| ${name} | \`${kernel}\` | ${Math.round(counted)} | ${each.toFixed(4)} per ${unit} | ${share} |`;
}

async function main() {
  requirePrerequisites();
  if (which('valgrind') === undefined) fail(`valgrind is needed to count instructions.\n${packages('valgrind')}`);
  const folder = cudaWanted() ? 'build-cpu' : 'build'; // a build with CUDA stays where it is
  buildWithCmake({ folder, targets: ['cpu_loops'] });
  const program = join(root, folder, 'bench', 'cpu_loops');
  const { ok, stdout, stderr } = capture(program, [], { env });
  if (!ok) fail(`${program} failed:\n${stderr}`);
  const steps = stdout
    .trim()
    .split('\n')
    .map((line) => {
      const [name, kernel, units, unit] = line.split('\t');
      return { name, kernel, units: Number(units), unit };
    });
  const rows = [];
  for (const [index, step] of steps.entries()) {
    rows.push(row(step, await instructions(program, index), lanes));
    console.log(rows.at(-1));
  }
  const compiler = capture(process.env.CXX ?? 'c++', ['--version']).stdout.split('\n')[0];
  const report = `# Instructions of the CPU backend's main loops

Written by \`npm run report:cpu\` with ${compiler}: callgrind's count of all instructions of a step on one thread, packing of rows included,
weights packed before. *Of the fewest*: where each instruction were a fused multiply-add of ${lanes} numbers, there would be 1/${lanes} for a
multiply-add; the rest are loads, broadcasts, stores, softmax and the like, which run beside them.

| step | kernel | instructions | each | of the fewest |
|---|---|---|---|---|
${rows.join('\n')}
`;
  writeFileSync(join(root, 'docs', 'cpu-report.md'), report);
}

await main();
