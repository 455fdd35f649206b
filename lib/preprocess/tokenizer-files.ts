import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { WarpsightError } from '../errors';
import { object, parseTokenizer, tokenizerError } from './tokenizer-parse';
import type { Json, TokenizerTables } from './tokenizer-tables';

/** Gemma's tokenizer.json, for SigLIP 2, has 34 MB. */
const kLargestFile = 64 * 2 ** 20;

/**
 * Reads the tokenizer of a Hugging Face folder: tokenizer.json, or CLIP's vocab.json + merges.txt, or BERT's vocab.txt; and beside each
 * tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json where they are there.
 *
 * @throws {WarpsightError} ERR_TOKENIZER with the file and the place in it
 */
export async function readTokenizer(folder: string): Promise<TokenizerTables> {
  const tokenizer = await readJson(folder, 'tokenizer.json');
  return parseTokenizer(folder, {
    tokenizer,
    vocab: tokenizer === undefined ? await readJson(folder, 'vocab.json') : undefined,
    merges: tokenizer === undefined ? await readText(folder, 'merges.txt') : undefined,
    vocabText: tokenizer === undefined ? await readText(folder, 'vocab.txt') : undefined,
    tokenizerConfig: await readJson(folder, 'tokenizer_config.json'),
    specialTokens: await readJson(folder, 'special_tokens_map.json'),
    addedTokens: await readJson(folder, 'added_tokens.json'),
    model: await readJson(folder, 'config.json'),
  });
}

async function readJson(folder: string, name: string): Promise<Json | undefined> {
  const text = await readText(folder, name);
  if (text === undefined) return undefined;
  const file = join(folder, name);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw tokenizerError(file, `it is not JSON: ${String(error)}`, error);
  }
  return object(value, file, 'the file');
}

/** Undefined if there is no such file. */
async function readText(folder: string, name: string): Promise<string | undefined> {
  const path = join(folder, name);
  try {
    const { size } = await regularFile(path);
    if (size > kLargestFile) throw tokenizerError(path, `it may have ${kLargestFile} bytes, it has ${size}`);
    return new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path));
  } catch (error) {
    if (error instanceof WarpsightError) throw error;
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return undefined;
    throw tokenizerError(path, `it can't be read: ${String(error)}`, error);
  }
}

/** Asked before opening: opening a named pipe would wait for its writer. */
async function regularFile(path: string): Promise<{ readonly size: number }> {
  const found = await stat(path);
  if (!found.isFile()) throw tokenizerError(path, 'it is not a file');
  return found;
}
