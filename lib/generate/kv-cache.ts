import { abortError, WarpsightError } from '../errors';

/** Rows of a page: what a sequence's memory is rounded up to. */
export const kPageRows = 32;

/** The pages of one sequence, from its reservation to its release. */
export interface SequencePages {
  /** In order: position p is row pages[⌊p / kPageRows⌋]·kPageRows + p mod kPageRows of the cache. */
  readonly pages: Int32Array;
  release(): void;
}

interface Waiting {
  readonly pages: number;
  readonly resolve: (granted: SequencePages) => void;
}

/**
 * Who has which pages of a cache. A sequence reserves all it may need at its start, in the order of asking, so that one that runs never has to
 * wait for another.
 */
export class PageAllocator {
  readonly #free: number[];
  readonly #waiting: Waiting[] = [];

  constructor(readonly pages: number) {
    this.#free = Array.from({ length: pages }, (_, i) => pages - 1 - i);
  }

  /** Pages that no sequence has. */
  get free(): number {
    return this.#free.length;
  }

  /**
   * @param rows the most positions that the sequence may have
   * @throws {WarpsightError} ERR_OUT_OF_MEMORY if the whole cache would not do; ERR_ABORTED
   */
  async reserve(rows: number, signal?: AbortSignal): Promise<SequencePages> {
    const pages = Math.ceil(rows / kPageRows);
    if (pages > this.pages) {
      throw new WarpsightError(
        'ERR_OUT_OF_MEMORY',
        `a sequence of ${rows} tokens does not fit into the cache of ${this.pages * kPageRows}: raise cacheTokens, or lower maxNewTokens`,
      );
    }
    if (signal?.aborted) throw abortError(signal);
    if (this.#waiting.length === 0 && pages <= this.#free.length) return this.#grant(pages);
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        pages,
        resolve: (granted) => {
          signal?.removeEventListener('abort', abort);
          resolve(granted);
        },
      };
      const abort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        if (signal) reject(abortError(signal));
        this.#serve(); // those behind it may need less
      };
      signal?.addEventListener('abort', abort, { once: true });
      this.#waiting.push(waiting);
    });
  }

  #grant(count: number): SequencePages {
    const pages = Int32Array.from(this.#free.splice(this.#free.length - count, count).reverse());
    let held = true;
    return {
      pages,
      release: () => {
        if (!held) return;
        held = false;
        this.#free.push(...pages);
        this.#serve();
      },
    };
  }

  #serve(): void {
    for (let [first] = this.#waiting; first && first.pages <= this.#free.length; [first] = this.#waiting) {
      this.#waiting.shift();
      first.resolve(this.#grant(first.pages));
    }
  }
}

/** Rows of the cache for positions first … first + count − 1. */
export function cacheRows(pages: Int32Array, first: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => {
    const position = first + i;
    return pages[Math.floor(position / kPageRows)]! * kPageRows + (position % kPageRows);
  });
}
