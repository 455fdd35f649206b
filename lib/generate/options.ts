import { randomBytes } from 'node:crypto';
import { WarpsightError } from '../errors';

export interface GenerateOptions {
  /** 256 by default; the context length ends it as well. */
  readonly maxNewTokens?: number;
  /** 0 (default): always the likeliest token. */
  readonly temperature?: number;
  /** Only the k likeliest; 0 (default): all. */
  readonly topK?: number;
  /** Only the smallest set of the likeliest whose probabilities sum to topP; 1 (default): all. */
  readonly topP?: number;
  /** Above 1: tokens of the prompt and of the answer become less likely. 1 by default */
  readonly repetitionPenalty?: number;
  /** A whole number; the same seed gives the same text, on any number of threads. Random by default */
  readonly seed?: number | bigint;
  /** The answer ends before any of these texts. */
  readonly stop?: string | readonly string[];
  readonly signal?: AbortSignal;
}

/** Checked and complete. */
export interface GenerateSettings {
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly repetitionPenalty: number;
  readonly seed: readonly [low: number, high: number];
  readonly stop: readonly string[];
  readonly signal: AbortSignal | undefined;
}

/** @throws {WarpsightError} ERR_ARGUMENT names option, rule and value */
export function generateSettings(options: GenerateOptions): GenerateSettings {
  const { maxNewTokens = 256, temperature = 0, topK = 0, topP = 1, repetitionPenalty = 1, seed, stop = [], signal } = options;
  check('maxNewTokens', maxNewTokens, Number.isSafeInteger(maxNewTokens) && maxNewTokens >= 1, 'a whole number of at least 1');
  check('temperature', temperature, temperature >= 0 && temperature <= 1000, 'a number from 0 to 1000');
  check('topK', topK, Number.isInteger(topK) && topK >= 0 && topK <= 2 ** 30, 'a whole number from 0 to 2^30');
  check('topP', topP, topP > 0 && topP <= 1, 'above 0 and at most 1');
  const penalised = repetitionPenalty >= 0.01 && repetitionPenalty <= 100;
  check('repetitionPenalty', repetitionPenalty, penalised, 'a number from 0.01 to 100');
  const stops = typeof stop === 'string' ? [stop] : stop;
  if (!Array.isArray(stops) || stops.length > 64 || !stops.every((text) => typeof text === 'string' && text !== '')) {
    throw new WarpsightError('ERR_ARGUMENT', 'generate: stop must be a text or an array of at most 64 texts, none of them empty');
  }
  return { maxNewTokens, temperature, topK, topP, repetitionPenalty, seed: seedWords(seed), stop: stops, signal };
}

function check(name: string, value: unknown, holds: boolean, rule: string): void {
  if (typeof value === 'number' && holds) return;
  throw new WarpsightError('ERR_ARGUMENT', `generate: ${name} must be ${rule}: it is ${String(value)}`);
}

function seedWords(seed: number | bigint | undefined): readonly [number, number] {
  if (seed === undefined) {
    const bytes = randomBytes(8);
    return [bytes.readInt32LE(0), bytes.readInt32LE(4)];
  }
  if (typeof seed !== 'bigint' && !Number.isSafeInteger(seed)) {
    throw new WarpsightError('ERR_ARGUMENT', `generate: seed must be a whole number: it is ${String(seed)}`);
  }
  const bits = BigInt.asUintN(64, BigInt(seed));
  return [Number(BigInt.asIntN(32, bits)), Number(BigInt.asIntN(32, bits >> 32n))];
}
