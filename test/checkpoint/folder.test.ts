import { execFileSync } from 'node:child_process';
import { statSync, symlinkSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { openCheckpoint } from '../../lib/checkpoint/folder';
import { parseClipModelConfig } from '../../lib/models/clip-config';
import { checkClipTensors, clipTensors } from '../../lib/models/clip-tensors';
import { native } from '../../lib/native';
import { fixtures, needsFixtures } from '../support/fixtures';
import { expectRejection, floats, safetensors, TemporaryFolders, write } from './files';

const temporary = new TemporaryFolders();
const open = (folder: string) => openCheckpoint(folder, native.openCheckpoint);
const kIndex = 'model.safetensors.index.json';

describe('openCheckpoint()', () => {
  afterEach(() => temporary.removeAll());

  for (const [name, files, ignored] of [
    ['clip-tiny-quickgelu', 1, 2],
    ['clip-tiny-gelu-f16', 1, 0],
    ['clip-tiny-ids-bf16', 2, 0],
    ['siglip-tiny', 1, 0],
  ] as const) {
    it(`opens ${name}, whose tensors are those that its config needs`, async function () {
      needsFixtures(this);
      const checkpoint = await open(join(fixtures, name, 'checkpoint'));
      const config = parseClipModelConfig(checkpoint.config);
      expect([...checkpoint.tensors.keys()].sort()).to.deep.equal([...clipTensors(config).keys()].sort());
      checkClipTensors(checkpoint.tensors, config);
      expect(new Set([...checkpoint.tensors.values()].map(({ fileName }) => fileName)).size).to.equal(files);
      const indices = [...checkpoint.tensors.values()].map(({ index }) => index);
      expect(new Set(indices).size).to.equal(indices.length);
      expect(Math.max(...indices)).to.be.within(indices.length - 1, indices.length - 1 + ignored);
    });
  }

  it('takes model.safetensors where there is an index as well', async () => {
    const folder = temporary.make({ 'config.json': {}, 'model.safetensors': floats('logit_scale'), [kIndex]: 'no JSON' });
    const { tensors } = await open(folder);
    expect([...tensors]).to.deep.equal([
      [
        'logit_scale',
        { index: 0, stored: { name: 'logit_scale', dtype: 'F32', shape: [1], file: 0 }, fileName: 'model.safetensors' },
      ],
    ]);
  });

  it('renames what wrappers saved, and leaves out position_ids', async () => {
    const stored = ['clip.logit_scale', 'clip.text_model.a', 'vision_model.b', 'text_model.embeddings.position_ids'];
    const { tensors } = await open(temporary.make({ 'config.json': {}, 'model.safetensors': floats(...stored) }));
    expect([...tensors.keys()].sort()).to.deep.equal(['logit_scale', 'text_model.a', 'vision_model.b']);
  });

  describe('says what is missing in', () => {
    const rejects = (folder: string, message: string | RegExp) => expectRejection(open(folder), 'ERR_CHECKPOINT', message);

    it('a folder that is not there', async () => {
      const folder = join(temporary.make(), 'gone');
      await rejects(folder, `checkpoint ${folder}: there is no such folder`);
    });

    it('an empty folder', async () => {
      const folder = temporary.make();
      await rejects(folder, `checkpoint ${folder}: the folder is empty`);
    });

    it('a file', async () => {
      const file = join(temporary.make({ 'model.safetensors': floats('a') }), 'model.safetensors');
      await rejects(file, `checkpoint ${file}: this is a file; give the folder that holds config.json and the weights`);
    });

    it('a folder without config.json', async () => {
      const folder = temporary.make({ 'model.safetensors': floats('a') });
      await rejects(folder, `checkpoint ${folder}: it has no config.json`);
    });

    it('a folder without weights', async () => {
      const folder = temporary.make({ 'config.json': {} });
      await rejects(folder, `checkpoint ${folder}: it has no model.safetensors or ${kIndex}`);
    });

    it('a folder with pytorch_model.bin alone: with the command that converts it', async () => {
      for (const name of ['pytorch_model.bin', 'pytorch_model-00001-of-00002.bin']) {
        const folder = temporary.make({ 'config.json': {}, [name]: 'pickle' });
        await rejects(
          folder,
          `checkpoint ${folder}: it has pytorch_model.bin only, a pickle, which can run code when it is read and is not supported. ` +
            'Convert it, if you trust it: python3 -c "import sys; from transformers import AutoModel; ' +
            'AutoModel.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1], safe_serialization=True)" ' +
            `'${folder.replaceAll("'", "'\\''")}'`,
        );
        const command = `printf %s '${folder.replaceAll("'", "'\\''")}'`;
        expect(execFileSync('sh', ['-c', command], { encoding: 'utf8' })).to.equal(folder);
      }
    });

    it('a folder of open_clip', async () => {
      await rejects(
        temporary.make({ 'config.json': {}, 'open_clip_model.safetensors': floats('a') }),
        /: it has no model\.safetensors or model\.safetensors\.index\.json, but files of open_clip, whose names are not supported\. /,
      );
      await rejects(
        temporary.make({ 'config.json': {}, 'model.safetensors': floats('visual.conv1.weight') }),
        'checkpoint "model.safetensors": its tensors have the names of open_clip, which are not supported',
      );
    });

    it('a file of one tower alone', async () => {
      await rejects(
        temporary.make({ 'config.json': {}, 'model.safetensors': floats('embeddings.class_embedding', 'encoder.layers.0.x') }),
        'checkpoint "model.safetensors": it has one tower alone ("embeddings.class_embedding", …): both are needed',
      );
    });

    it('a file without tensors', async () => {
      await rejects(
        temporary.make({ 'config.json': {}, 'model.safetensors': safetensors({}) }),
        'checkpoint "model.safetensors": it has no tensors',
      );
    });

    it('a file that has a tensor under two names', async () => {
      await rejects(
        temporary.make({ 'config.json': {}, 'model.safetensors': floats('logit_scale', 'clip.logit_scale') }),
        'checkpoint "model.safetensors": "clip.logit_scale" and "logit_scale" are the same tensor',
      );
    });
  });

  describe('refuses a config.json', () => {
    const rejects = (folder: string, message: string | RegExp) => expectRejection(open(folder), 'ERR_CONFIG', message);

    it('that is no JSON, no UTF-8 or cut off', async () => {
      for (const content of ['{"a": ', 'weights', '', Buffer.from([0x7b, 0xff, 0x7d])]) {
        const folder = temporary.make({ 'config.json': content });
        const error = await open(folder).catch((rejected: Error) => rejected);
        expect(error).to.have.property('code', 'ERR_CONFIG');
        expect(error)
          .to.have.property('message')
          .that.contains(`${join(folder, 'config.json')} is not JSON: `);
      }
    });

    it('that is nested deeper than any parser likes', async () => {
      const folder = temporary.make({ 'config.json': '['.repeat(900_000), 'model.safetensors': floats('a') });
      await rejects(folder, /config\.json is not JSON: /);
    });

    it('that is too large', async () => {
      const folder = temporary.make({ 'config.json': ' '.repeat(1_000_001) });
      await rejects(folder, `${join(folder, 'config.json')} has 1000001 bytes; at most 1000000 are read`);
    });

    it('that is a folder or a named pipe', async function () {
      const folder = temporary.make({ 'config.json/inside': '' });
      await rejects(folder, `${join(folder, 'config.json')} is not a regular file`);
      if (process.platform === 'win32') this.skip();
      const piped = temporary.make();
      execFileSync('mkfifo', [join(piped, 'config.json')]);
      await rejects(piped, `${join(piped, 'config.json')} is not a regular file`);
    });
  });

  describe('with an index', () => {
    const shards = { 'config.json': {}, 'a.safetensors': floats('x', 'y'), 'b.safetensors': floats('z') };
    const indexed = (weight_map: unknown, more: Record<string, string | Uint8Array | object> = {}) =>
      temporary.make({ ...shards, [kIndex]: { metadata: { total_size: 12 }, weight_map }, ...more });
    const rejects = (folder: string, message: string | RegExp) => expectRejection(open(folder), 'ERR_CHECKPOINT', message);

    it('reads the shards that it names', async () => {
      const { tensors } = await open(indexed({ x: 'a.safetensors', y: 'a.safetensors', z: 'b.safetensors' }));
      expect([...tensors].map(([name, { index, fileName }]) => [name, index, fileName])).to.deep.equal([
        ['x', 0, 'a.safetensors'],
        ['y', 1, 'a.safetensors'],
        ['z', 2, 'b.safetensors'],
      ]);
    });

    for (const name of [
      '../a.safetensors',
      '/tmp/a.safetensors',
      'deep/a.safetensors',
      '..\\a.safetensors',
      'a.bin',
      '',
      '..',
      'a.safetensors\0',
    ]) {
      it(`refuses the file name ${JSON.stringify(name)}`, async () => {
        await rejects(
          indexed({ x: name }, { 'deep/a.safetensors': floats('x') }),
          `${kIndex}: the file of "x" must be the name of a .safetensors file in the same folder: it is ${JSON.stringify(name)}`,
        );
      });
    }

    it('refuses what is no map of names', async () => {
      await rejects(
        indexed({ x: 5 }),
        `${kIndex}: the file of "x" must be the name of a .safetensors file in the same folder: it is 5`,
      );
      await rejects(indexed(undefined), `${kIndex}: weight_map is missing: it must name the file of each tensor`);
      await rejects(indexed([]), `${kIndex}: weight_map must be an object: it is []`);
      await rejects(indexed({}), `${kIndex}: weight_map is empty`);
      await rejects(temporary.make({ ...shards, [kIndex]: '[]' }), `${kIndex} must hold an object: it holds []`);
      const many = Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`t${i}`, `s${i}.safetensors`]));
      await rejects(indexed(many), `${kIndex}: it names 1001 files; at most 1000 are read`);
    });

    it('refuses a link that leaves the folder, and follows one that stays or leads to the blobs of a cache', async () => {
      const outside = join(temporary.make({ 'secret.safetensors': floats('x') }), 'secret.safetensors');
      const folder = indexed({ x: 'link.safetensors' });
      symlinkSync(outside, join(folder, 'link.safetensors'));
      await rejects(folder, `${kIndex}: it names link.safetensors, a link that leaves the folder`);

      const staying = indexed({ x: 'link.safetensors' });
      symlinkSync('a.safetensors', join(staying, 'link.safetensors'));
      expect([...(await open(staying)).tensors.keys()]).to.deep.equal(['x', 'y']);

      const cache = temporary.make({ 'models--org--name/blobs/0123abcd': floats('x') });
      const snapshot = join(cache, 'models--org--name', 'snapshots', 'rev');
      write(join(snapshot, 'config.json'), {});
      write(join(snapshot, kIndex), { weight_map: { x: 'link.safetensors' } });
      symlinkSync('../../blobs/0123abcd', join(snapshot, 'link.safetensors'));
      expect((await open(snapshot)).tensors.get('x')).to.include({ index: 0, fileName: 'link.safetensors' });
    });

    it('refuses files and tensors that are not where it says', async () => {
      const gone = indexed({ x: 'gone.safetensors' });
      await rejects(gone, `${kIndex}: it names gone.safetensors, which is not in ${gone}`);
      await rejects(
        indexed({ x: 'a.safetensors', z: 'a.safetensors' }),
        `checkpoint "a.safetensors": "z" is not in it, where ${kIndex} says it is`,
      );
      await rejects(
        indexed({ x: 'a.safetensors', w: 'b.safetensors' }),
        `checkpoint "b.safetensors": "w" is not in it, where ${kIndex} says it is`,
      );
    });

    it('refuses a tensor that two shards have', async () => {
      const folder = indexed({ x: 'a.safetensors', z: 'b.safetensors' }, { 'b.safetensors': floats('z', 'x') });
      await rejects(folder, 'checkpoint "b.safetensors": "x" is in a.safetensors as well');
    });

    it('refuses a shard that is a folder', async () => {
      const folder = indexed({ x: 'c.safetensors' }, { 'c.safetensors/inside': '' });
      await rejects(folder, `checkpoint "c.safetensors": ${join(folder, 'c.safetensors')} is not a regular file`);
    });
  });

  describe('refuses headers that lie, and goes on', () => {
    const entry = (dtype: string, shape: unknown, offsets: unknown) => JSON.stringify({ dtype, shape, data_offsets: offsets });

    for (const [what, bytes, message] of [
      [
        'a file cut off inside its header',
        safetensors({ a: { dtype: 'F32', shape: [2] } }).subarray(0, 20),
        'the header is said to have ',
      ],
      [
        'a file cut off inside its data',
        safetensors({ a: { dtype: 'F32', shape: [2] } }).subarray(0, -1),
        'the header describes 8 bytes of data, but 7 follow',
      ],
      [
        'bytes behind the data',
        safetensors(`{"a":${entry('F32', [1], [0, 4])}}`, 5),
        'the header describes 4 bytes of data, but 5 follow',
      ],
      [
        'overlapping tensors',
        safetensors(`{"k":${entry('F32', [1], [0, 4])},"v":${entry('F32', [1], [0, 4])}}`, 4),
        '"v" starts at byte 0 of the data',
      ],
      [
        'a range that leaves the file',
        safetensors(`{"a":${entry('F32', [3], [0, 12])}}`, 4),
        'the header describes 12 bytes of data, but 4 follow',
      ],
      ['a shape that overflows', safetensors(`{"a":${entry('F32', [2 ** 40, 2 ** 40], [0, 4])}}`, 4), '"a" is too large'],
      ['an unknown dtype', safetensors(`{"a":${entry('F99', [1], [0, 4])}}`, 4), '"a" has the unknown dtype "F99"'],
      [
        'a duplicate key',
        safetensors(`{"a":${entry('F32', [1], [0, 4])},"a":${entry('F32', [1], [0, 4])}}`, 4),
        '"a" occurs twice',
      ],
      ['an empty file', Buffer.alloc(0), 'the file has 0 bytes, too few'],
    ] as const) {
      it(what, async () => {
        const folder = temporary.make({ 'config.json': {}, 'model.safetensors': bytes });
        const error = await open(folder).catch((rejected: Error) => rejected);
        expect(error).to.have.property('code', 'ERR_CHECKPOINT');
        expect(error)
          .to.have.property('message')
          .that.satisfies((text: string) => text.startsWith(`checkpoint "model.safetensors": ${message}`));
        write(join(folder, 'model.safetensors'), floats('a'));
        expect((await open(folder)).tensors.size).to.equal(1);
      });
    }

    it('a file that shrinks while it is read', async () => {
      const folder = temporary.make({ 'config.json': {}, 'model.safetensors': floats('a', 'b') });
      const { handle, tensors } = await open(folder);
      const { size } = statSync(join(folder, 'model.safetensors'));
      truncateSync(join(folder, 'model.safetensors'), size - 2);
      native.openDevice('cpu');
      const load = (name: string) => {
        const parts = [{ tensor: tensors.get(name)!.index, firstRow: 0, rows: 1 }];
        return native.loadWeights(
          'cpu',
          handle,
          [{ layout: 'vector', compute: 'float32', quantization: 'none', columns: 1, parts }],
          null,
        );
      };
      await expectRejection(
        load('b'),
        'ERR_CHECKPOINT',
        `checkpoint "model.safetensors": the file ends early, at byte ${size - 2}: it had ${size} bytes and shrank while it was read`,
      );
      expect(await load('a')).to.have.length(1);
    });

    it('but an odd length of the header is honest', async () => {
      for (let padding = 0; padding < 8; padding++) {
        const bytes = safetensors(`{"a":${entry('F32', [1], [0, 4])}}${' '.repeat(padding)}`, 4);
        expect((await open(temporary.make({ 'config.json': {}, 'model.safetensors': bytes }))).tensors.size).to.equal(1);
      }
    });
  });
});
