/** A value with an interval, not negative. */
export interface Bar {
  readonly label: string;
  readonly colour: string;
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

export interface BarGroup {
  readonly label: string;
  readonly bars: readonly Bar[];
}

export interface BarPlot {
  readonly title: string;
  readonly x: string;
  readonly groups: readonly BarGroup[];
}

const kWidth = 860;
const kMargin = { left: 250, right: 110, top: 48, bottom: 48 };
const kBar = 13;
const kGap = 12;

/** An SVG of horizontal bars in groups; 1 is marked, as what is shown are shares. */
export function barPlot({ title, x, groups }: BarPlot): string {
  const most = Math.max(1, ...groups.flatMap(({ bars }) => bars.map(({ high }) => high)));
  const top = Math.ceil(most * 10) / 10;
  const across = (value: number) => kMargin.left + (value / top) * (kWidth - kMargin.left - kMargin.right);
  const heights = groups.map(({ bars }) => bars.length * kBar + kGap);
  const floor = kMargin.top + heights.reduce((sum, height) => sum + height, 0);
  const step = top > 3 ? 0.5 : 0.2;
  const grid = Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => i * step).map((value) => {
    const at = across(value).toFixed(1);
    const label = `<text x="${at}" y="${floor + 18}" text-anchor="middle">${Math.round(100 * value)} %</text>`;
    return `<line x1="${at}" y1="${kMargin.top}" x2="${at}" y2="${floor}" stroke="#ddd"/>${label}`;
  });
  const one = across(1).toFixed(1);
  let y = kMargin.top + kGap / 2;
  const drawn = groups.map(({ label, bars }, i) => {
    const begin = y;
    y += heights[i]!;
    const middle = begin + (bars.length * kBar) / 2 + 4;
    const lines = bars.map(({ label: name, colour, value, low, high }, j) => {
      const at = begin + j * kBar;
      const [from, to, end] = [across(low), across(high), across(value)].map((place) => place.toFixed(1));
      return [
        `<rect x="${kMargin.left}" y="${at}" width="${(across(value) - kMargin.left).toFixed(1)}" height="${kBar - 2}" fill="${colour}"/>`,
        `<line x1="${from}" y1="${at + kBar / 2 - 1}" x2="${to}" y2="${at + kBar / 2 - 1}" stroke="#222"/>`,
        `<text x="${Math.max(Number(to), Number(end)) + 5}" y="${at + kBar - 3}" font-size="10">${name} ${Math.round(100 * value)} %</text>`,
      ].join('');
    });
    return [`<text x="${kMargin.left - 10}" y="${middle}" text-anchor="end">${label}</text>`, ...lines].join('\n');
  });
  const height = floor + kMargin.bottom;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${kWidth} ${height}" font-family="sans-serif" font-size="12" fill="#222">`,
    `<title>${title}</title>`,
    `<rect width="${kWidth}" height="${height}" fill="#fff"/>`,
    `<text x="16" y="26" font-size="15">${title}</text>`,
    ...grid,
    `<line x1="${one}" y1="${kMargin.top - 6}" x2="${one}" y2="${floor}" stroke="#222" stroke-dasharray="6 4"/>`,
    ...drawn,
    `<text x="${(kMargin.left + kWidth - kMargin.right) / 2}" y="${height - 10}" text-anchor="middle">${x}</text>`,
    '</svg>',
    '',
  ].join('\n');
}
