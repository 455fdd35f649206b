/** Sizes of the dimensions, outermost first; [] is a scalar. */
export type Shape = readonly number[];

/** The number of elements of a shape. */
export function elements(shape: Shape): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}
