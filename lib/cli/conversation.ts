import type { ChatMessage, ChatPart, GenerateOptions, Generation } from '../index';
import { UsageError } from './arguments';
import type { ChatModel } from './model';

/** Questions and answers so far, about pictures that came with the first question. */
export class Conversation {
  readonly #said: ChatMessage[] = [];

  constructor(
    readonly model: ChatModel,
    readonly images: readonly string[],
  ) {
    if (images.length > 0 && !model.seesPictures) throw new UsageError('the model sees no pictures: give a LLaVA with --model');
  }

  /** The next answer; it is remembered once {@link keep} is told. */
  ask(question: string, options: GenerateOptions): Generation {
    const { seesPictures, hasChatTemplate } = this.model;
    const messages = [...this.#said, this.#asked(question)];
    const asked = hasChatTemplate ? { messages } : { prompt: plainPrompt(messages, seesPictures) };
    return this.model.generate({ ...options, ...asked }, this.images);
  }

  keep(question: string, answer: string): void {
    this.#said.push(this.#asked(question), { role: 'assistant', content: answer });
  }

  #asked(question: string): ChatMessage {
    const pictures: ChatPart[] = this.#said.length === 0 ? this.images.map(() => ({ type: 'image' })) : [];
    return { role: 'user', content: [...pictures, { type: 'text', text: question }] };
  }
}

/** Where a checkpoint has no chat template: the form that LLaVA 1.5 was trained on; a Llama continues the text. */
function plainPrompt(messages: readonly ChatMessage[], seesPictures: boolean): string {
  if (!seesPictures) return messages.map(({ content }) => textOf(content)).join('\n');
  const turns = messages.map(({ role, content }) =>
    role === 'user' ? `USER: ${textOf(content)} ` : `ASSISTANT: ${textOf(content)}</s>`,
  );
  return `${turns.join('')}ASSISTANT:`;
}

function textOf(content: ChatMessage['content']): string {
  if (typeof content === 'string') return content;
  return content.map((part) => (part.type === 'image' ? '<image>\n' : part.text)).join('');
}
