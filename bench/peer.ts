import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/** A program that answers each line with one. */
export class Peer {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.#child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
    });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async ask(question: string): Promise<string> {
    this.#child.stdin.write(`${question}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${question}: the program has ended`);
    return value;
  }

  async number(question: string): Promise<number> {
    return Number.parseFloat(await this.ask(question));
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const closed = once(this.#child, 'close');
    this.#child.stdin.end();
    await closed;
  }
}

/**
 * A Python with PyTorch: WARPSIGHT_PYTHON, else what is installed; undefined where it has none.
 * @param device it must see a GPU for 'cuda' @param atLeast2 has scaled_dot_product_attention and torch.compile
 */
export function pythonWithTorch(device: 'cpu' | 'cuda', { atLeast2 = false } = {}): string | undefined {
  const given = process.env.WARPSIGHT_PYTHON;
  const candidates = given ? [given] : ['/usr/bin/python3', 'python3'];
  const code = `import torch; torch.zeros(1, device="${device}"); ${atLeast2 ? 'torch.compile' : ''}`;
  return candidates.find((name) => spawnSync(name, ['-c', code]).status === 0);
}
