import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect } from 'chai';
import { CLIP, device, Weight } from '../../lib';
import { packageRoot } from '../../lib/native';
import { expectError } from '../support/errors';
import { needsFixtures } from '../support/fixtures';
import { skipIfLacking } from '../support/levels';

/** The levels that multiply in bfloat16. */
const kWithBfloat16 = ['amx', 'avx512_bf16', 'avx512_vnni', 'avx512', 'generic'];

describe("dtype: 'bfloat16' on the CPU", () => {
  for (const isa of kWithBfloat16) {
    it(`agrees with the references with ${isa}`, function () {
      needsFixtures(this);
      const mocha = require.resolve('mocha/bin/mocha.js');
      const file = join(packageRoot, 'dist', 'test', 'models', 'bfloat16-golden.js');
      const { status, stdout, stderr } = spawnSync(process.execPath, [mocha, '--no-config', '--timeout', '300000', file], {
        encoding: 'utf8',
        env: { ...process.env, WARPSIGHT_ISA: isa },
      });
      skipIfLacking(this, stdout + stderr);
      expect(status, stdout + stderr).to.equal(0);
      expect(Number(/(\d+) passing/.exec(stdout)?.[1])).to.be.above(30);
    });
  }

  const [here] = device('cpu').description.split(',') as [string];
  if (!kWithBfloat16.includes(here)) {
    const message = `products in bfloat16 need AVX-512 on the cpu: this one computes with ${here}; use float32`;

    it('is refused, with what is missing, where it would be slower', async () => {
      await expectError(() => CLIP.fromPretrained(undefined, { device: 'cpu', dtype: 'bfloat16' }), 'ERR_DTYPE', message);
      const matrix = async () => Weight.matrix(new Float32Array(4), [2, 2], { compute: 'bfloat16' });
      await expectError(matrix, 'ERR_DTYPE', message);
    });
  }

  it('is refused together with int8, which leaves nothing to multiply in it', async () => {
    const message = "quantization 'int8' leaves nothing to multiply in bfloat16: dtype must be 'auto' or 'float32'";
    const both = { device: 'cpu', dtype: 'bfloat16', quantization: 'int8' } as const;
    await expectError(() => CLIP.fromPretrained(undefined, both), 'ERR_CONFIG', message);
  });

  it('leaves float16 to CUDA', async () => {
    const message =
      'the CPU multiplies in float32 or bfloat16: float16 needs a CUDA device (weights stay in their stored type in float32)';
    await expectError(() => CLIP.fromPretrained(undefined, { device: 'cpu', dtype: 'float16' }), 'ERR_DTYPE', message);
  });
});
