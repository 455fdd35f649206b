import { expect } from 'chai';
import { barChart } from '../../lib/cli/chart';
import { nearest } from '../../lib/cli/nearest';
import { columns, printable } from '../../lib/cli/terminal';

const scores = [
  { label: 'rocket', index: 1, score: 0.75 },
  { label: '猫', index: 0, score: 0.25 },
];

describe('barChart()', () => {
  it('draws a line for each class, aligned also for wide characters', () => {
    const [first, second, end] = barChart(scores, 80, false).split('\n');
    expect(first).to.equal(`  rocket ${'█'.repeat(30)}${' '.repeat(10)}  75.0 %`);
    expect(second).to.equal(`  猫     ${'█'.repeat(10)}${' '.repeat(30)}  25.0 %`);
    expect(end).to.equal('');
  });

  it('fits narrow terminals, and says NaN', () => {
    const long = [{ label: 'x'.repeat(300), index: 0, score: Number.NaN }];
    const [line] = barChart(long, 40, false).split('\n');
    expect(columns(line!)).to.be.at.most(40);
    expect(line).to.contain('…').and.to.match(/NaN$/);
  });

  it('colours on request', () => {
    expect(barChart(scores, 80, true)).to.contain('\x1b[32m');
  });
});

describe('printable()', () => {
  it('keeps control characters from the terminal', () => {
    expect(printable('a\x1b[31mb\n')).to.equal('a\ufffd[31mb\ufffd');
  });
});

describe('nearest()', () => {
  it('finds what was meant, or nothing', () => {
    expect(nearest('jsn', ['json', 'help'])).to.equal('json');
    expect(nearest('lables', ['labels', 'template'])).to.equal('labels');
    expect(nearest('frobnicate', ['json', 'help'])).to.equal(undefined);
  });
});
