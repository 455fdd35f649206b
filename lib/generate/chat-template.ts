import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { isMissing, JsonObject, readJson } from '../checkpoint/json';
import { abortError, WarpsightError } from '../errors';

/** What somebody said. `content` is text, or parts of text and pictures in their order. */
export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string | readonly ChatPart[];
}

export type ChatPart = { readonly type: 'text'; readonly text: string } | { readonly type: 'image' };

const kRoles = ['system', 'user', 'assistant'];
const kLargestTemplate = 1 << 20;
/** A template is code of whoever made the checkpoint: it gets a thread of its own, so long, so much memory, and may give so much text. */
const kDeadlineMs = 5000;
const kHeapMiB = 256;
export const kLongestPrompt = 4 << 20;

/** What the worker is given. */
export interface RenderRequest {
  readonly template: string;
  readonly variables: Readonly<Record<string, unknown>>;
}

export type RenderReply = { readonly text: string } | { readonly error: string };

/** The chat template of a checkpoint. */
export class ChatTemplate {
  private constructor(
    readonly source: string,
    readonly variables: Readonly<Record<string, string>>,
  ) {}

  /**
   * chat_template.jinja, chat_template.json, or `chat_template` of tokenizer_config.json, the first that is there; of a list of templates
   * the one named "default".
   *
   * @returns undefined where there is none
   * @throws {WarpsightError} ERR_CONFIG, ERR_TOKENIZER
   */
  static async fromPretrained(folder: string): Promise<ChatTemplate | undefined> {
    const tokenizer = await jsonOf(folder, 'tokenizer_config.json');
    const source =
      (await textOf(join(folder, 'chat_template.jinja'))) ??
      templateOf(await jsonOf(folder, 'chat_template.json')) ??
      templateOf(tokenizer);
    if (source === undefined) return undefined;
    const variables: Record<string, string> = {};
    for (const name of ['bos_token', 'eos_token', 'pad_token', 'unk_token']) {
      const value = tokenizer?.get(name);
      const text = typeof value === 'object' && value !== null && 'content' in value ? value.content : value;
      if (typeof text === 'string') variables[name] = text;
    }
    return new ChatTemplate(source, variables);
  }

  /**
   * The prompt of a conversation, up to where the model answers.
   *
   * @param parts contents are always arrays of parts (templates of models that see); false: texts, as language models' templates expect
   * @throws {WarpsightError} ERR_ARGUMENT for messages that are none; ERR_CONFIG where the template fails, takes more than five seconds or
   *   gives more than 4 MiB; ERR_ABORTED
   */
  async render(
    messages: readonly ChatMessage[],
    { parts, signal }: { parts: boolean; signal?: AbortSignal | undefined },
  ): Promise<string> {
    const checked = checkMessages(messages).map(({ role, content }) => ({
      role,
      content: parts ? asParts(content) : asText(content),
    }));
    const variables = { ...this.variables, messages: checked, add_generation_prompt: true };
    return runTemplate({ template: this.source, variables }, signal);
  }
}

/** @throws {WarpsightError} ERR_ARGUMENT */
export function checkMessages(messages: unknown): readonly ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new WarpsightError('ERR_ARGUMENT', 'messages must be an array of at least one { role, content }');
  }
  messages.forEach((message: Partial<ChatMessage> | null | undefined, i) => {
    if (!kRoles.includes(String(message?.role))) {
      throw new WarpsightError(
        'ERR_ARGUMENT',
        `messages[${i}].role must be one of ${kRoles.join(', ')}: it is ${JSON.stringify(message?.role)}`,
      );
    }
    const content: unknown = message?.content;
    const good =
      typeof content === 'string' ||
      (Array.isArray(content) &&
        content.every(
          (part: Partial<{ type: unknown; text: unknown }> | null) =>
            part?.type === 'image' || (part?.type === 'text' && typeof part.text === 'string'),
        ));
    if (good) return;
    throw new WarpsightError(
      'ERR_ARGUMENT',
      `messages[${i}].content must be a text, or an array of { type: 'text', text } and { type: 'image' }`,
    );
  });
  return messages as readonly ChatMessage[];
}

function asParts(content: ChatMessage['content']): ChatPart[] {
  if (typeof content === 'string') return [{ type: 'text', text: content }];
  return content.map((part) => (part.type === 'text' ? { type: 'text', text: part.text } : { type: 'image' }));
}

function asText(content: ChatMessage['content']): string {
  return typeof content === 'string' ? content : content.map((part) => (part.type === 'text' ? part.text : '')).join('');
}

async function jsonOf(folder: string, name: string): Promise<JsonObject | undefined> {
  const json = await readJson(join(folder, name), 64 << 20, 'ERR_CONFIG');
  return json === undefined ? undefined : JsonObject.parse(name, json);
}

async function textOf(path: string): Promise<string | undefined> {
  try {
    const { size } = await stat(path);
    if (size > kLargestTemplate)
      throw new WarpsightError('ERR_CONFIG', `${path} has ${size} bytes; at most ${kLargestTemplate} are read`);
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (isMissing(cause)) return undefined;
    throw cause instanceof WarpsightError ? cause : new WarpsightError('ERR_CONFIG', `${path} cannot be read`, { cause });
  }
}

function templateOf(file: JsonObject | undefined): string | undefined {
  const value = file?.get('chat_template');
  if (file === undefined || value === undefined) return undefined;
  const named: unknown = Array.isArray(value)
    ? (value.find((entry: { name?: unknown } | null) => entry?.name === 'default') as { template?: unknown } | undefined)
        ?.template
    : value;
  if (typeof named === 'string' && named.length <= kLargestTemplate) return named;
  throw file.error('chat_template', 'a template, or a list of named templates with one named "default"');
}

function runTemplate(request: RenderRequest, signal: AbortSignal | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortError(signal));
    const worker = new Worker(join(__dirname, 'chat-template-worker.js'), {
      name: 'warpsight-chat-template',
      execArgv: [],
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: kHeapMiB },
      workerData: request,
    });
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      void worker.terminate();
      settle();
    };
    const fail = (why: string, cause?: unknown): void =>
      end(() => reject(new WarpsightError('ERR_CONFIG', `the checkpoint's chat template ${why}`, { cause })));
    const timer = setTimeout(() => fail(`did not end within ${kDeadlineMs / 1000} seconds`), kDeadlineMs);
    const abort = (): void => end(() => signal && reject(abortError(signal)));
    signal?.addEventListener('abort', abort, { once: true });
    worker.once('message', (reply: RenderReply) => {
      if ('text' in reply) end(() => resolve(reply.text));
      else fail(`failed: ${reply.error}`);
    });
    worker.once('error', (error) => fail(`failed: ${error.message}`, error));
    worker.once('exit', () => fail('ended without an answer'));
  });
}
