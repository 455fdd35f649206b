import { expect } from 'chai';
import { WarpsightError } from '../../lib/errors';
import { parseImageProcessorConfig, planResize } from '../../lib/preprocess/image-processor';
import { axisTable, kDescriptor, kFilterNames, normalisationTable, type ResampleFilter } from '../../lib/preprocess/resample';
import { difference, kIdentityLut, kResizers, resizePlainly, toBytes } from './image-reference';

const kOne = 2 ** 22;

/** The filters as their definitions read, in double. */
const definitions: Readonly<Record<Exclude<ResampleFilter, 'nearest'>, { support: number; at: (x: number) => number }>> = {
  lanczos: { support: 3, at: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    at: (x) => {
      const t = Math.abs(x);
      if (t < 1) return 1.5 * t ** 3 - 2.5 * t ** 2 + 1;
      return t < 2 ? -0.5 * t ** 3 + 2.5 * t ** 2 - 4 * t + 2 : 0;
    },
  },
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  hamming: { support: 1, at: (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0) },
};

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** One axis in float64: every input against every output, normalised; no tables, no rounding. */
function resizeLine(line: readonly number[], outputSize: number, filter: Exclude<ResampleFilter, 'nearest'>): number[] {
  const scale = line.length / outputSize;
  const stretch = Math.max(1, scale);
  const { support, at } = definitions[filter];
  return Array.from({ length: outputSize }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const weights = line.map((_, x) =>
      Math.abs(x + 0.5 - centre) <= support * stretch + 1e-9 ? at((x + 0.5 - centre) / stretch) : 0,
    );
    const sum = weights.reduce((a, b) => a + b, 0);
    return line.reduce((total, value, x) => total + (value * weights[x]!) / sum, 0);
  });
}

function grey(line: readonly number[], height = 1) {
  return {
    data: Uint8Array.from(Array.from({ length: height }, () => line.flatMap((v) => [v, v, v])).flat()),
    width: line.length,
    height,
  };
}

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe('axisTable()', () => {
  for (const filter of kFilterNames) {
    for (const [from, to] of [
      [96, 32],
      [37, 224],
      [7, 7],
      [1, 5],
      [500, 1],
    ] as const) {
      it(`${filter}, ${from} -> ${to}: weights sum to one and read only what is there`, () => {
        const { taps, stride, begin, end } = axisTable(from, to, 0, to, filter);
        expect(taps.length).to.equal(to * stride);
        for (let i = 0; i < to; i++) {
          const [first, count, ...weights] = taps.subarray(i * stride, (i + 1) * stride);
          expect(first).to.be.at.least(begin);
          expect(first! + count!).to.be.at.most(end);
          expect(weights.slice(count)).to.deep.equal(weights.slice(count).fill(0));
          const sum = weights.reduce((a, b) => a + b, 0);
          expect(sum).to.be.closeTo(kOne, count! / 2 + 1);
        }
        expect(end).to.be.at.most(from);
      });
    }
  }

  it('computes only the crop: 1 x 5000 to 224 x 1,120,000', () => {
    const { taps, begin, end } = axisTable(5000, 1_120_000, (1_120_000 - 224) / 2, 224, 'bicubic');
    expect(taps.length).to.equal(224 * 6); // first, count and 4 weights
    expect([begin, end]).to.deep.equal([2498, 2502]); // centres from 2499.502 to 2500.498, 2 to either side
  });

  it('a crop of a table is that part of the table', () => {
    for (const filter of kFilterNames) {
      const whole = axisTable(301, 97, 0, 97, filter);
      const part = axisTable(301, 97, 31, 20, filter);
      for (let i = 0; i < 20; i++) {
        const count = whole.taps[(31 + i) * whole.stride + 1]!;
        const row = (t: typeof whole, j: number) => [...t.taps.subarray(j * t.stride, j * t.stride + 2 + count)];
        expect(row(part, i), `${filter} ${i}`).to.deep.equal(row(whole, 31 + i));
      }
    }
  });

  it('marks padding with count 0', () => {
    const { taps, stride } = axisTable(4, 4, -2, 8, 'bicubic');
    expect(Array.from({ length: 8 }, (_, i) => taps[i * stride + 1]! > 0)).to.deep.equal([
      false,
      false,
      true,
      true,
      true,
      true,
      false,
      false,
    ]);
    const nearest = axisTable(4, 4, -2, 8, 'nearest');
    expect([...nearest.taps.filter((_, i) => i % 3 === 0)]).to.deep.equal([0, 0, 0, 1, 2, 3, 0, 0]);
  });

  it('gives the same table for the same sizes, while it is kept', () => {
    expect(axisTable(640, 224, 0, 224, 'bicubic')).to.equal(axisTable(640, 224, 0, 224, 'bicubic'));
    expect(axisTable(640, 224, 0, 224, 'bicubic')).not.to.equal(axisTable(640, 224, 0, 224, 'lanczos'));
    const first = axisTable(60_000, 224, 0, 224, 'lanczos');
    for (let size = 60_001; size < 60_010; size++) axisTable(size, 224, 0, 224, 'lanczos'); // 1.5 MB each: more than is kept
    expect(axisTable(60_000, 224, 0, 224, 'lanczos')).not.to.equal(first);
    expect(axisTable(60_000, 224, 0, 224, 'lanczos').taps).to.deep.equal(first.taps);
  });
});

describe('resizing against float64', () => {
  const random = seeded(11);
  const lines: Record<string, number[]> = {
    'a checker of period 3': Array.from({ length: 96 }, (_, x) => (x % 3 === 0 ? 255 : 0)),
    'a ramp': Array.from({ length: 96 }, (_, x) => Math.round((x * 255) / 95)),
    noise: Array.from({ length: 96 }, () => Math.floor(random() * 256)),
  };
  for (const [what, line] of Object.entries(lines)) {
    for (const size of [32, 192, 57]) {
      kFilterNames.forEach((filter, code) => {
        if (filter === 'nearest') return;
        it(`${what}, 96 -> ${size}, ${filter} (resample ${code})`, () => {
          const spec = parseImageProcessorConfig({ size: { height: 1, width: size }, do_center_crop: false, resample: code });
          const actual = toBytes(resizePlainly(planResize([grey(line)], spec), kIdentityLut), 1, size);
          resizeLine(line, size, filter).forEach((value, x) => {
            const clipped = Math.min(255, Math.max(0, value));
            expect(actual[3 * x], `sample ${x}`).to.be.closeTo(clipped, 0.501);
          });
        });
      });
    }
  }

  it('nearest takes the middle', () => {
    const spec = parseImageProcessorConfig({ size: { height: 1, width: 3 }, do_center_crop: false, resample: 0 });
    const line = Array.from({ length: 9 }, (_, i) => i);
    expect([...toBytes(resizePlainly(planResize([grey(line)], spec), kIdentityLut), 1, 3)]).to.deep.equal([
      1, 1, 1, 4, 4, 4, 7, 7, 7,
    ]);
  });

  it('every filter leaves a picture of the right size as it is', () => {
    const random = seeded(5);
    const data = Uint8Array.from({ length: 13 * 9 * 3 }, () => Math.floor(random() * 256));
    kFilterNames.forEach((_, code) => {
      const spec = parseImageProcessorConfig({ size: { height: 9, width: 13 }, do_center_crop: false, resample: code });
      const actual = toBytes(resizePlainly(planResize([{ data, width: 13, height: 9 }], spec), kIdentityLut), 9, 13);
      expect(difference(actual, data), kFilterNames[code]).to.equal(undefined);
    });
  });
});

describe('planResize()', () => {
  const clip8 = parseImageProcessorConfig({ size: 8, crop_size: 8 });

  it('lays descriptors, tables and scratch out without overlap, and shares equal tables', () => {
    const a = grey([1, 2, 3, 4, 5], 3);
    const b = grey([9, 8], 7);
    const plan = planResize([a, b, a], clip8);
    const field = (n: number, name: keyof typeof kDescriptor) => plan.images[n * kDescriptor.length + kDescriptor[name]]!;
    expect(plan.images).to.have.length(36);
    expect([0, 1, 2].map((n) => field(n, 'sourceOffset'))).to.deep.equal([0, 45, 87]);
    expect([0, 1, 2].map((n) => field(n, 'sourceWidth'))).to.deep.equal([5, 2, 5]);
    expect(field(2, 'xTable')).to.equal(field(0, 'xTable'));
    expect(field(2, 'yTable')).to.equal(field(0, 'yTable'));
    expect(new Set([0, 1].flatMap((n) => [field(n, 'xTable'), field(n, 'yTable')]))).to.have.property('size', 4);
    expect([0, 1, 2].map((n) => field(n, 'rows'))).to.deep.equal([3, 5, 3]); // b: 8 x 28 cut to 8 x 8 reads 5 of its 7 rows
    expect(field(1, 'firstRow')).to.equal(1);
    expect([0, 1, 2].map((n) => field(n, 'scratchOffset'))).to.deep.equal([0, 128, 256]);
    expect(plan.scratchBytes).to.equal(384);
    expect(plan.taps.length).to.equal(
      8 * [0, 1].flatMap((n) => [field(n, 'xStride'), field(n, 'yStride')]).reduce((x, y) => x + y),
    );
    expect([plan.width, plan.height, plan.sources.length]).to.deep.equal([8, 8, 3]);
  });

  for (const [name, resize] of kResizers) {
    it(`pads with zeros, before normalising, where the crop is larger than the picture, by ${name}`, async () => {
      const spec = parseImageProcessorConfig({ size: 4, crop_size: { height: 7, width: 4 }, image_mean: 0.5, image_std: 0.25 });
      const lut = normalisationTable(spec.rescaleFactor, spec.mean, spec.std);
      const out = await resize(planResize([{ data: new Uint8Array(48).fill(255), width: 4, height: 4 }], spec), lut);
      const column = Array.from({ length: 7 }, (_, y) => out[y * 4]);
      expect(column).to.deep.equal([-2, -2, 2, 2, 2, 2, -2]); // HF puts ceil(3 / 2) rows before and 1 after
    });

    it(`a constant picture stays constant at 1 x 1, 1 x 5000 and 5000 x 1, by ${name}`, async () => {
      for (const [width, height] of [
        [1, 1],
        [1, 5000],
        [5000, 1],
        [3, 3],
        [3, 4],
      ] as const) {
        const data = new Uint8Array(width * height * 3).fill(77);
        const out = await resize(planResize([{ data, width, height }], clip8), kIdentityLut);
        expect([...new Set(out)], `${width} x ${height}`).to.deep.equal([77]);
      }
    });
  }

  it('refuses pictures that come out in different sizes', () => {
    const spec = parseImageProcessorConfig({ size: 8, do_center_crop: false });
    expect(() => planResize([grey([1, 2]), grey([1, 2, 3])], spec)).to.throw(
      WarpsightError,
      'pictures of one call must come out in one size: one is 24 x 8, the others 16 x 8',
    );
  });

  it('no pictures are a plan of none where the size is fixed', () => {
    expect(planResize([], clip8)).to.deep.include({ scratchBytes: 0, width: 8, height: 8, sources: [] });
    expect(() => planResize([], parseImageProcessorConfig({ do_resize: false, do_center_crop: false }))).to.throw(
      WarpsightError,
      'there is no size',
    );
  });
});

describe('normalisationTable()', () => {
  it('is (u · factor - mean) / std in double, rounded once', () => {
    const table = normalisationTable(1 / 255, [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]);
    expect(table).to.have.length(768);
    expect(table[0]).to.equal(Math.fround(-0.48145466 / 0.26862954));
    expect(table[256 + 128]).to.equal(Math.fround((128 * (1 / 255) - 0.4578275) / 0.26130258));
    expect(table[767]).to.equal(Math.fround((255 * (1 / 255) - 0.40821073) / 0.27577711));
  });
});
