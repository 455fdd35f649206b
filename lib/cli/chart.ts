import type { ClassScore } from '../zero-shot';
import { columns, printable } from './terminal';

const kBar = 40;
const kEighths = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/** One line per class: label, bar, percent. `width` is the terminal's. */
export function barChart(scores: readonly ClassScore[], width: number, colour: boolean): string {
  const room = Math.max(8, width - 20);
  const labels = scores.map(({ label }) => cut(printable(label), room));
  const longest = Math.max(...labels.map(columns));
  const bar = Math.max(4, Math.min(kBar, width - longest - 12));
  const lines = scores.map(({ score }, i) => {
    const label = labels[i]! + ' '.repeat(longest - columns(labels[i]!));
    const drawn = blocks(score, bar);
    const painted = colour ? `\x1b[${i === 0 ? '32' : '36'}m${drawn}\x1b[0m` : drawn;
    return `  ${label} ${painted} ${percent(score)}\n`;
  });
  return lines.join('');
}

function blocks(score: number, length: number): string {
  const eighths = Number.isFinite(score) ? Math.round(Math.min(1, Math.max(0, score)) * length * 8) : 0;
  return ('█'.repeat(Math.floor(eighths / 8)) + kEighths[eighths % 8]!).padEnd(length);
}

function percent(score: number): string {
  return Number.isFinite(score) ? `${(100 * score).toFixed(1).padStart(5)} %` : '  NaN';
}

function cut(text: string, room: number): string {
  if (columns(text) <= room) return text;
  let kept = '';
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (columns(kept + segment) > room - 1) break;
    kept += segment;
  }
  return `${kept}…`;
}
