import { expect } from 'chai';
import { CLIP, device, devices } from '../lib';
import { expectError } from './support/errors';

describe('device()', () => {
  const cuda = devices().find(({ name }) => name === 'cuda:0');

  it('lists the CPU first, and says why CUDA is not usable where it is not', () => {
    const [cpu] = devices();
    expect(cpu).to.include({ name: 'cpu', usable: true });
    expect(cuda?.usable === true || /CUDA|NVIDIA/.test(cuda?.reason ?? ''), cuda?.reason).to.equal(true);
  });

  it("takes CUDA for 'auto' where it is usable, else the CPU", () => {
    expect(device().name).to.equal(cuda?.usable ? 'cuda:0' : 'cpu');
    expect(device('cpu').name).to.equal('cpu');
  });

  it('never puts the CPU in the place of CUDA: it is an error with the reason', async () => {
    if (cuda?.usable) {
      expect(device('cuda').name).to.equal('cuda:0');
    } else {
      const message = `cuda:0 is not usable: ${cuda?.reason}`;
      await expectError(() => device('cuda'), 'ERR_DEVICE', message);
      await expectError(() => CLIP.fromPretrained(undefined, { device: 'cuda' }), 'ERR_DEVICE', message);
    }
    await expectError(() => device('cuda:99'), 'ERR_DEVICE', /^cuda:99 /);
  });

  it('refuses other names', async () => {
    await expectError(
      () => device('gpu' as 'cuda'),
      'ERR_DEVICE',
      `device must be 'auto', 'cpu', 'cuda' or 'cuda:N': it is "gpu"`,
    );
  });
});
