// How texts and conversations become the ids that a language model reads.
import { WarpsightError } from '../errors';
import { checkTokenIds } from '../models/language-model';
import type { Tokenizer } from '../preprocess/tokenizer';
import type { ChatMessage, ChatTemplate } from './chat-template';

/** What a prompt needs of its model. */
export interface PromptReader {
  readonly tokenizer: Tokenizer | undefined;
  readonly chatTemplate: ChatTemplate | undefined;
  readonly vocabularySize: number;
}

/**
 * @returns ids with the tokenizer's marks, whole
 * @throws {WarpsightError} ERR_ARGUMENT, ERR_TOKENIZER, ERR_ABORTED
 */
export async function promptIds(
  text: string,
  { tokenizer, vocabularySize }: PromptReader,
  signal: AbortSignal | undefined,
): Promise<Int32Array> {
  if (typeof text !== 'string') throw new WarpsightError('ERR_ARGUMENT', `the prompt must be a text: it is ${typeof text}`);
  if (!tokenizer) throw new WarpsightError('ERR_TOKENIZER', 'this model has no tokenizer files');
  const options = { maxLength: Number.POSITIVE_INFINITY, ...(signal && { signal }) };
  const ids = (await tokenizer.encodeBatch([text], options)).ids[0]!;
  // A chat template may write the start mark that the tokenizer adds.
  const twice = tokenizer.bosTokenId !== undefined && ids[0] === tokenizer.bosTokenId && ids[1] === tokenizer.bosTokenId;
  return checkTokenIds(twice ? ids.subarray(1) : ids, vocabularySize, 'the prompt');
}

/** Ids to text; one that no token has is no text: vocabularies are padded, and a model may take such a row for the likeliest. */
export function decoderOf(tokenizer: Tokenizer | undefined): (ids: readonly number[]) => string {
  return (ids) => tokenizer?.decode(ids.filter((id) => tokenizer.hasId(id))) ?? '';
}

/**
 * @param options.parts see ChatTemplate.render
 * @throws {WarpsightError} ERR_CONFIG where there is no chat template; as ChatTemplate.render
 */
export function promptText(
  messages: readonly ChatMessage[],
  { chatTemplate }: PromptReader,
  options: { readonly parts: boolean; readonly signal: AbortSignal | undefined },
): Promise<string> {
  if (chatTemplate) return chatTemplate.render(messages, options);
  throw new WarpsightError('ERR_CONFIG', 'the checkpoint has no chat template: pass prompt instead of messages');
}
