import type { GenerationResult, LLaVA, LlavaGenerateOptions } from '../../lib';

/** A generation of at most 30 tokens that is stopped somewhere, in one of the ways there are: which, and where, is for `i` to say. */
export async function generateAndStop(llava: LLaVA, i: number, options: LlavaGenerateOptions): Promise<GenerationResult> {
  const controller = new AbortController();
  const run = llava.generate({ ...options, maxNewTokens: 30, signal: controller.signal });
  if (i % 5 === 0) setTimeout(() => controller.abort(), i % 7);
  else if (i % 5 === 1) {
    for await (const _ of run) break;
  } else {
    let pieces = 0;
    for await (const _ of run) if (++pieces > i % 9) controller.abort();
  }
  return run.result;
}
