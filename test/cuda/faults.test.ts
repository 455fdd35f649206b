// What goes wrong on a device: shapes without a kernel, tensors of two devices, a device that isn't there, and a kernel that never ends.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect } from 'chai';
import { device, devices, ops, Tensor, Weight } from '../../lib';
import { packageRoot } from '../../lib/native';
import { expectError } from '../support/errors';
import { normal } from '../support/numbers';
import { kDevice, kernelOf, takePlanned } from './evidence';

const simulated = devices().some(({ description }) => description.startsWith('gpusim'));

async function expectUsable(): Promise<void> {
  using x = Tensor.from(Float32Array.of(1, 3, 2), [1, 3], { device: kDevice });
  using y = ops.argmax(x);
  expect(takePlanned().at(-1)).to.include({ device: kDevice, op: 'argmax', kernel: kernelOf('argmax', 'float32') });
  expect([...(await y.read())]).to.deep.equal([1]);
}

describe('faults on CUDA', () => {
  it('a shape that no kernel serves is an error that names operation and shape', async () => {
    const headWidth = 60_000; // a query of 234 KiB in shared memory
    const layout = { heads: 1, headWidth, offsets: [0, 0, 0], maxQueries: 1, maxKeys: 1 } as const;
    const rule =
      /^attention\(\[1, 60000\], \[1, 60000\], \[1, 60000\], -, -\): no kernel of attention serves this shape: 240000 bytes of shared memory are needed, and a block has \d+$/;
    using x = Tensor.from(new Float32Array(headWidth), [1, headWidth], { device: kDevice });
    using y = ops.attentionRows(x, x, x, layout);
    await expectError(() => y.read(), 'ERR_SHAPE', rule);

    // Recorded among others, it says which of them it is.
    const program = device(kDevice).compile(
      (given) => {
        const twice = ops.add(given as Tensor<'float32'>, given as Tensor<'float32'>);
        return ops.argmax(ops.attentionRows(twice, twice, twice, layout));
      },
      [{ shape: [1, headWidth] }],
    );
    using z = await program.run([x]);
    await expectError(() => z.read(), 'ERR_SHAPE', rule);
    program.dispose();
    await expectUsable();
  });

  it('tensors of two devices in one operation or program are an error', async () => {
    using here = Tensor.from(normal(12, 1), [3, 4], { device: kDevice });
    using there = Tensor.from(normal(12, 2), [3, 4], { device: 'cpu' });
    using weight = Weight.matrix(normal(8, 3), [2, 4], { device: 'cpu' });
    const rule = (op: string) => `${op}: everything must be on one device: one input is on cuda:0, another on cpu`;
    await expectError(() => ops.add(here, there), 'ERR_DEVICE', rule('binary'));
    await expectError(() => ops.linear(here, weight), 'ERR_DEVICE', rule('linear'));
    const compile = () => device(kDevice).compile((x) => ops.add(x as Tensor<'float32'>, there), [{ shape: [3, 4] }]);
    await expectError(compile, 'ERR_DEVICE', rule('binary'));
    const program = device(kDevice).compile((x) => ops.argmax(x as Tensor<'float32'>), [{ shape: [3, 4] }]);
    await expectError(() => program.run([there]), 'ERR_DEVICE', 'the tensor is on cpu, the program on cuda:0');
    program.dispose();
    await expectUsable();
  });

  it('a device that is not there is an error that says how many are', async () => {
    const count = devices().filter(({ name }) => name.startsWith('cuda:')).length;
    for (const name of ['cuda:99', `cuda:${count}`] as const) {
      const message = `${name} does not exist: this machine has ${count} CUDA device(s), from cuda:0`;
      await expectError(() => device(name), 'ERR_DEVICE', message);
      await expectError(() => Tensor.from([1], [1], { device: name }), 'ERR_DEVICE', message);
    }
    await expectUsable();
  });

  if (simulated) {
    it('a kernel that never ends loses the device with one cause; the process and the CPU go on', async () => {
      const script = `
        const { device, devices, ops, Tensor, Weight } = require(${JSON.stringify(join(packageRoot, 'dist', 'lib', 'index.js'))});
        const told = [];
        const tell = async (work) => told.push(await Promise.resolve().then(work).then((y) => [...y], ({ code, message }) => code + ' ' + message));
        (async () => {
          const cuda = device('cuda:0');
          const small = Tensor.from([1, 3, 2], [1, 3], { device: 'cuda:0' });
          const large = Tensor.from(new Float32Array(1 << 18), [512, 512], { device: 'cuda:0' });
          const weight = Weight.matrix(new Float32Array(4), [2, 2], { device: 'cuda:0' });
          const program = cuda.compile((x) => ops.argmax(x), [{ shape: [1, 3] }]);
          await tell(async () => (await program.run([small])).read());
          const endless = ops.linear(large, large);
          const behind = ops.argmax(endless); // queued before anything was lost
          await tell(() => endless.read());
          await tell(() => behind.read());
          await tell(() => ops.argmax(small).read());
          await tell(async () => (await program.run([small])).read());
          await tell(() => small.read());
          await tell(() => Tensor.from([1], [1], { device: 'cuda:0' }).read());
          await tell(() => Weight.vector([1], { device: 'cuda:0' }));
          await tell(() => cuda.memory());
          await tell(() => cuda.compile((x) => ops.argmax(x), [{ shape: [1, 3] }]).profile([Float32Array.of(1, 2, 3)]));
          for (const each of [small, large, weight, program, endless, behind]) each.dispose();
          await tell(() => ops.argmax(Tensor.from([1, 3, 2], [1, 3], { device: 'cpu' })).read());
          console.log(JSON.stringify(told));
        })();`;
      const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['-'], {
        input: script,
        encoding: 'utf8',
        env: { ...process.env, GPUSIM_MAX_INSNS: '20000' }, // of one launch, in which the small ones end
        timeout: 120_000,
      });
      expect({ status, signal }, stderr).to.deep.equal({ status: 0, signal: null });
      const [before, endless, ...rest] = JSON.parse(stdout) as unknown[];
      const after = rest.pop();
      expect(before).to.deep.equal([1]);
      expect(after, 'the CPU').to.deep.equal([1]);
      const lost = 'cuda:0 is lost until the process is started again: \\w+: the launch timed out and was terminated';
      const step = 'linear\\(\\[512, 512\\], \\[512, 512\\], -, -\\)';
      expect(endless).to.match(new RegExp(`^ERR_DEVICE_LOST ${step}: ${lost}$`));
      for (const told of rest) expect(told).to.match(new RegExp(`^ERR_DEVICE_LOST .*${lost}$`));
      expect(rest).to.have.length(8);
    });
  }
});
