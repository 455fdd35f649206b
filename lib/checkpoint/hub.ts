import { readdir, readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { WarpsightError } from '../errors';
import { isMissing, reason, shown } from './json';

export interface HubOptions {
  /** A branch, tag, pull request ("refs/pr/1") or commit. "main" by default */
  readonly revision?: string | undefined;
  /** Instead of the folder that HF_HUB_CACHE or HF_HOME name. */
  readonly cacheDir?: string | undefined;
  /** Nothing is downloaded; HF_HUB_OFFLINE=1 says the same for all calls. */
  readonly localFilesOnly?: boolean | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** "org/name": two names of letters, digits and _ - . that start with a letter, a digit or _ */
const kHubId = /^\w[\w.-]{0,95}\/\w[\w.-]{0,95}$/;
const kCommit = /^[0-9a-f]{40}$/;
const kRevision = /^\w[\w.-]*(\/[\w.-]*\w)*$/;

/**
 * The folder of a checkpoint: a path that exists, or the snapshot of "org/name" in the Hugging Face cache of this machine.
 *
 * @returns an absolute path
 * @throws {WarpsightError} ERR_CHECKPOINT if there is neither; the message says where it looked and how to get the files
 * @see https://huggingface.co/docs/hub/local-cache for the layout
 */
export async function resolveCheckpoint(
  folderOrHubId: string,
  options: HubOptions = {},
  environment: Environment = process.env,
): Promise<string> {
  if (typeof folderOrHubId !== 'string' || folderOrHubId === '' || folderOrHubId.includes('\0')) {
    throw new WarpsightError('ERR_ARGUMENT', `a checkpoint must be a folder or "org/name": it is ${shown(folderOrHubId)}`);
  }
  if (await exists(folderOrHubId)) return resolve(folderOrHubId);
  if (!kHubId.test(folderOrHubId) || folderOrHubId.includes('..') || folderOrHubId.includes('--')) {
    throw new WarpsightError('ERR_CHECKPOINT', `checkpoint ${folderOrHubId}: there is no such folder: ${resolve(folderOrHubId)}`);
  }
  return snapshot(folderOrHubId, options, environment);
}

/** The folder in which Hugging Face's tools keep downloads. */
export function cacheFolder(environment: Environment = process.env): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = environment;
  const cache = HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE;
  if (cache) return expandHome(cache);
  const home = HF_HOME
    ? expandHome(HF_HOME)
    : join(XDG_CACHE_HOME ? expandHome(XDG_CACHE_HOME) : join(homedir(), '.cache'), 'huggingface');
  return join(home, 'hub');
}

function expandHome(path: string): string {
  return resolve(/^~(?=$|[/\\])/.test(path) ? homedir() + path.slice(1) : path);
}

async function snapshot(id: string, options: HubOptions, environment: Environment): Promise<string> {
  const revision = options.revision ?? 'main';
  if (!kRevision.test(revision) || revision.includes('..')) {
    throw new WarpsightError('ERR_ARGUMENT', `revision must be a branch, a tag or a commit: it is ${shown(revision)}`);
  }
  const cache = options.cacheDir ? expandHome(options.cacheDir) : cacheFolder(environment);
  const repository = join(cache, `models--${id.replace('/', '--')}`);
  const commit = kCommit.test(revision) ? revision : await readRef(join(repository, 'refs', ...revision.split('/')));
  if (commit !== undefined) {
    const folder = join(repository, 'snapshots', commit);
    if (await isFilledFolder(folder)) return folder;
  }
  const offline = options.localFilesOnly === true || /^(1|true|yes|on)$/i.test(environment.HF_HUB_OFFLINE ?? '');
  const wanted = revision === 'main' ? id : `${id} --revision ${revision}`;
  const place = options.cacheDir ? ` --cache-dir '${cache}'` : '';
  throw new WarpsightError(
    'ERR_CHECKPOINT',
    `checkpoint ${id}: there is no such folder, and ${repository} has no snapshot of revision ${revision}` +
      `${offline ? ' (offline: nothing is downloaded)' : ''}. Get it with: hf download ${wanted}${place}`,
  );
}

/** The commit that a branch stands at, as downloads left it. */
async function readRef(path: string): Promise<string | undefined> {
  let text: string;
  try {
    if ((await stat(path)).size > 1000) return undefined;
    text = (await readFile(path, 'utf8')).trim();
  } catch (cause) {
    if (isMissing(cause)) return undefined;
    throw new WarpsightError('ERR_CHECKPOINT', `${path} cannot be read: ${reason(cause)}`, { cause });
  }
  if (kCommit.test(text)) return text;
  throw new WarpsightError('ERR_CHECKPOINT', `${path} must hold a commit, 40 hexadecimal digits: it holds ${shown(text)}`);
}

async function isFilledFolder(path: string): Promise<boolean> {
  try {
    return (await readdir(path)).length > 0;
  } catch (cause) {
    if (isMissing(cause)) return false;
    throw new WarpsightError('ERR_CHECKPOINT', `${path} cannot be read: ${reason(cause)}`, { cause });
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if (isMissing(cause)) return false;
    throw new WarpsightError('ERR_CHECKPOINT', `checkpoint ${path}: it cannot be read: ${reason(cause)}`, { cause });
  }
}
