import { expect } from 'chai';
import {
  BlipImageTextMatching,
  Candidates,
  CLIP,
  encodeCandidates,
  type ImageInput,
  type Reranker,
  retrieveAndRerank,
  Tensor,
  ViLT,
} from '../lib';
import { ModelFolders, tinyClip } from './field/model-folder';
import { blipWeights, tinyBlip, tinyVilt, viltWeights } from './models/pair-shapes';
import { expectError } from './support/errors';
import { seeded } from './support/numbers';

/** Embeds what it is given as the unit vector that the test says, and judges pairs as the test says. */
function fakes(cosines: readonly number[], judged: Readonly<Record<string, number>>) {
  const asked: string[][] = [];
  const unit = (cosine: number) => [cosine, Math.sqrt(1 - cosine ** 2)];
  const rows = (values: readonly number[][]) => Tensor.from(Float32Array.from(values.flat()), [values.length, 2]);
  const encode = async (given: unknown) => {
    const list = Array.isArray(given) ? given : [given];
    return list.length === 1 ? rows([[1, 0]]) : rows(cosines.map(unit));
  };
  const judge = (of: unknown) => {
    const list = Array.isArray(of) ? of.map(String) : [String(of)];
    asked.push(list);
    return list.map((name) => judged[name]!);
  };
  return {
    asked,
    retrieve: { encodeImage: encode, encodeText: encode },
    byImages: { match: async (images: unknown) => judge(images).map((score) => [score]) } satisfies Reranker,
    byTexts: { score: async (_: unknown, texts: unknown) => [judge(texts)] } satisfies Reranker,
  };
}

const kPreprocessor = (size: number) => ({
  image_processor_type: 'BlipImageProcessor',
  size: { height: size, width: size },
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.5, 0.5, 0.5],
});

describe('retrieveAndRerank', () => {
  const files = ['a.png', 'b.png', 'c.png', 'd.png'];

  it('compares all by their embeddings, and judges the best k again: from a text to images', async () => {
    const { retrieve, byImages, asked } = fakes([0.1, 0.9, 0.5, 0.7], { 'b.png': 0.2, 'd.png': 0.8 });
    const found = await retrieveAndRerank('a cat', files, { retrieve, rerank: byImages, k: 2 });
    expect(asked).to.deep.equal([['b.png', 'd.png']]);
    expect(found.map(({ index, score }) => [index, score])).to.deep.equal([
      [3, 0.8],
      [1, 0.2],
    ]);
    expect(found[0]!.retrieveScore).to.be.closeTo(0.7, 1e-6);
  });

  it('from an image to texts: a string that names a file is an image, and so is anything wrapped as one', async () => {
    for (const query of [__filename, { image: 'no such file' }, Buffer.from([1])]) {
      const { retrieve, byTexts } = fakes([0.3, 0.1, 0.2], { 'a cat': 1, 'a car': 2 });
      const found = await retrieveAndRerank(query, ['a cat', 'a dog', 'a car'], { retrieve, rerank: byTexts, k: 2 });
      expect(found.map(({ index }) => index)).to.deep.equal([2, 0]);
    }
  });

  it('takes all where there are fewer than k, and none where there is none', async () => {
    const { retrieve, byImages } = fakes([0.1, 0.2], { 'a.png': 1, 'b.png': 2 });
    expect(await retrieveAndRerank('x', { images: ['a.png', 'b.png'] }, { retrieve, rerank: byImages, k: 9 })).to.have.length(2);
    const none = { ...retrieve, encodeImage: async () => Tensor.from(new Float32Array(0), [0, 2]) };
    expect(await retrieveAndRerank('x', { images: [] }, { retrieve: none, rerank: byImages })).to.deep.equal([]);
  });

  it('says what is wrong', async () => {
    const { retrieve, byImages } = fakes([0.1], {});
    const ask = (options: object, query: unknown = 'x', candidates: unknown = files) =>
      retrieveAndRerank(query as string, candidates as string[], { retrieve, rerank: byImages, ...options });
    await expectError(() => ask({ k: 0 }), 'ERR_ARGUMENT', /k must be a whole number of at least 1: it is 0/);
    await expectError(() => ask({ rerank: {} }), 'ERR_ARGUMENT', /^rerank must be a model with match or score/);
    await expectError(() => ask({ retrieve: undefined }), 'ERR_ARGUMENT', /^retrieve must be a model/);
    await expectError(() => ask({}, { text: 'a' }, { texts: ['b'] }), 'ERR_ARGUMENT', /candidates that are texts need an image/);
    await expectError(() => ask({}, 'x', 7), 'ERR_ARGUMENT', /candidates must be images or texts/);
    await expectError(() => encodeCandidates(files as never, { retrieve }), 'ERR_ARGUMENT', /give \{ images \} or \{ texts \}/);
  });

  describe('with CLIP, BLIP and ViLT', () => {
    const folders = new ModelFolders();
    let clip: CLIP;
    let blip: BlipImageTextMatching;
    let vilt: ViLT;
    const images = Array.from({ length: 6 }, (_, i): ImageInput => {
      const random = seeded(i);
      return { data: Uint8Array.from({ length: 3 * 20 * 24 }, () => 256 * random()), width: 20, height: 24, channels: 3 };
    });
    const ids = [
      [3, 17, 98],
      [5, 98],
      [40, 41, 42, 98],
      [7, 8, 98],
    ];

    before(async () => {
      const clipConfig = tinyClip();
      const blipConfig = tinyBlip({ text: { vocab_size: 100 } });
      const viltConfig = tinyVilt({ vocab_size: 100 });
      const load = { device: 'cpu' } as const;
      clip = await CLIP.fromPretrained(
        folders.model(clipConfig, { files: { 'preprocessor_config.json': kPreprocessor(16) } }),
        load,
      );
      blip = await BlipImageTextMatching.fromPretrained(
        folders.model(blipConfig, { tensors: blipWeights(blipConfig), files: { 'preprocessor_config.json': kPreprocessor(24) } }),
        load,
      );
      const processor = { image_processor_type: 'ViltImageProcessor', size: { shortest_edge: 24 }, size_divisor: 8 };
      vilt = await ViLT.fromPretrained(
        folders.model(viltConfig, { tensors: viltWeights(viltConfig), files: { 'preprocessor_config.json': processor } }),
        load,
      );
    });
    after(() => {
      for (const model of [clip, blip, vilt]) model?.dispose();
    });

    it('is CLIP’s order and then BLIP’s judgement, whether features are kept or not', async () => {
      const query = { inputIds: [ids[0]!] };
      const cosines = (await clip.similarity(images, query)).map(([cosine]) => cosine!);
      const best = cosines
        .map((_, i) => i)
        .sort((a, b) => cosines[b]! - cosines[a]!)
        .slice(0, 3);
      const judged = (await blip.match(images, query)).map(([score]) => score!);
      const order = [...best].sort((a, b) => judged[b]! - judged[a]!);
      using kept = await encodeCandidates({ images }, { retrieve: clip, rerank: blip });
      expect(kept).to.be.instanceOf(Candidates);
      expect(kept.imageFeatures?.shape).to.deep.equal([6, 10, 16]);
      for (const candidates of [images, { images }, kept, kept]) {
        const found = await retrieveAndRerank(query, candidates, { retrieve: clip, rerank: blip, k: 3 });
        expect(found.map(({ index }) => index)).to.deep.equal(order);
        for (const { index, score, retrieveScore } of found) {
          expect(score).to.be.closeTo(judged[index]!, 1e-5);
          expect(retrieveScore).to.be.closeTo(cosines[index]!, 1e-5);
        }
      }
    });

    it('from an image to texts, judged by BLIP or ViLT', async () => {
      const [image] = images;
      const cosines = (await clip.similarity([image!], { inputIds: ids }))[0]!;
      const best = cosines
        .map((_, i) => i)
        .sort((a, b) => cosines[b]! - cosines[a]!)
        .slice(0, 2);
      for (const [rerank, judged] of [
        [blip, (await blip.match([image!], { inputIds: ids }))[0]!],
        [vilt, (await vilt.score([image!], { inputIds: ids }))[0]!],
      ] as const) {
        const found = await retrieveAndRerank(image!, { inputIds: ids }, { retrieve: clip, rerank, k: 2 });
        expect(found.map(({ index }) => index)).to.deep.equal([...best].sort((a, b) => judged[b]! - judged[a]!));
        expect(found[0]!.score).to.be.closeTo(judged[found[0]!.index]!, 1e-5);
      }
    });
  });
});
