import { WarpsightError } from '../errors';
import type { Weight } from '../weight';

/** What all modules share: the weights that they were loaded with. Those given to a constructor belong to whoever made them. */
export abstract class FusionModule {
  #owned: readonly Weight[] = [];
  #disposed = false;

  /** @internal */
  own(weights: readonly Weight[]): void {
    this.#owned = weights;
  }

  /** Lets go of the weights that were loaded; work that was queued before still runs. Safe again. */
  dispose(): void {
    this.#disposed = true;
    for (const weight of this.#owned) weight.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  protected alive(what: string): void {
    if (this.#disposed) throw new WarpsightError('ERR_DISPOSED', `${what} was used after dispose()`);
  }
}
