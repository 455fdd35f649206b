import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import sharp from 'sharp';
import { kSizes, makeCheckpoint } from '../../bench/make-checkpoint';
import { holdDecoded, inDecodeSlot, releaseDecoded } from '../../lib/preprocess/image-slots';
import { childResult, temporaryFolder } from './child';

interface Concurrent {
  readonly peak: number;
  readonly wrong: number;
  readonly displaced: number;
}

describe('many encodes at once', () => {
  before(function () {
    if (existsSync('/proc/self/clear_refs')) return;
    console.log('skipped: resident memory is read from /proc, which this system does not have');
    this.skip();
  });

  const folder = temporaryFolder((path) => makeCheckpoint(path, kSizes.micro!));

  async function picture(name: string, width: number, height: number): Promise<string> {
    const path = join(folder.path, name);
    const noise = Buffer.from(Uint8Array.from({ length: 3 * 64 }, (_, i) => (i * 37) % 256));
    await sharp(noise, { raw: { width: 8, height: 8, channels: 3 } })
      .resize(width, height, { fit: 'fill' })
      .jpeg()
      .toFile(path);
    return path;
  }

  it('1,000 are right, in order, and take little memory', async () => {
    const path = await picture('small.jpg', 160, 120);
    const { peak, wrong, displaced } = await childResult<Concurrent>('concurrent', [folder.path, path, '1000']);
    expect(wrong).to.equal(0);
    expect(displaced, 'places from its own').to.be.below(50);
    expect(peak).to.be.below(100e6);
  });

  it('wait with decoding while the device is busy: pictures of 9 MB each do not pile up', async () => {
    const path = await picture('large.jpg', 2000, 1500);
    const { peak, wrong } = await childResult<Concurrent>('concurrent', [folder.path, path, '60', 'busy']);
    expect(wrong).to.equal(0);
    expect(peak).to.be.below(300e6); // all of them have 540 MB
  });
});

describe('inDecodeSlot()', () => {
  it('decodes nothing more while too many pixels wait for a model', async () => {
    const bytes = 64 << 20;
    holdDecoded(bytes);
    let decoded = false;
    const decoding = inDecodeSlot(async () => {
      decoded = true;
    });
    await nextTurn();
    expect(decoded).to.equal(false);
    releaseDecoded(bytes);
    await decoding;
    expect(decoded).to.equal(true);
  });
});
