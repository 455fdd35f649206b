/** A map that keeps the `capacity` entries used last; `drop` is called with each that leaves. */
export class LruCache<K, V> {
  readonly #entries = new Map<K, V>();

  constructor(
    readonly capacity: number,
    readonly drop: (value: V) => void,
  ) {}

  get(key: K, make: () => V): V {
    const found = this.#entries.get(key);
    const value = found ?? make();
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size > this.capacity) {
      const [oldest] = this.#entries.keys();
      this.#remove(oldest!);
    }
    return value;
  }

  clear(): void {
    for (const key of [...this.#entries.keys()]) this.#remove(key);
  }

  #remove(key: K): void {
    const value = this.#entries.get(key);
    this.#entries.delete(key);
    if (value !== undefined) this.drop(value);
  }
}
