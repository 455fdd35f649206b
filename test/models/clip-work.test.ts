// Multiply-adds that CLIP's towers execute, by the native counter, against the sums that they should be: no padding, what all prompts begin with once,
// and in the last layer only the rows that are read. The numbers are those of the plain form, which ClipReference computes: every text by itself, every
// row through every layer.
import { expect } from 'chai';
import { CLIP, counters, device, ops, setThreads, type Tensor, threads, VisionTransformer, Weight } from '../../lib';
import { ClipReference } from '../field/clip-reference';
import { ModelFolders, randomTensors } from '../field/model-folder';
import { expectClose, seeded } from '../support/numbers';

const kTolerance = 1e-5; // of the largest value, see test/field/text-tower.test.ts

async function multiplyAdds(work: () => Promise<unknown>): Promise<number> {
  const before = counters().multiplyAdds;
  await work();
  return counters().multiplyAdds - before;
}

interface Tower {
  readonly D: number;
  readonly mlp: number;
  readonly layers: number;
}

/** Of all rows through a layer. `pairs`: a query and a key that it sees */
const whole = ({ D, mlp }: Tower, rows: number, pairs: number) => rows * (4 * D * D + 2 * D * mlp) + 2 * pairs * D;

/** Keys and values of all rows, the rest of those that are read. */
const pooled = ({ D, mlp }: Tower, rows: number, read: number, pairs: number) =>
  rows * 2 * D * D + read * (2 * D * D + 2 * D * mlp) + 2 * pairs * D;

const folders = new ModelFolders();

describe('multiply-adds of texts', () => {
  const tower: Tower = { D: 32, mlp: 64, layers: 3 };
  const projection = 12;
  const config = {
    model_type: 'clip',
    projection_dim: projection,
    text_config: {
      hidden_size: tower.D,
      intermediate_size: tower.mlp,
      num_hidden_layers: tower.layers,
      num_attention_heads: 2,
      vocab_size: 1000,
      max_position_embeddings: 77,
      eos_token_id: 999,
    },
    vision_config: {
      hidden_size: 16,
      intermediate_size: 32,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      image_size: 16,
      patch_size: 8,
    },
  };
  const tensors = randomTensors(config);
  const random = seeded(4);
  const id = () => Math.floor(random() * 998);
  const words = (count: number) => Array.from({ length: count }, id);
  const kPrompts = 80;
  const lengths = Array.from({ length: kPrompts }, () => 7 + Math.floor(random() * 8)); // 7 … 14 tokens, marks included

  let clip: CLIP;
  const given = threads();
  before(async () => {
    setThreads(2); // one run of at most 2,048 rows
    clip = await CLIP.fromPretrained(folders.model(config, { tensors }), { device: 'cpu' });
  });
  after(() => {
    clip?.dispose();
    setThreads(given);
  });

  /** Of prompts with a common beginning of `prefix` tokens: all rows, all pairs, and those of the last rows. */
  function expected(prompts: readonly number[][], prefix: number): number {
    const rows = prompts.reduce((sum, { length }) => sum + length - prefix, prefix);
    const seen = (first: number, end: number) => (end * (end + 1) - first * (first + 1)) / 2; // keys of the queries first … end − 1
    const pairs = prompts.reduce((sum, { length }) => sum + seen(prefix, length), seen(0, prefix));
    const lastPairs = prompts.reduce((sum, { length }) => sum + length, 0);
    const layers = (tower.layers - 1) * whole(tower, rows, pairs) + pooled(tower, rows, prompts.length, lastPairs);
    return layers + prompts.length * tower.D * projection;
  }

  async function expectWork(prompts: readonly number[][], prefix: number): Promise<number> {
    const rows: Float32Array[] = [];
    const executed = await multiplyAdds(async () => {
      using features = await clip.encodeText({ inputIds: prompts });
      rows.push(...(await features.rows()));
    });
    expect(executed).to.equal(expected(prompts, prefix));
    const reference = new ClipReference(config, tensors);
    prompts.forEach((prompt, i) => {
      expectClose(rows[i]!, reference.text(prompt, prompt.length - 1), kTolerance, `prompt ${i}`);
    });
    return executed;
  }

  it('80 random prompts: the sum over their lengths, and no padding', async () => {
    const prompts = lengths.map((length, i) => [i, ...words(length - 2), 999]);
    await expectWork(prompts, 0);
  });

  it('80 random prompts behind a start mark: the mark is computed once', async () => {
    const prompts = lengths.map((length, i) => [998, i, ...words(length - 3), 999]);
    const executed = await expectWork(prompts, 1);
    expect(executed).to.be.below(expected(prompts, 0));
  });

  it('80 prompts of one template: what they begin with is computed once', async () => {
    const template = [998, ...words(5)]; // a photo of a …
    const prompts = Array.from({ length: kPrompts }, (_, i) => [...template, i, 999]);
    const executed = await expectWork(prompts, template.length);
    expect(executed).to.be.below(0.5 * expected(prompts, 0));
  });
});

describe('multiply-adds of a ViT-B/32 image', () => {
  it('are 8.23 GFLOP of the 8.82 that all rows through all layers would be', async () => {
    const tower: Tower = { D: 768, mlp: 3072, layers: 12 };
    const { D, mlp, layers } = tower;
    const [patch, image, projection] = [32, 224, 512];
    const T = (image / patch) ** 2 + 1;
    const kernel = 3 * patch ** 2;
    const matrix = (N: number, K: number) => Weight.matrix(new Float32Array(N * K).fill(1 / K), [N, K]);
    const vector = (N: number) => Weight.vector(new Float32Array(N).fill(1));
    const linear = (N: number, K: number) => ({ weight: matrix(N, K), bias: vector(N) });
    const norm = { weight: vector(D), bias: vector(D), eps: 1e-5 };
    const layer = {
      heads: 12,
      headWidth: D / 12,
      norm1: norm,
      out: linear(D, D),
      norm2: norm,
      mlp: { fc1: linear(mlp, D), fc2: linear(D, mlp), activation: 'quickGelu' as const },
    };
    const full = { ...layer, qkv: linear(3 * D, D) };
    const encoder = new VisionTransformer(image, {
      embedding: { patch, weight: matrix(D, kernel), classToken: vector(D), positions: vector(T * D) },
      preNorm: norm,
      layers: Array.from({ length: layers - 1 }, () => full),
      lastLayer: { ...layer, q: linear(D, D), kv: linear(2 * D, D) },
      postNorm: norm,
      dtype: 'float32',
    });
    const head = matrix(projection, D);
    using program = device('cpu').compile(
      (pixels, rows) => ops.linear(encoder.forward(pixels as Tensor<'float32'>, rows as Tensor<'int32'>), head),
      [{ shape: [1, 3, image, image] }, { shape: [1], dtype: 'int32' }],
    );
    const executed = await multiplyAdds(async () => {
      using features = (await program.run([new Float32Array(3 * image ** 2), Int32Array.of(0)])) as Tensor<'float32'>;
      await features.read();
    });
    const around = (T - 1) * kernel * D + D * projection;
    expect(executed).to.equal(around + (layers - 1) * whole(tower, T, T * T) + pooled(tower, T, 1, T));
    expect(2e-9 * executed).to.be.closeTo(8.23, 0.005);
    expect(2e-9 * (around + layers * whole(tower, T, T * T))).to.be.closeTo(8.82, 0.005);
  });
});
