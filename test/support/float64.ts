// What the references are made of: float64, one row after the other.
import type { Activation } from '../../lib/ops';

export type Row = Float64Array;
export type Rows = Row[];

export const kActivations: Readonly<Record<Activation, (x: number) => number>> = {
  none: (x) => x,
  quickGelu: (x) => x / (1 + Math.exp(-1.702 * x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x / (1 + Math.exp(-x)),
  relu: (x) => Math.max(0, x),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
};

/** By its series; the few terms that float64 needs for |x| < 6. */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

/** Numbers as a checkpoint holds them. */
interface Numbers {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export function rowOf({ shape, values }: Numbers, row: number): Float32Array {
  const width = values.length / shape[0]!;
  return values.subarray(row * width, (row + 1) * width);
}

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}

/** W·x + b; weight [N, K] */
export function linear(x: Row, weight: Numbers, bias?: Numbers): Row {
  return Float64Array.from({ length: weight.shape[0]! }, (_, n) => dot(rowOf(weight, n), x) + (bias?.values[n] ?? 0));
}

/** (x − mean) / √(var + eps) · weight + bias */
export function layerNorm(x: Row, weight: Numbers, bias: Numbers, eps: number): Row {
  const mean = x.reduce((a, b) => a + b, 0) / x.length;
  const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
  return x.map((value, d) => ((value - mean) / Math.sqrt(variance + eps)) * weight.values[d]! + bias.values[d]!);
}

/** A convolution of one picture whose stride is its kernel's side, row by row; kernel [D, 3, p, p], pixels [3, H, W]. */
export function patchRows(pixels: ArrayLike<number>, [H, W]: readonly [number, number], kernel: Numbers, bias?: Numbers): Rows {
  const [D, , p] = kernel.shape as [number, number, number];
  const columns = Math.floor(W / p);
  return Array.from({ length: Math.floor(H / p) * columns }, (_, i) => {
    const [top, left] = [Math.floor(i / columns) * p, (i % columns) * p];
    return Float64Array.from({ length: D }, (_, d) => {
      let total = bias?.values[d] ?? 0;
      rowOf(kernel, d).forEach((weight, k) => {
        const [c, y, x] = [Math.floor(k / (p * p)), Math.floor(k / p) % p, k % p];
        total += weight * pixels[(c * H + top + y) * W + left + x]!;
      });
      return total;
    });
  });
}

export function sum(a: ArrayLike<number>, b: ArrayLike<number>): Row {
  return Float64Array.from({ length: a.length }, (_, i) => a[i]! + b[i]!);
}

/**
 * softmax(q·kᵀ / √width)·v, head by head.
 *
 * @param options.kvHeads each serves heads / kvHeads neighbouring heads of q; as many as heads by default
 */
export function attend(
  q: Rows,
  k: Rows,
  v: Rows,
  { heads, kvHeads = heads, causal = false }: { readonly heads: number; readonly kvHeads?: number; readonly causal?: boolean },
): Rows {
  const width = q[0]!.length / heads;
  return q.map((query, t) => {
    const out = new Float64Array(query.length);
    const seen = causal ? t + 1 : k.length;
    for (let h = 0; h < heads; h++) {
      const own = h * width;
      const shared = Math.floor(h / (heads / kvHeads)) * width;
      const part = query.subarray(own, own + width);
      const weights = softmax(k.slice(0, seen).map((key) => dot(key.subarray(shared, shared + width), part) / Math.sqrt(width)));
      weights.forEach((weight, j) => {
        for (let d = 0; d < width; d++) out[own + d]! += weight * v[j]![shared + d]!;
      });
    }
    return out;
  });
}

export function unit(row: ArrayLike<number>): Row {
  const length = Math.sqrt(dot(row, row));
  return Float64Array.from(row, (value) => value / length);
}

export function softmax(row: readonly number[]): number[] {
  const most = Math.max(...row);
  const exps = row.map((value) => Math.exp(value - most));
  const total = exps.reduce((a, b) => a + b, 0);
  return exps.map((value) => value / total);
}
