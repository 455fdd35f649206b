/**
 * The positions of a picture of rows x columns patches, from a table of grid x grid: bilinear between its nearest four, the corners of both on each
 * other.
 *
 * @param table [1 + grid², D]: the class token's position, then the grid's, row by row
 * @returns [1 + rows·columns, D]
 * @see torch.nn.functional.interpolate with align_corners
 */
export function interpolatePositions(table: Float32Array, grid: number, rows: number, columns: number): Float32Array {
  const D = table.length / (1 + grid * grid);
  if (rows === grid && columns === grid) return table;
  const out = new Float32Array((1 + rows * columns) * D);
  out.set(table.subarray(0, D));
  const along = (i: number, count: number) => {
    const at = count > 1 ? (i * (grid - 1)) / (count - 1) : 0;
    const low = Math.min(Math.floor(at), grid - 1);
    return { low, high: Math.min(low + 1, grid - 1), weight: at - low };
  };
  for (let r = 0; r < rows; r++) {
    const y = along(r, rows);
    for (let c = 0; c < columns; c++) {
      const x = along(c, columns);
      const corner = (row: number, column: number) => (1 + row * grid + column) * D;
      const [a, b] = [corner(y.low, x.low), corner(y.low, x.high)];
      const [e, f] = [corner(y.high, x.low), corner(y.high, x.high)];
      const to = (1 + r * columns + c) * D;
      for (let d = 0; d < D; d++) {
        const top = table[a + d]! * (1 - x.weight) + table[b + d]! * x.weight;
        const bottom = table[e + d]! * (1 - x.weight) + table[f + d]! * x.weight;
        out[to + d] = top * (1 - y.weight) + bottom * y.weight;
      }
    }
  }
  return out;
}
