import { once } from 'node:events';

/** Writes and waits where the reader is slower. */
export async function stdout(text: string): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, 'drain');
}

/** Names of files may hold control characters, which must not reach a terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '\u{fffd}');
}

// The last alternative asks for the emoji form of the character before it.
const kWide =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}\uff01-\uff60]|\ufe0f/u;

/** Columns that a text takes: East Asian characters and emoji take two, combining marks none. */
export function columns(text: string): number {
  let width = 0;
  for (const { segment } of new Intl.Segmenter().segment(text)) width += kWide.test(segment) ? 2 : 1;
  return width;
}

/** https://no-color.org: any value but the empty one turns colours off. */
export function colours(stream: { readonly isTTY?: boolean }): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
}

/** A line on stderr that is written over, from the second second on, if that is a terminal. */
export class Progress {
  readonly #started = performance.now();
  readonly #shown = process.stderr.isTTY === true && process.env.TERM !== 'dumb';
  #written = false;
  #last = Number.NEGATIVE_INFINITY;

  update(text: string): void {
    const now = performance.now();
    if (!this.#shown || now - this.#started < 1000 || now - this.#last < 100) return;
    this.#last = now;
    this.#written = true;
    process.stderr.write(`\r\x1b[K${printable(text).slice(0, (process.stderr.columns || 80) - 1)}`);
  }

  /** Takes the line away, so that something else can be printed there. */
  clear(): void {
    if (this.#written) process.stderr.write('\r\x1b[K');
    this.#written = false;
    this.#last = Number.NEGATIVE_INFINITY;
  }
}

/** Work of unknown length: says every second what takes so long. */
export async function waitFor<T>(what: string, work: Promise<T>): Promise<T> {
  const progress = new Progress();
  const started = performance.now();
  const timer = setInterval(() => progress.update(`${what} … ${Math.round((performance.now() - started) / 1000)} s`), 1000);
  try {
    return await work;
  } finally {
    clearInterval(timer);
    progress.clear();
  }
}
