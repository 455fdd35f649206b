/** One line of a plot, with an interval at each point. */
export interface Line {
  readonly label: string;
  readonly colour: string;
  readonly dashed?: boolean;
  readonly points: readonly { readonly x: number; readonly y: number; readonly low: number; readonly high: number }[];
}

export interface LinePlot {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly lines: readonly Line[];
}

const kWidth = 760;
const kHeight = 420;
const kMargin = { left: 72, right: 260, top: 48, bottom: 52 };

/** An SVG with logarithmic axes: powers of two across, powers of ten up. */
export function linePlot({ title, x, y, lines }: LinePlot): string {
  const points = lines.flatMap(({ points }) => points);
  const xs = points.map((point) => Math.log2(point.x));
  const lows = points.map(({ low }) => Math.log10(low));
  const highs = points.map(({ high }) => Math.log10(high));
  const [left, right] = [Math.floor(Math.min(...xs)), Math.ceil(Math.max(...xs))];
  const [bottom, top] = [Math.floor(Math.min(...lows)), Math.ceil(Math.max(...highs))];
  const across = (value: number) =>
    kMargin.left + ((Math.log2(value) - left) / (right - left)) * (kWidth - kMargin.left - kMargin.right);
  const up = (value: number) =>
    kHeight - kMargin.bottom - ((Math.log10(value) - bottom) / (top - bottom)) * (kHeight - kMargin.top - kMargin.bottom);
  const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const end = kWidth - kMargin.right;
  const floor = kHeight - kMargin.bottom;
  const grid = [
    ...range(bottom, top).map((power) => {
      const at = up(10 ** power);
      const label = `<text x="${kMargin.left - 8}" y="${at + 4}" text-anchor="end">${10 ** power}</text>`;
      return `<line x1="${kMargin.left}" y1="${at}" x2="${end}" y2="${at}" stroke="#ddd"/>${label}`;
    }),
    ...range(left, right).map((power) => {
      const at = across(2 ** power);
      const label = `<text x="${at}" y="${floor + 18}" text-anchor="middle">${2 ** power}</text>`;
      return `<line x1="${at}" y1="${kMargin.top}" x2="${at}" y2="${floor}" stroke="#eee"/>${label}`;
    }),
  ];
  const drawn = lines.map(({ label, colour, dashed, points: of }, i) => {
    const path = of.map((point) => `${across(point.x).toFixed(1)},${up(point.y).toFixed(1)}`).join(' ');
    const dash = dashed ? ' stroke-dasharray="6 4"' : '';
    const bars = of.map((point) => {
      const at = across(point.x).toFixed(1);
      return `<line x1="${at}" y1="${up(point.low).toFixed(1)}" x2="${at}" y2="${up(point.high).toFixed(1)}" stroke="${colour}" stroke-width="3"/>`;
    });
    const key = kMargin.top + 10 + 22 * i;
    return [
      `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"${dash}/>`,
      ...bars,
      `<line x1="${end + 14}" y1="${key}" x2="${end + 44}" y2="${key}" stroke="${colour}" stroke-width="2"${dash}/>`,
      `<text x="${end + 50}" y="${key + 4}">${label}</text>`,
    ].join('\n');
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${kWidth} ${kHeight}" font-family="sans-serif" font-size="12" fill="#222">`,
    `<title>${title}</title>`,
    `<rect width="${kWidth}" height="${kHeight}" fill="#fff"/>`,
    `<text x="${kMargin.left}" y="26" font-size="15">${title}</text>`,
    ...grid,
    ...drawn,
    `<text x="${(kMargin.left + end) / 2}" y="${kHeight - 12}" text-anchor="middle">${x}</text>`,
    `<text transform="translate(18 ${(kMargin.top + floor) / 2}) rotate(-90)" text-anchor="middle">${y}</text>`,
    '</svg>',
    '',
  ].join('\n');
}
