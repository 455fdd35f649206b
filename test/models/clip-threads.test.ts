// A whole model gives the same bits at any number of threads, with every instruction set of this machine.
import { expect } from 'chai';
import { childResult, runChild } from '../lifecycle/child';
import { skipIfLacking } from '../support/levels';

const kThreads = ['1', '2', '3', '7'];

describe('CLIP gives the same bits at any number of threads', () => {
  const given = process.env.WARPSIGHT_ISA;
  after(() => {
    if (given === undefined) delete process.env.WARPSIGHT_ISA;
    else process.env.WARPSIGHT_ISA = given;
  });

  for (const isa of ['avx512', 'avx2', 'neon', 'generic']) {
    it(`with ${isa}`, async function () {
      this.timeout(300_000); // plain C++ takes its time
      process.env.WARPSIGHT_ISA = isa;
      const { stderr } = await runChild('thread-bits', []);
      skipIfLacking(this, stderr);
      const digests = await childResult<string[]>('thread-bits', kThreads);
      expect(digests).to.deep.equal(kThreads.map(() => digests[0]));
    });
  }
});
