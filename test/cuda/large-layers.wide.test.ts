// Layers in the widths of ViT-L/14 at 336 pixels and of Llama-7B, with random weights, against the CPU backend in float32.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { kSizes, makeCheckpoint } from '../../bench/make-checkpoint';
import { kLlavaSizes, makeLlava } from '../../bench/make-llava';
import { CLIP, type DeviceName, type Float, LLaVA } from '../../lib';
import { minCosine, normal } from '../support/numbers';
import { kDevice, provesKernels } from './evidence';

const kCosine = { float16: 0.9999, bfloat16: 0.999 } as const;

describe('two layers of ViT-L/14 at 336 pixels on CUDA', () => {
  // One for all 577 rows, and the last, of which the class token alone is read.
  const { vision, ...rest } = kSizes['vit-l-14-336']!;
  const size = { ...rest, vision: { ...vision, layers: 2 }, text: { ...rest.text, layers: 1, vocabulary: 512 } };
  const image = { pixels: normal(3 * 336 * 336, 21), shape: [1, 3, 336, 336] as const };
  let folder: string;
  let expected: Float32Array;

  async function features(device: DeviceName, dtype: Float): Promise<Float32Array> {
    using clip = await CLIP.fromPretrained(folder, { device, dtype });
    using rows = await clip.encodeImage(image);
    return rows.read();
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'warpsight-vit-l-14-'));
    makeCheckpoint(folder, size, { dtype: 'F16' });
    expected = await features('cpu', 'float32');
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  for (const dtype of ['float16', 'bfloat16'] as const) {
    describe(dtype, () => {
      provesKernels(dtype, ['patchEmbed', 'layerNorm', 'linear', 'attention', 'gatherRows']);

      it("gives the CPU's features of a picture", async () => {
        const actual = await features(kDevice, dtype);
        expect(minCosine(actual, expected, size.projection)).to.be.at.least(kCosine[dtype]);
      });
    });
  }
});

describe('one layer of Llama-7B on CUDA', () => {
  const text = { ...kLlavaSizes['7b']!.text, layers: 1, vocabulary: 320 };
  const prompt = 'twenty one characters';
  let folder: string;
  let expected: { logits: Float32Array; next: readonly number[] };

  async function answer(device: DeviceName, dtype: Float): Promise<typeof expected> {
    using llava = await LLaVA.fromPretrained(folder, { device, dtype, cacheTokens: 64 });
    const { inputIds, inputEmbeds } = await llava.prepareInputs(undefined, prompt);
    inputEmbeds.dispose();
    using logits = await llava.forward({ inputIds });
    const run = llava.generate({ prompt, maxNewTokens: 2 });
    return { logits: await logits.read(), next: (await run.result).tokens };
  }

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'warpsight-llama-7b-'));
    makeLlava(folder, { vision: kLlavaSizes.micro!.vision, text }, { dtype: 'F16' });
    expected = await answer('cpu', 'float32');
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  for (const dtype of ['float16', 'bfloat16'] as const) {
    describe(dtype, () => {
      provesKernels(dtype, ['embed', 'rmsNorm', 'linear', 'pagedAttention']);

      it("gives the CPU's logits of a prompt, and decodes its tokens", async () => {
        const actual = await answer(kDevice, dtype);
        expect(minCosine(actual.logits, expected.logits, text.vocabulary)).to.be.at.least(kCosine[dtype]);
        expect(actual.next).to.deep.equal(expected.next);
      });
    });
  }
});
