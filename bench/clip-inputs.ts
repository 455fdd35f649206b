// What benches of CLIP encode; clip_torch.py makes the same pixels and ids.

/** [n, 3, side, side], from −1 to 1 */
export function hostPixels(n: number, side: number): Float32Array {
  const pixels = new Float32Array(n * 3 * side * side);
  for (let i = 0; i < pixels.length; i++) pixels[i] = (Math.imul(i, 0x9e3779b1) >>> 0) / 2 ** 31 - 1;
  return pixels;
}

/** Start mark, numbers that differ between prompts, end mark: no two share a beginning but the mark. */
export function hostIds(n: number, length: number, vocabulary: number): Int32Array[] {
  return Array.from({ length: n }, (_, i) =>
    Int32Array.from({ length }, (_, t) => {
      if (t === 0) return vocabulary - 2;
      return t === length - 1 ? vocabulary - 1 : (31 * i + 7 * t) % (vocabulary - 2);
    }),
  );
}

export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return ab / Math.sqrt(aa * bb);
}
