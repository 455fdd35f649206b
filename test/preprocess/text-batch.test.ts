import { expect } from 'chai';
import {
  endOfTextIndex,
  kSegmentFields,
  planPaddedBatch,
  planTextBatch,
  type TextBatchPlan,
} from '../../lib/preprocess/text-batch';
import { seeded } from './tokenizer-reference';

const rows = (...texts: number[][]): Int32Array[] => texts.map((ids) => Int32Array.from(ids));

/** A segment by its definition: the rows of its queries, and for each the rows that it may attend to. */
function expand(segments: Int32Array, s: number, causal: boolean): { readonly queries: number[]; readonly keys: number[][] } {
  const [qStart, qCount, kStart, kCount, prefixStart, prefixCount] = [
    ...segments.subarray(s * kSegmentFields, (s + 1) * kSegmentFields),
  ];
  const range = (start: number, count: number): number[] => Array.from({ length: count }, (_, i) => start + i);
  const queries = range(qStart!, qCount!);
  const keys = queries.map((_, i) => [
    ...range(prefixStart!, prefixCount!),
    ...range(kStart!, causal ? i + 1 + kCount! - qCount! : kCount!),
  ]);
  return { queries, keys };
}

/** Each row attends to exactly the tokens of its text up to itself (or all of them), at the positions 0, 1, 2, … */
function expectComplete(plan: TextBatchPlan, texts: readonly Int32Array[], causal: boolean): void {
  const seen = new Map<number, number[]>();
  for (let s = 0; s < plan.segments.length / kSegmentFields; s++) {
    const { queries, keys } = expand(plan.segments, s, causal);
    queries.forEach((row, i) => {
      expect(seen.has(row), `row ${row} is computed once`).to.equal(false);
      seen.set(row, keys[i]!);
      expect(queries.length).to.be.at.most(plan.maxQueries);
      expect(keys[i]!.length).to.be.at.most(plan.maxKeys);
    });
  }
  expect([...seen.keys()].sort((a, b) => a - b)).to.deep.equal(Array.from(plan.ids, (_, row) => row));

  texts.forEach((text, b) => {
    const last = plan.lastRows[b]!;
    const keys = seen.get(last)!;
    expect(keys.map((row) => plan.ids[row])).to.deep.equal([...text]);
    expect(keys.map((row) => plan.positions[row])).to.deep.equal(Array.from(text, (_, i) => i));
    if (causal) {
      expect(keys.at(-1)).to.equal(last);
      keys.forEach((row, i) => {
        expect(
          seen.get(row)!.map((key) => plan.ids[key]),
          `what row ${row} sees`,
        ).to.deep.equal([...text.subarray(0, i + 1)]);
      });
    }
    const lastLayer = expand(plan.lastSegments, b, causal);
    expect(lastLayer.queries).to.deep.equal([b]);
    expect(lastLayer.keys[0]).to.deep.equal(keys);
  });
}

describe('planTextBatch()', () => {
  it('computes the common beginning once', () => {
    const plan = planTextBatch(rows([9, 1, 2, 3, 8], [9, 1, 2, 4, 5, 8], [9, 1, 2, 8]), { sharePrefix: true });
    expect([...plan.ids]).to.deep.equal([9, 1, 2, 3, 8, 4, 5, 8, 8]);
    expect([...plan.positions]).to.deep.equal([0, 1, 2, 3, 4, 3, 4, 5, 3]);
    expect([...plan.segments]).to.deep.equal([0, 3, 0, 3, 0, 0, 3, 2, 3, 2, 0, 3, 5, 3, 5, 3, 0, 3, 8, 1, 8, 1, 0, 3]);
    expect([...plan.lastRows]).to.deep.equal([4, 7, 8]);
    expect([...plan.lastSegments]).to.deep.equal([0, 1, 3, 2, 0, 3, 1, 1, 5, 3, 0, 3, 2, 1, 8, 1, 0, 3]);
    expect([plan.maxQueries, plan.maxKeys]).to.deep.equal([3, 6]);
  });

  it('leaves every text its last token, though one text begins another', () => {
    const texts = rows([9, 1, 8], [9, 1, 8, 5], [9, 1, 8, 5, 6]);
    const plan = planTextBatch(texts, { sharePrefix: true });
    expect([...plan.segments.subarray(0, 6)]).to.deep.equal([0, 2, 0, 2, 0, 0]);
    expectComplete(plan, texts, true);
  });

  it('computes equal texts once, and a single text without a prefix', () => {
    const plan = planTextBatch(rows([9, 1, 8], [9, 1, 8]), { sharePrefix: true });
    expect([...plan.ids]).to.deep.equal([9, 1, 8]);
    expect([...plan.segments]).to.deep.equal([0, 3, 0, 3, 0, 0]);
    expect([...plan.lastRows]).to.deep.equal([2, 2]);
    expect([...plan.lastSegments]).to.deep.equal([0, 1, 0, 3, 0, 0, 1, 1, 0, 3, 0, 0]);
    expect([...planTextBatch(rows([9, 8]), { sharePrefix: true }).segments]).to.deep.equal([0, 2, 0, 2, 0, 0]);
  });

  it('has no prefix segment where the first tokens differ, or a text is one token', () => {
    for (const texts of [rows([9, 1, 8], [7, 1, 8]), rows([9], [9, 1, 8])]) {
      const plan = planTextBatch(texts, { sharePrefix: true });
      expect(plan.segments).to.have.length(2 * kSegmentFields);
      expectComplete(plan, texts, true);
    }
  });

  it('gives each text exactly its own tokens, in 500 batches drawn at random', () => {
    const random = seeded(1);
    const upTo = (n: number): number => Math.floor(random() * n);
    for (let n = 0; n < 500; n++) {
      const template = Array.from({ length: upTo(5) }, () => upTo(3));
      const texts = rows(
        ...Array.from({ length: 1 + upTo(6) }, () => [...template, ...Array.from({ length: 1 + upTo(4) }, () => upTo(2))]),
      );
      const shared = planTextBatch(texts, { sharePrefix: true });
      const plain = planTextBatch(texts, { sharePrefix: false });
      expectComplete(shared, texts, true);
      expectComplete(plain, texts, true);
      expect(plain.ids).to.have.length(texts.reduce((sum, text) => sum + text.length, 0));
      expect(shared.ids.length).to.be.at.most(plain.ids.length);
    }
  });

  it('refuses no texts and empty ones', () => {
    expect(() => planTextBatch([], { sharePrefix: true })).to.throw('planTextBatch: there must be at least one text');
    expect(() => planTextBatch(rows([1], []), { sharePrefix: true })).to.throw('planTextBatch: text 1 has no tokens');
  });
});

describe('planPaddedBatch()', () => {
  it('pads every text, and pools the last position', () => {
    const options = { contextLength: 4, padTokenId: 1 };
    const plan = planPaddedBatch(rows([5, 6], [7, 8, 9, 2], [5, 6]), options);
    expect([...plan.ids]).to.deep.equal([5, 6, 1, 1, 7, 8, 9, 2]);
    expect([...plan.positions]).to.deep.equal([0, 1, 2, 3, 0, 1, 2, 3]);
    expect([...plan.segments]).to.deep.equal([0, 4, 0, 4, 0, 0, 4, 4, 4, 4, 0, 0]);
    expect([...plan.lastRows]).to.deep.equal([3, 7, 3]);
    expect([...plan.lastSegments]).to.deep.equal([0, 1, 0, 4, 0, 0, 1, 1, 4, 4, 0, 0, 2, 1, 0, 4, 0, 0]);
    expect([plan.maxQueries, plan.maxKeys]).to.deep.equal([4, 4]);
    expectComplete(plan, rows([5, 6, 1, 1], [7, 8, 9, 2], [5, 6, 1, 1]), false);
  });

  it('refuses a text that is too long', () => {
    const message = 'planPaddedBatch: a text may have 2 tokens, text 1 has 3';
    expect(() => planPaddedBatch(rows([1], [1, 2, 3]), { contextLength: 2, padTokenId: 1 })).to.throw(message);
  });
});

// The field case: a row without end mark pooled at row 0, and tokens added above the end mark pooled in its place.
describe('endOfTextIndex()', () => {
  it('is the first end mark, whatever stands behind it', () => {
    expect(endOfTextIndex([49406, 5, 49407, 49414, 9], 49407)).to.equal(2);
    expect(endOfTextIndex(Int32Array.from([49406, 5, 49407, 49407]), 49407)).to.equal(2);
  });

  it('is the first of the largest ids in an old config, where eos_token_id is 2', () => {
    expect(endOfTextIndex([49406, 5, 49407, 49414, 9], 2)).to.equal(3);
    expect(endOfTextIndex([49406, 2, 5, 49407, 49407], 2)).to.equal(3);
  });

  it('is an error where there is none', () => {
    const full = [49406, ...new Array<number>(76).fill(320)];
    expect(() => endOfTextIndex(full, 49407)).to.throw(
      'a text must have its end mark, id 49407, among its tokens: [49406, 320, 320, 320, 320, 320, 320, 320, … 77 in all]',
    );
    expect(() => endOfTextIndex(full, 2)).to.throw('a text must have an end mark, the largest id, behind its start');
    expect(() => endOfTextIndex([], 49407)).to.throw('among its tokens: []');
    expect(() => endOfTextIndex([], 2)).to.throw('behind its start: []');
  });
});
