import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { packageRoot } from '../lib/native';
import { ModelFolders } from './field/model-folder';
import { blipWeights, tinyBlip, tinyVilt, viltWeights } from './models/pair-shapes';

const rocket = join(packageRoot, 'examples', 'rocket.jpg');
const vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'what', 'is', 'it', '?', 'a', 'rocket'];

async function run(name: string, args: readonly string[]): Promise<string[]> {
  const { stdout } = await promisify(execFile)(process.execPath, [join(packageRoot, 'examples', name), ...args]);
  return stdout.trim().split('\n');
}

describe('examples', () => {
  const folders = new ModelFolders();
  const files = (processor: object) => ({ 'vocab.txt': vocabulary.join('\n'), 'preprocessor_config.json': processor });

  it('early-fusion.js answers a question about a picture', async () => {
    const config = tinyVilt({ id2label: { 0: 'yes', 1: 'no' } });
    const processor = { image_processor_type: 'ViltImageProcessor', size: 24, size_divisor: 8 };
    const folder = folders.model(config, { tensors: viltWeights(config, 2), files: files(processor) });
    const lines = await run('early-fusion.js', [folder, rocket, 'what is it?']);
    expect(lines.map((line) => line.split('%  ')[1]).sort()).to.deep.equal(['no', 'yes']);
  });

  it('mid-fusion.js finds pictures for a text, and judges them', async () => {
    const config = tinyBlip();
    const processor = { image_processor_type: 'BlipImageProcessor', size: 24 };
    const folder = folders.model(config, { tensors: blipWeights(config), files: files(processor) });
    const lines = await run('mid-fusion.js', [folder, 'a rocket', rocket, rocket]);
    expect(lines).to.have.length(2);
    for (const line of lines) expect(line).to.match(/^ *\d+\.\d % {2}\(cosine -?\d\.\d\d\) {2}.*rocket\.jpg$/);
  });

  it('late-fusion.js: what both say counts', async () => {
    const rows = (await run('late-fusion.js', [])).map((line) => [...line.matchAll(/(\w+) (-?\d\.\d\d)/g)]);
    const best = rows.map((row) => row.reduce((a, b) => (Number(b[2]) > Number(a[2]) ? b : a))[1]);
    expect(best.slice(0, 2)).to.deep.equal(['rocket', 'star']);
    expect(best[2]).to.be.oneOf(['rocket', 'star']);
  });
});
