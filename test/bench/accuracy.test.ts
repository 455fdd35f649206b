// bench:accuracy: its arithmetic, and a short run with two pictures.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import sharp from 'sharp';
import { type Features, ranked, type Score, scores } from '../../bench/accuracy';
import { packageRoot } from '../../lib/native';

const rows = (...values: number[][]) => values.map((row) => Float32Array.from(row));
const texts = rows(
  [1, 0, 0, 0, 0, 0],
  [0, 1, 0, 0, 0, 0],
  [0, 0, 1, 0, 0, 0],
  [0, 0, 0, 1, 0, 0],
  [0, 0, 0, 0, 1, 0],
  [0, 0, 0, 0, 0, 1],
);
const of = (...images: number[][]): Features => ({ images: rows(...images), texts });

describe('the score of bench:accuracy', () => {
  it('ranks the names by their cosine', () => {
    expect(ranked(of([0.3, 0.9, -0.1, 0.2, 0, 0.25]))).deep.equal([[1, 0, 5, 3, 4, 2]]);
  });

  it('counts a picture whose name comes first, or among the first five, and what the first engine said as well', () => {
    const right = of([1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]);
    // the first picture's name comes last, the second's third
    const wrong = of([-1, 5, 4, 3, 2, 1], [3, 1, 2, 0, 0, 0]);
    const [first, second] = scores({ right, wrong });
    expect(first).include({ engine: 'right', top1: 1, top5: 1, same: 2, imageCosine: 1, textCosine: 1 });
    expect(second).include({ engine: 'wrong', top1: 0, top5: 0.5, same: 0, textCosine: 1 });
    expect(second!.imageCosine).approximately(-1 / Math.sqrt(56), 1e-12);
  });
});

describe('bench:accuracy', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'warpsight-accuracy-test-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  function run(...args: readonly string[]) {
    const script = join(packageRoot, 'dist', 'bench', 'accuracy.js');
    return spawnSync(process.execPath, [script, ...args], {
      encoding: 'utf8',
      env: { ...process.env, OUT: join(folder, 'out') },
    });
  }

  it('holds ours in each form against onnxruntime, whose towers are made from the checkpoint', async function () {
    this.timeout(120_000);
    const pizza = { create: { width: 80, height: 60, channels: 3, background: '#d33' } } as const;
    await sharp(join(packageRoot, 'examples', 'rocket.jpg'))
      .png()
      .toFile(join(folder, 'rocket.png'));
    await sharp(pizza).png().toFile(join(folder, 'pizza.png'));
    writeFileSync(join(folder, 'names.txt'), 'rocket\npizza\n');
    const { status, stderr } = run(folder, '--names', join(folder, 'names.txt'));
    expect(stderr).equal('');
    expect(status).equal(0);
    const json = readdirSync(join(folder, 'out')).find((name) => name.endsWith('.json'))!;
    const written: { scores: Score[] } = JSON.parse(readFileSync(join(folder, 'out', json), 'utf8'));
    const least = (engine: string) => {
      const score = written.scores.find((each) => each.engine === engine)!;
      return Math.min(score.imageCosine, score.textCosine);
    };
    expect(least('warpsight, float32')).above(1 - 1e-6);
    expect(least('warpsight, int8')).within(0.995, 1 - 1e-6);
    expect(least('onnxruntime, dynamically quantised')).within(0.99, 1 - 1e-6);
    expect(written.scores[0]).include({ engine: 'onnxruntime, float32', same: 2, top5: 1 });
  });

  it('refuses a checkpoint whose layers are not those of the exported towers', () => {
    const config = readFileSync(join(packageRoot, 'models', 'clip-pictograms', 'config.json'), 'utf8');
    writeFileSync(join(folder, 'config.json'), config.replace('quick_gelu', 'gelu'));
    writeFileSync(join(folder, 'names.txt'), '');
    const { status, stderr } = run(folder, '--model', folder, '--names', join(folder, 'names.txt'));
    expect(stderr).contain('bench:accuracy wants a CLIP with quickGelu and an eps of 1e-5: it is gelu');
    expect(status).equal(1);
  });

  it('says which picture it lacks, and that it wants a folder', () => {
    writeFileSync(join(folder, 'names.txt'), 'rocket\n');
    expect(run(folder, '--names', join(folder, 'names.txt')).stderr).contain(`${folder} has no picture of rocket`);
    expect(run().stderr).contain('bench:accuracy wants a folder of pictures, named NAME.png: none was given');
  });
});
