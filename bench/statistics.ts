/** The value at rank q · (n − 1), rounded: p99 of 100 values is the 99th. @param q from 0 to 1 */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) throw new Error('a quantile of no values');
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.round(q * (sorted.length - 1))]!;
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** For ratios: the mean of r and 1 / r is 1. */
export function geometricMean(values: readonly number[]): number {
  if (values.length === 0) throw new Error('a mean of no values');
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}
