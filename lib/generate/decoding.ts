import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { JsonObject, readJson } from '../checkpoint/json';
import { tokenIds } from '../models/llama-config';
import type { Tokenizer } from '../preprocess/tokenizer';

const kLargestConfig = 1_000_000;

/** The ids that end an answer: generation_config.json's, else those of the config, else the tokenizer's. */
export async function endIdsOf(
  folder: string,
  configIds: readonly number[],
  tokenizer: Tokenizer | undefined,
): Promise<ReadonlySet<number>> {
  const names = new Set(await readdir(folder));
  if (names.has('generation_config.json')) {
    const json = await readJson(join(folder, 'generation_config.json'), kLargestConfig, 'ERR_CONFIG');
    const ids = tokenIds(JsonObject.parse('generation_config.json', json), 'eos_token_id');
    if (ids !== undefined) return new Set(ids);
  }
  if (configIds.length > 0) return new Set(configIds);
  return new Set(tokenizer?.eosTokenId === undefined ? [] : [tokenizer.eosTokenId]);
}
