/**
 * Vocabulary tables in shared memory.
 *
 * A worker reads and parses a vocabulary (1.5 MB of JSON takes tens of milliseconds) and lays it out as hash tables over
 * SharedArrayBuffers. Every thread then looks words up in the same memory, so the main thread gets a working tokenizer without
 * building a Map of 49,408 entries.
 */

/** An immutable map from strings to int32 numbers: open addressing over the keys' UTF-16 units, all in shared memory. */
export interface StringTable {
  /** Starts the hash; drawn anew for each table, so that a file can't be written to collide. */
  readonly seed: number;
  /** [sum of lengths], the keys one after the other */
  readonly units: Uint16Array;
  /** [n + 1], key i is units[ends[i] … ends[i + 1]] */
  readonly ends: Uint32Array;
  /** [n] */
  readonly values: Int32Array;
  /** [a power of two >= 2 n], index of a key + 1, or 0 for a free slot */
  readonly slots: Int32Array;
}

/** Of several entries with one key the last one counts, as in a Map. */
export function buildStringTable(entries: ReadonlyMap<string, number>): StringTable {
  let length = 0;
  for (const key of entries.keys()) length += key.length;
  const count = entries.size;
  let capacity = 16;
  while (capacity < 2 * count) capacity *= 2;

  const table: StringTable = {
    seed: Math.floor(Math.random() * 2 ** 32) | 0,
    units: new Uint16Array(new SharedArrayBuffer(length * 2)),
    ends: new Uint32Array(new SharedArrayBuffer((count + 1) * 4)),
    values: new Int32Array(new SharedArrayBuffer(count * 4)),
    slots: new Int32Array(new SharedArrayBuffer(capacity * 4)),
  };
  let index = 0;
  let end = 0;
  for (const [key, value] of entries) {
    let slot = hash(key, table.seed) & (capacity - 1);
    while (table.slots[slot] !== 0) slot = (slot + 1) & (capacity - 1);
    for (let i = 0; i < key.length; i++) table.units[end++] = key.charCodeAt(i);
    table.slots[slot] = index + 1;
    table.values[index] = value;
    table.ends[++index] = end;
  }
  return table;
}

/** FNV-1a over UTF-16 units, with a last mix, since only the low bits choose the slot. */
function hash(key: string, seed: number): number {
  let h = seed;
  for (let i = 0; i < key.length; i++) h = Math.imul(h ^ key.charCodeAt(i), 0x01000193);
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  return (h ^ (h >>> 13)) >>> 0;
}

function find(table: StringTable, key: string): number | undefined {
  const mask = table.slots.length - 1;
  for (let slot = hash(key, table.seed) & mask; ; slot = (slot + 1) & mask) {
    const index = table.slots[slot]! - 1;
    if (index < 0) return undefined;
    const start = table.ends[index]!;
    if (table.ends[index + 1]! - start !== key.length) continue;
    let i = 0;
    while (i < key.length && table.units[start + i] === key.charCodeAt(i)) i++;
    if (i === key.length) return index;
  }
}

/** Key number `index`, in the order in which the table was built. */
export function keyAt(table: StringTable, index: number): string {
  // A copy, because a string can't be made from a view of shared memory by every decoder.
  const units = table.units.slice(table.ends[index]!, table.ends[index + 1]!);
  return String.fromCharCode(...units);
}

/** A StringTable where a Map is expected: `get` and `has` look it up; it has no entries of its own. */
export class TableMap extends Map<string, number> {
  readonly #table: StringTable;

  constructor(table: StringTable) {
    super();
    this.#table = table;
  }

  override get(key: string): number | undefined {
    const index = find(this.#table, key);
    return index === undefined ? undefined : this.#table.values[index];
  }

  override has(key: string): boolean {
    return find(this.#table, key) !== undefined;
  }
}

/** The key of a merge in a table of ranks: the length of its left token first, so that no two pairs have one key. */
export function mergeKey(left: string, right: string): string {
  return String.fromCharCode(left.length) + left + right;
}
