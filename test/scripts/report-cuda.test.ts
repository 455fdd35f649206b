import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect } from 'chai';

const root = resolve(__dirname, '../../..'); // from dist/test/scripts

/** What an expression over the functions of report-cuda.mjs gives. */
function evaluate<T>(expression: string, ...given: readonly unknown[]): T {
  const code = `import * as report from './scripts/report-cuda.mjs';
    const given = ${JSON.stringify(given)};
    console.log(JSON.stringify(${expression}));`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    cwd: root,
    encoding: 'utf8',
  });
  expect(status, stderr).equal(0);
  return JSON.parse(stdout);
}

// nvcc 13.0, gemv.cu and made up remarks
const kSymbol =
  '_ZN9warpsight4cuda39_GLOBAL__N__1b6b5a24_7_gemv_cu_47e1c41711gemv_kernelI13__nv_bfloat16S3_EEvNS0_8RowMajorIT_L_ZNS0_5kPackEEEENS4_IT0_L_ZNS0_5kPackEEEEPKfPKS5_PS5_NS_10ActivationE';
const kText = `ptxas info    : 0 bytes gmem
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to non wgmma instructions
ptxas info    : Compiling entry function '${kSymbol}' for 'sm_90a'
ptxas info    : Function properties for ${kSymbol}
    16 bytes stack frame, 24 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 102 registers, used 1 barriers, 16 bytes cumulative stack size, 1024 bytes smem
ptxas info    : Compile time = 16.563 ms
ptxas info    : Compiling entry function '${kSymbol}' for 'sm_80'
ptxas info    : Function properties for ${kSymbol}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 101 registers, used 0 barriers, 428 bytes cmem[0], 8 bytes cmem[2]`;

/** Counters as gpusim writes them: 100 loads of 512 bytes, 80 accesses to shared memory. */
const kStats = {
  launches: 2,
  smem: 49152,
  warp_instructions: 1000,
  instructions: { int: 300, tensor: 250 },
  global_load_requests: 100,
  global_load_sectors: 1600,
  global_load_efficiency: 1,
  global_store_requests: 0,
  global_store_sectors: 0,
  global_store_efficiency: 1,
  shared_load_wavefronts: 0,
  shared_store_wavefronts: 20,
  ldmatrix_wavefronts: 60,
  shared_extra_wavefronts: 0,
  tensor_flops: 995,
  fp32_flops: 5,
  half_flops: 0,
};
const kResources = { registers: 128, spills: 0, stack: 0, shared: 0 };

/** The problems of one kernel. */
function problems(name: string, stats: object, resources: object = {}): string[] {
  return evaluate(
    "report.problemsOf([{ name: given[0], on: new Map([['sm_80', given[1]]]), loops: new Map([['8.0', report.countedOf(given[2], 0)]]) }])",
    name,
    { ...kResources, ...resources },
    { ...kStats, ...stats },
  );
}

describe('npm run report:cuda', () => {
  it('takes the PTX of each architecture out of an object', () => {
    const text = (arch: string) => `.version 9.0\n.target ${arch}\n.address_size 64\n\n.visible .entry f()\n`;
    const object = `\x7fELF\0 .target \0${text('sm_80')}\0\0\xff${text('sm_90a')}\0more`;
    expect(evaluate("[...report.ptxOf(Buffer.from(given[0], 'latin1'))]", object)).deep.equal([
      ['sm_80', text('sm_80')],
      ['sm_90a', text('sm_90a')],
    ]);
  });

  it('reads what ptxas says of each kernel, and its remarks', () => {
    const { entries, warnings } = evaluate<{ entries: unknown[]; warnings: string[] }>('report.parsePtxas(given[0])', kText);
    expect(entries).deep.equal([
      { symbol: kSymbol, arch: 'sm_90a', resources: { registers: 102, spills: 32, stack: 16, shared: 1024 } },
      { symbol: kSymbol, arch: 'sm_80', resources: { registers: 101, spills: 0, stack: 0, shared: 0 } },
    ]);
    expect(warnings).deep.equal([kText.split('\n')[1]]);
  });

  it('names kernels as programs do', () => {
    expect(evaluate('report.readableNames(given[0])', [kSymbol, 'main'])).deep.equal(['gemv<bf16, bf16>', 'main']);
  });

  it('turns counters into proportions', () => {
    const stats = { ...kStats, shared_extra_wavefronts: 16, global_load_efficiency: 0.5 };
    expect(evaluate('report.countedOf(given[0], 1024)', stats)).deep.equal({
      dynamic: 48128,
      conflicts: 0.25,
      loads: { perRequest: 16, ideal: 8 },
      tensor: 0.995,
      tensorInstructions: 0.25,
    });
  });

  it('takes what lies around a main loop away', () => {
    const longer = {
      ...kStats,
      warp_instructions: 1500,
      instructions: { int: 400, tensor: 500 },
      global_load_requests: 150,
      global_load_sectors: 2400,
      global_load_efficiency: 5 / 6,
      ldmatrix_wavefronts: 180,
      shared_extra_wavefronts: 60,
    };
    const { loads, conflicts, tensorInstructions } = evaluate<{ loads: object; conflicts: number; tensorInstructions: number }>(
      'report.countedOf(report.turnsOf(given[0], given[1]), 0)',
      kStats,
      longer,
    );
    expect(loads).deep.equal({ perRequest: 16, ideal: 8 });
    expect({ conflicts, tensorInstructions }).deep.equal({ conflicts: 1, tensorInstructions: 0.5 });
  });

  const gemm = 'gemm_sm80<half>';
  for (const [what, name, stats, resources, expected] of [
    ['nothing that is in order', gemm, {}, {}, []],
    ['spills of any kernel', 'norm<half>', {}, { spills: 4 }, ['norm<half> for sm_80 spills 4 bytes']],
    ['a stack', 'norm<half>', {}, { stack: 8 }, ['norm<half> for sm_80 has 8 bytes of stack, 0 are allowed']],
    ['no stack that is known', 'rope<half>', {}, { stack: 32 }, []],
    [
      'bank conflicts',
      gemm,
      { shared_extra_wavefronts: 16 },
      {},
      ['gemm_sm80<half> on 8.0 has 0.250 bank conflicts per access, 0 are allowed'],
    ],
    [
      'sectors that hold more than was asked for',
      gemm,
      { global_load_efficiency: 0.5 },
      {},
      ['gemm_sm80<half> on 8.0 loads 16.00 (8.00) sectors per request, 1 x the fewest are allowed'],
    ],
    [
      'work that tensor cores could do',
      gemm,
      { fp32_flops: 995 },
      {},
      ['gemm_sm80<half> on 8.0 does 50.0 % of its work on tensor cores, 99.0 % are needed'],
    ],
    ['no counters of other kernels', 'gemm_simt<half>', { shared_extra_wavefronts: 16, tensor_flops: 0 }, {}, []],
  ] as const) {
    it(`reports ${what}`, () => {
      expect(problems(name, stats, resources)).deep.equal(expected);
    });
  }
});
