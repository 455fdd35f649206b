import { spawn, spawnSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { CLIP, ZeroShotClassifier } from '../../lib';
import { packageRoot } from '../../lib/native';
import { fixtures, needsFixtures, readFixture, readMeta } from '../support/fixtures';
import { expectClose, minCosine } from '../support/numbers';
import { program, warpsight } from './program';

const rocket = join(packageRoot, 'examples', 'rocket.jpg');

/** A .npy file as the format's description reads. */
function parseNpy(bytes: Buffer): { shape: number[]; values: Float32Array } {
  expect(bytes.subarray(0, 8)).to.deep.equal(Buffer.from('\x93NUMPY\x01\x00', 'latin1'));
  const start = 10 + bytes.readUInt16LE(8);
  expect(start % 64).to.equal(0);
  const header = bytes.toString('latin1', 10, start);
  expect(header)
    .to.match(/'descr': '<f4', 'fortran_order': False/)
    .and.to.match(/\n$/);
  const shape = /'shape': \((\d+), (\d+)\)/.exec(header)!.slice(1).map(Number);
  return { shape, values: new Float32Array(Uint8Array.from(bytes.subarray(start)).buffer) };
}

describe('warpsight, the program', function () {
  this.timeout(60_000);
  let folder: string;
  let clip: CLIP;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'warpsight-cli-'));
    clip = await CLIP.fromPretrained(undefined, { device: 'cpu' });
  });
  after(async () => {
    clip?.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  async function expected(images: string[]): Promise<Float32Array> {
    const features = await clip.encodeImage(images, { normalize: true });
    const values = await features.read();
    features.dispose();
    return values;
  }

  it('prints its version and its help', async () => {
    const file: { readonly version: string } = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8'));
    expect(await warpsight(['--version'])).to.deep.equal({ code: 0, out: `${file.version}\n`, err: '' });
    const { code, out } = await warpsight(['--help']);
    expect(code).to.equal(0);
    for (const name of ['classify', 'embed', 'chat', 'bench', 'info']) expect(out).to.contain(`warpsight ${name}`);
    expect((await warpsight(['classify', '--help'])).out)
      .to.contain('--labels-file')
      .and.to.contain('Examples');
  });

  it('classifies as the library does: columns in a pipe, JSON on request', async () => {
    const labels = ['cat', 'rocket', 'car'];
    const classifier = new ZeroShotClassifier(clip, labels);
    const result = await classifier.classify(rocket);
    classifier.dispose();

    const columns = await warpsight(['classify', rocket, '--labels', labels.join(',')]);
    expect(columns.code).to.equal(0);
    const lines = result.scores.map(({ label, score }) => `${rocket}\t${label}\t${score.toFixed(6)}\n`);
    expect(columns.out).to.equal(lines.join(''));

    const json = await warpsight(['classify', rocket, rocket, '-l', 'cat,rocket', '-l', 'car', '--top-k', '1', '--json']);
    const documents = json.out
      .trimEnd()
      .split('\n')
      .map((line): unknown => JSON.parse(line));
    expect(documents).to.deep.equal(Array(2).fill({ image: rocket, ...result, scores: result.scores.slice(0, 1) }));
  });

  it('takes labels from a file, paths from stdin, and several templates', async () => {
    const names = join(folder, 'names.txt');
    await writeFile(names, 'cat\r\n\n rocket \n');
    const templates = ['a photo of a {}', 'a drawing of a {}'];
    const classifier = new ZeroShotClassifier(clip, ['cat', 'rocket'], { template: templates });
    const { score } = await classifier.classify(rocket);
    classifier.dispose();
    const flags = templates.flatMap((template) => ['--template', template]);
    const { code, out } = await warpsight(['--json', 'classify', ...flags, '--labels-file', names, '--', '-'], {
      stdin: `${rocket}\n\n`,
    });
    expect(code).to.equal(0);
    expect(JSON.parse(out)).to.include({ image: rocket, label: 'rocket', score });
  });

  it('writes embeddings as .npy, .safetensors and JSON lines: the same numbers', async () => {
    const wanted = await expected([rocket]);
    const width = wanted.length;
    const npy = join(folder, 'e.npy');
    expect((await warpsight(['embed', '--image', rocket, rocket, '--out', npy])).code).to.equal(0);
    const { shape, values } = parseNpy(await readFile(npy));
    expect(shape).to.deep.equal([2, width]);
    expect(values).to.deep.equal(Float32Array.of(...wanted, ...wanted));

    const safetensors = join(folder, 'e.safetensors');
    expect((await warpsight(['embed', rocket, '--out', safetensors])).code).to.equal(0);
    const bytes = await readFile(safetensors);
    const length = Number(bytes.readBigUInt64LE());
    const header: Record<string, unknown> = JSON.parse(bytes.toString('utf8', 8, 8 + length));
    expect(header.embeddings).to.deep.equal({ dtype: 'F32', shape: [1, width], data_offsets: [0, 4 * width] });
    expect(new Float32Array(Uint8Array.from(bytes.subarray(8 + length)).buffer)).to.deep.equal(wanted);

    const text = await clip.encodeText(['a cat'], { normalize: true });
    const line: { embedding: number[] } = JSON.parse((await warpsight(['embed', '--text', 'a cat'])).out);
    expect(line).to.deep.equal({ text: 'a cat', embedding: [...(await text.read())] });
    text.dispose();
  });

  it("writes files that numpy reads, with the reference's embeddings", async function () {
    needsFixtures(this);
    const reference = readFixture('clip-tiny-quickgelu', 'expected');
    const meta = readMeta<{ texts: string[]; pictures: string[]; tolerance: { float32: { max_rel: number } } }>(
      'clip-tiny-quickgelu',
    );
    const model = join(fixtures, 'clip-tiny-quickgelu', 'checkpoint');
    const texts = join(folder, 'texts.npy');
    const pictures = join(folder, 'pictures.npy');
    const paths = meta.pictures.map((path) => join(fixtures, 'clip-tiny-quickgelu', path));
    expect(await warpsight(['embed', '--model', model, '--out', texts, '--text', ...meta.texts])).to.include({ code: 0 });
    expect(await warpsight(['embed', '--model', model, '--out', pictures, ...paths])).to.include({ code: 0 });
    const { max_rel } = meta.tolerance.float32;
    expectClose(parseNpy(await readFile(texts)).values, reference.get('text_embeds')!.data, max_rel);
    const { values, shape } = parseNpy(await readFile(pictures));
    // decoders of JPEG differ by a grey level or two, so the pictures' tolerance is that of the model's own test
    expect(minCosine(values, reference.get('pictures.image_embeds')!.data, shape[1]!)).to.be.at.least(0.9999);

    const python = process.platform === 'linux' ? '/usr/bin/python3' : 'python3';
    const script = 'import sys, numpy; a = numpy.load(sys.argv[1]); print(a.shape, a.dtype, *a[0].tolist())';
    const { status, stdout } = spawnSync(python, ['-c', script, pictures], { encoding: 'utf8' });
    if (status !== 0) {
      console.log(`skipped: ${python} has no numpy`);
      this.skip();
    }
    const read = /^\((\d+), (\d+)\) float32 (.*)$/m.exec(stdout)!;
    expect([Number(read[1]), Number(read[2])]).to.deep.equal(shape);
    expect(read[3]!.split(' ').map(Number)).to.deep.equal([...values.subarray(0, shape[1]!)]);
  });

  it('reports a broken picture, goes on, and ends with 1', async () => {
    const broken = join(folder, 'broken.jpg');
    await writeFile(broken, 'no picture');
    const out = join(folder, 'all.npy');
    const embedded = await warpsight(['embed', broken, rocket, '--out', out]);
    expect(embedded.code).to.equal(1);
    expect(embedded.err.split('\n')[0]).to.match(/^warpsight: image ".*broken\.jpg": /);
    const { values } = parseNpy(await readFile(out));
    const width = values.length / 2;
    expect([...values.subarray(0, width)].every(Number.isNaN)).to.equal(true);
    expect(values.subarray(width)).to.deep.equal(await expected([rocket]));

    const classified = await warpsight(['classify', broken, rocket, '-l', 'cat,rocket', '--json']);
    expect(classified.code).to.equal(1);
    const [first, second] = classified.out.trimEnd().split('\n');
    expect(JSON.parse(first!)).to.have.nested.property('error.code', 'ERR_IMAGE');
    expect(JSON.parse(second!)).to.include({ image: rocket });
  });

  it('leaves no file where it failed', async () => {
    const out = join(folder, 'none.npy');
    expect((await warpsight(['embed', rocket, '--out', out, '--model', join(folder, 'nowhere')])).code).to.equal(1);
    expect(await readdir(folder)).not.to.include('none.npy');
    expect((await readdir(folder)).filter((name) => name.endsWith('.partial'))).to.deep.equal([]);
  });

  it('shows the machine and the model', async () => {
    const report: { devices: { name: string }[]; model: unknown } = JSON.parse((await warpsight(['info', '--json'])).out);
    expect(report.devices.map(({ name }) => name)).to.include('cpu');
    expect(report.model).to.deep.include({ name: 'clip-pictograms', dtype: clip.dtype, weightBytes: clip.memoryUsage().weights });
    expect((await warpsight(['info'])).out).to.match(/^warpsight +\d+\.\d+\.\d+, Node\.js/);
  });

  const wrong: [string, string[], RegExp][] = [
    ['no command', [], /a command is needed: classify, embed, chat, bench, info/],
    ['an unknown command', ['clasify'], /unknown command clasify: did you mean classify\?/],
    ['an unknown option', ['classify', rocket, '--lables', 'a'], /unknown option --lables: did you mean --labels\?/],
    ['no labels', ['classify', rocket], /labels are needed/],
    ['a label twice', ['classify', rocket, '-l', 'a,a'], /the class "a" is there twice/],
    ['a count that is none', ['classify', rocket, '-l', 'a', '--top-k', 'x'], /--top-k must be a whole number .*: it is "x"/],
    ['an unknown option of no command', ['--verison'], /unknown option --verison: did you mean --version\?/],
    ['an option without its value', ['classify', rocket, '--labels'], /needs a value/],
    ['another format', ['embed', rocket, '--out', 'e.csv'], /must end in \.npy, \.safetensors or \.jsonl/],
    ['another device', ['info', '--device', 'tpu'], /--device must be auto, cpu, cuda or cuda:N: it is "tpu"/],
  ];
  for (const [name, args, message] of wrong) {
    it(`answers ${name} with one sentence and 2`, async () => {
      const { code, out, err } = await warpsight(args);
      expect(err)
        .to.match(message)
        .and.not.to.match(/\n +at /);
      expect({ code, out }).to.deep.equal({ code: 2, out: '' });
    });
  }

  it('answers a missing model with one sentence and 1; --verbose adds the stack', async () => {
    const { code, err } = await warpsight(['info', join(folder, 'nowhere')]);
    expect(code).to.equal(1);
    expect(err).to.match(/^warpsight: checkpoint .*there is no such folder.*\n$/);
    expect((await warpsight(['info', join(folder, 'nowhere'), '--verbose'])).err).to.match(/\n +at /);
  });

  it('ends with 130 on Ctrl-C, and leaves no part of a file', async function () {
    if (process.platform === 'win32') {
      console.log('skipped: Windows has no SIGINT between processes');
      this.skip();
    }
    const list = join(folder, 'interrupted.npy');
    const child = spawn(process.execPath, [program, 'embed', '-', '--out', list], { stdio: ['pipe', 'ignore', 'pipe'] });
    let err = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      err += chunk;
      if (err.includes('nothing.jpg')) child.kill('SIGINT'); // it is at work
    });
    child.stdin.end(`nothing.jpg\n${`${rocket}\n`.repeat(5000)}`);
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).to.equal(130);
    expect((await readdir(folder)).filter((name) => name.startsWith('interrupted'))).to.deep.equal([]);
  });

  it('is quiet when its reader leaves early', async () => {
    const inputs = Array.from({ length: 400 }, () => 'a cat');
    const { err, out } = await warpsight(['embed', '--text', ...inputs], { read: 10 });
    expect(err).to.equal('');
    expect(out.length).to.be.greaterThan(9);
  });
});
