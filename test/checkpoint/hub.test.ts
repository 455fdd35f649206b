import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect } from 'chai';
import { cacheFolder, resolveCheckpoint } from '../../lib/checkpoint/hub';
import { expectRejection, TemporaryFolders } from './files';

const temporary = new TemporaryFolders();
const main = 'a'.repeat(40);
const other = 'b'.repeat(40);

/** A cache of one repository, in which `main` and a pull request have snapshots. */
function cache(): string {
  return temporary.make({
    'models--org--na.me/refs/main': `${main}\n`,
    'models--org--na.me/refs/refs/pr/1': other,
    'models--org--na.me/refs/stale': 'c'.repeat(40),
    'models--org--na.me/refs/broken': '../../../../etc',
    [`models--org--na.me/snapshots/${main}/config.json`]: {},
    [`models--org--na.me/snapshots/${other}/config.json`]: {},
  });
}

describe('resolveCheckpoint()', () => {
  afterEach(() => temporary.removeAll());

  it('takes a path that exists as it is', async () => {
    const folder = temporary.make();
    expect(await resolveCheckpoint(folder)).to.equal(folder);
    expect(await resolveCheckpoint('.')).to.equal(process.cwd());
  });

  it('finds org/name in the cache that is given or that the environment names', async () => {
    const hub = cache();
    const snapshot = (commit: string) => join(hub, 'models--org--na.me', 'snapshots', commit);
    expect(await resolveCheckpoint('org/na.me', { cacheDir: hub }, {})).to.equal(snapshot(main));
    expect(await resolveCheckpoint('org/na.me', {}, { HF_HUB_CACHE: hub, HF_HOME: '/nowhere' })).to.equal(snapshot(main));
    expect(await resolveCheckpoint('org/na.me', { revision: 'refs/pr/1' }, { HF_HUB_CACHE: hub })).to.equal(snapshot(other));
    expect(await resolveCheckpoint('org/na.me', { revision: other }, { HF_HUB_CACHE: hub })).to.equal(snapshot(other));
  });

  it('knows where the cache is', () => {
    const at = join(homedir(), '.cache', 'huggingface', 'hub');
    expect(cacheFolder({})).to.equal(at);
    expect(cacheFolder({ HF_HOME: '/hf' })).to.equal(join('/hf', 'hub'));
    expect(cacheFolder({ HF_HOME: '~/hf' })).to.equal(join(homedir(), 'hf', 'hub'));
    expect(cacheFolder({ XDG_CACHE_HOME: '/xdg' })).to.equal(join('/xdg', 'huggingface', 'hub'));
    expect(cacheFolder({ HF_HUB_CACHE: '/c', HF_HOME: '/hf' })).to.equal('/c');
  });

  it('says where it looked and how to get the files', async () => {
    const hub = cache();
    const rejects = (
      id: string,
      options: Parameters<typeof resolveCheckpoint>[1],
      environment: Record<string, string>,
      message: string,
    ) => expectRejection(resolveCheckpoint(id, options, environment), 'ERR_CHECKPOINT', message);
    await rejects(
      'org/gone',
      {},
      { HF_HUB_CACHE: hub },
      `checkpoint org/gone: there is no such folder, and ${join(hub, 'models--org--gone')} has no snapshot of revision main. ` +
        'Get it with: hf download org/gone',
    );
    await rejects(
      'org/na.me',
      { revision: 'stale', cacheDir: hub, localFilesOnly: true },
      {},
      `checkpoint org/na.me: there is no such folder, and ${join(hub, 'models--org--na.me')} has no snapshot of revision stale ` +
        `(offline: nothing is downloaded). Get it with: hf download org/na.me --revision stale --cache-dir '${hub}'`,
    );
    await rejects(
      'org/gone',
      {},
      { HF_HUB_CACHE: hub, HF_HUB_OFFLINE: '1' },
      `checkpoint org/gone: there is no such folder, and ${join(hub, 'models--org--gone')} has no snapshot of revision main ` +
        '(offline: nothing is downloaded). Get it with: hf download org/gone',
    );
    await rejects(
      'org/na.me',
      { revision: 'broken', cacheDir: hub },
      {},
      `${join(hub, 'models--org--na.me', 'refs', 'broken')} must hold a commit, 40 hexadecimal digits: it holds "../../../../etc"`,
    );
  });

  it('takes nothing else for a name of the hub', async () => {
    for (const path of ['./gone', '/gone/away', 'gone', 'a/b/c', 'a--b/c', '~/gone', 'org/gone..', '.a/b', 'org/na me']) {
      const message = `checkpoint ${path}: there is no such folder: ${resolve(path)}`;
      await expectRejection(resolveCheckpoint(path, {}, {}), 'ERR_CHECKPOINT', message);
    }
    await expectRejection(resolveCheckpoint(''), 'ERR_ARGUMENT', 'a checkpoint must be a folder or "org/name": it is ""');
    await expectRejection(
      resolveCheckpoint('org/name', { revision: '../../x' }, {}),
      'ERR_ARGUMENT',
      'revision must be a branch, a tag or a commit: it is "../../x"',
    );
  });
});
