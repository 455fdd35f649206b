import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { WarpsightError } from '../errors';
import type { NativeCheckpoint, StoredTensor } from '../native';
import { isMissing, JsonObject, readJson, reason, shown } from './json';
import { clipNaming, type Naming } from './names';

/** A config.json has some kilobytes. */
const kLargestConfig = 1_000_000;
/** An index has about 100 bytes for each tensor. */
const kLargestIndex = 4_000_000;
const kMostShards = 1000;

const kSingleFile = 'model.safetensors';
const kIndexFile = 'model.safetensors.index.json';

/** The addon's openCheckpoint: reads and checks the headers of safetensors files, off the main thread. */
export type OpenFiles = (
  paths: readonly string[],
) => Promise<{ readonly handle: NativeCheckpoint; readonly tensors: readonly StoredTensor[] }>;

export interface CheckpointTensor {
  /** Index into the addon's list of tensors. */
  readonly index: number;
  readonly stored: StoredTensor;
  /** Without its folder, for messages. */
  readonly fileName: string;
}

/** A Hugging Face folder whose files are open. */
export interface Checkpoint {
  /** Absolute. */
  readonly folder: string;
  /** config.json, parsed and not yet checked. */
  readonly config: unknown;
  readonly handle: NativeCheckpoint;
  /** By canonical name; see names.ts. */
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
}

/**
 * Opens the checkpoint in a folder: config.json, and model.safetensors or the shards that model.safetensors.index.json names.
 *
 * @param open `native.openCheckpoint`
 * @throws {WarpsightError} ERR_CHECKPOINT: a file that is missing, unreadable, of another format, or whose header lies; an index that
 *   names files outside the folder or tensors that are not there. ERR_CONFIG: a config.json that is no JSON.
 */
export async function openCheckpoint(path: string, open: OpenFiles, naming: Naming = clipNaming): Promise<Checkpoint> {
  const folder = resolve(path);
  const config = await readConfig(folder);
  const { files, weightMap } = await weightFiles(folder);
  const { handle, tensors } = await open(files);
  return { folder, config, handle, tensors: byName(tensors, files, weightMap, naming) };
}

/**
 * config.json of a folder, parsed.
 *
 * @throws {WarpsightError} ERR_CHECKPOINT if there is no such folder or file, ERR_CONFIG if it can't be read
 */
export async function readConfig(folder: string): Promise<unknown> {
  const names = await listFolder(folder);
  const config = await readJson(join(folder, 'config.json'), kLargestConfig, 'ERR_CONFIG');
  if (config !== undefined) return config;
  throw checkpointError(folder, names.length === 0 ? 'the folder is empty' : missing(folder, names, 'config.json'));
}

async function listFolder(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder);
  } catch (cause) {
    if (!isMissing(cause)) throw checkpointError(folder, `the folder cannot be read: ${reason(cause)}`, cause);
    const isFile = await stat(folder).then(
      (found) => !found.isDirectory(),
      () => false,
    );
    if (isFile) throw checkpointError(folder, 'this is a file; give the folder that holds config.json and the weights', cause);
    throw checkpointError(folder, 'there is no such folder', cause);
  }
}

/** What to say about a folder without `wanted`. */
function missing(folder: string, names: readonly string[], wanted: string): string {
  if (names.some((name) => /^pytorch_model(-\d+-of-\d+)?\.bin$/.test(name))) {
    const quoted = `'${folder.replaceAll("'", `'\\''`)}'`;
    return (
      'it has pytorch_model.bin only, a pickle, which can run code when it is read and is not supported. Convert it, if you trust it: ' +
      'python3 -c "import sys; from transformers import AutoModel; ' +
      `AutoModel.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1], safe_serialization=True)" ${quoted}`
    );
  }
  if (names.some((name) => name.startsWith('open_clip_'))) {
    return (
      `it has no ${wanted}, but files of open_clip, whose names are not supported. Most such models are published in the Hugging Face ` +
      `layout as well: config.json and ${kSingleFile}`
    );
  }
  return `it has no ${wanted}`;
}

// ── files of weights ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface WeightFiles {
  /** Absolute. */
  readonly files: readonly string[];
  /** Tensor to file name, of an index. */
  readonly weightMap: ReadonlyMap<string, string> | undefined;
}

async function weightFiles(folder: string): Promise<WeightFiles> {
  const names = await listFolder(folder);
  if (names.includes(kSingleFile)) return { files: [join(folder, kSingleFile)], weightMap: undefined };
  const index = await readJson(join(folder, kIndexFile), kLargestIndex, 'ERR_CHECKPOINT');
  if (index === undefined) throw checkpointError(folder, missing(folder, names, `${kSingleFile} or ${kIndexFile}`));

  const weightMap = parseIndex(index);
  const shards = [...new Set(weightMap.values())].sort();
  if (shards.length > kMostShards) throw indexError(`it names ${shards.length} files; at most ${kMostShards} are read`);
  return { files: await Promise.all(shards.map((name) => shardPath(folder, name))), weightMap };
}

function parseIndex(json: unknown): ReadonlyMap<string, string> {
  const map = JsonObject.parse(kIndexFile, json, 'ERR_CHECKPOINT').object('weight_map');
  if (map === undefined) throw indexError('weight_map is missing: it must name the file of each tensor');
  const entries: [string, string][] = [];
  for (const [tensor, file] of Object.entries(map.fields)) {
    if (typeof file !== 'string' || !/^[\w.-]+\.safetensors$/.test(file)) {
      throw indexError(
        `the file of "${tensor}" must be the name of a .safetensors file in the same folder: it is ${shown(file)}`,
      );
    }
    entries.push([tensor, file]);
  }
  if (entries.length === 0) throw indexError('weight_map is empty');
  return new Map(entries);
}

/**
 * A shard as the file it really is. The index of a stranger must not reach files elsewhere, so a link may lead only to another place in
 * the folder or, as in the Hugging Face cache, to models--org--name/blobs.
 */
async function shardPath(folder: string, name: string): Promise<string> {
  let real: string;
  try {
    real = await realpath(join(folder, name));
  } catch (cause) {
    if (isMissing(cause)) throw indexError(`it names ${name}, which is not in ${folder}`, cause);
    throw indexError(`it names ${name}, which cannot be read: ${reason(cause)}`, cause);
  }
  const inside = real.startsWith((await realpath(folder)) + sep);
  const blobs = dirname(real);
  const isBlob = basename(blobs) === 'blobs' && basename(dirname(blobs)).startsWith('models--');
  if (inside || isBlob) return join(folder, name);
  throw indexError(`it names ${name}, a link that leaves the folder`);
}

// ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function byName(
  stored: readonly StoredTensor[],
  files: readonly string[],
  weightMap: ReadonlyMap<string, string> | undefined,
  naming: Naming,
): ReadonlyMap<string, CheckpointTensor> {
  const tensors = new Map<string, CheckpointTensor>();
  const storedIn = new Map<string, string>();
  stored.forEach((tensor, index) => {
    const fileName = basename(files[tensor.file]!);
    const elsewhere = storedIn.get(tensor.name);
    if (elsewhere !== undefined) throw fileError(fileName, `"${tensor.name}" is in ${elsewhere} as well`);
    storedIn.set(tensor.name, fileName);
    const name = naming.canonical(tensor.name);
    if (name === undefined) return;
    const other = tensors.get(name);
    if (other) throw fileError(fileName, `"${tensor.name}" and "${other.stored.name}" are the same tensor`);
    tensors.set(name, { index, stored: tensor, fileName });
  });
  for (const [name, file] of weightMap ?? []) {
    if (storedIn.get(name) !== file) throw fileError(file, `"${name}" is not in it, where ${kIndexFile} says it is`);
  }

  const names = new Set(tensors.keys());
  const [first] = tensors.values();
  if (!first) throw fileError(basename(files[0]!), 'it has no tensors');
  const refused = naming.refuse(names, first.stored.name);
  if (refused !== undefined) throw fileError(first.fileName, refused);
  return tensors;
}

function checkpointError(folder: string, what: string, cause?: unknown): WarpsightError {
  return new WarpsightError('ERR_CHECKPOINT', `checkpoint ${folder}: ${what}`, { cause });
}

function indexError(what: string, cause?: unknown): WarpsightError {
  return new WarpsightError('ERR_CHECKPOINT', `${kIndexFile}: ${what}`, { cause });
}

function fileError(fileName: string, what: string): WarpsightError {
  return new WarpsightError('ERR_CHECKPOINT', `checkpoint "${fileName}": ${what}`);
}
