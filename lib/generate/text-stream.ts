const kReplacement = '\ufffd';
/** Bytes of one in UTF-8, and so tokens. */
const kLongestCharacter = 4;

/**
 * Tokens to pieces of text as they come. A character whose bytes are spread over several tokens waits for its last one, and what may be the
 * beginning of a stop text waits until it is known.
 */
export class TextStream {
  readonly #ids: number[] = [];
  /** Text of ids[#from, #read) has been taken; it is decoded again with what follows, because a token's text depends on its neighbours. */
  #from = 0;
  #read = 0;
  /** Taken and not yet given: it may begin a stop text. */
  #held = '';
  #stopped = false;

  constructor(
    readonly decode: (ids: readonly number[]) => string,
    readonly stop: readonly string[],
  ) {}

  /** Whether a stop text has come; what follows it is dropped. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** The text that is certain once `id` has come; often ''. */
  push(id: number): string {
    this.#ids.push(id);
    const { length } = this.#ids;
    const now = this.#decodeTo(length);
    // An unfinished character decodes to U+FFFD.
    if (!now.endsWith(kReplacement)) return this.#give(this.#take(length, now));
    const end = this.#certain(now);
    return end > this.#read ? this.#give(this.#take(end, this.#decodeTo(end))) : '';
  }

  /** What is left at the end. */
  flush(): string {
    const { length } = this.#ids;
    const text = this.#give(this.#take(length, this.#decodeTo(length)));
    const held = this.#held;
    this.#held = '';
    return this.#stopped ? text : text + held;
  }

  #decodeTo(end: number): string {
    return this.decode(this.#ids.slice(this.#from, end));
  }

  /** Where the ids end whose text nothing that follows can change: an unfinished character has three tokens at most. */
  #certain(now: string): number {
    const { length } = this.#ids;
    for (let end = Math.max(this.#read, length - (kLongestCharacter - 1)); end < length; end++) {
      if (this.#decodeTo(end) + this.decode(this.#ids.slice(end)) === now) return end;
    }
    return this.#read;
  }

  /** The text of ids up to `end`, of which `whole` is what those from #from on decode to. */
  #take(end: number, whole: string): string {
    const before = this.#decodeTo(this.#read);
    // Unfinished bytes can spoil those before them: then they are decoded by themselves.
    const text = whole.startsWith(before) ? whole.slice(before.length) : this.decode(this.#ids.slice(this.#read, end));
    if (text === '') return ''; // they stay neighbours of what follows
    this.#from = this.#read;
    this.#read = end;
    return text;
  }

  #give(piece: string): string {
    if (this.#stopped) return '';
    const text = this.#held + piece;
    const found = this.stop.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) {
      this.#stopped = true;
      this.#held = '';
      return text.slice(0, Math.min(...found));
    }
    const keep = Math.max(0, ...this.stop.map((stop) => overlap(text, stop)));
    this.#held = text.slice(text.length - keep);
    return text.slice(0, text.length - keep);
  }
}

/** Length of the longest end of `text` that begins `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
