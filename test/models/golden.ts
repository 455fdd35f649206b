import { join } from 'node:path';
import { expect } from 'chai';
import { CLIP, type Float } from '../../lib';
import { fixtures, needsFixtures, readFixture, readMeta } from '../support/fixtures';
import { expectClose, maxRel, minCosine } from '../support/numbers';

interface Meta {
  readonly texts?: readonly string[];
  readonly pictures?: readonly string[];
  readonly tolerance: { readonly float32: { readonly max_rel: number; readonly cosine: number } } & Record<
    Float,
    { readonly cosine: number }
  >;
}

export interface GoldenRun {
  readonly device: string;
  readonly dtype: Float;
  /** Called with the model right after it was loaded. */
  readonly onLoad?: (clip: CLIP) => void;
}

function readMetaOrNothing(folder: string): Meta {
  try {
    return readMeta(folder);
  } catch {
    const nothing = { max_rel: 0, cosine: 1 };
    return { tolerance: { float32: nothing, float16: nothing, bfloat16: nothing } }; // the hook below says that the folder is absent
  }
}

/** The fixtures that imitate CLIP and SigLIP checkpoints. */
export const kClipFixtures = ['clip-tiny-quickgelu', 'clip-tiny-gelu-f16', 'clip-tiny-ids-bf16', 'siglip-tiny'] as const;

/** One checkpoint from pixels, ids, pictures and texts to features, logits and scores, at the tolerances that its meta.json states. */
export function describeClipGolden(folder: (typeof kClipFixtures)[number], { device, dtype, onLoad }: GoldenRun): void {
  describe(`${folder} on ${device} in ${dtype}`, () => {
    let clip: CLIP;
    const meta = readMetaOrNothing(folder);

    before(async function () {
      needsFixtures(this);
      clip = await CLIP.fromPretrained(join(fixtures, folder, 'checkpoint'), { device: device as 'cpu', dtype });
      expect(clip.device).to.equal(device);
      expect(clip.dtype).to.equal(dtype);
      onLoad?.(clip);
    });
    after(() => clip?.dispose());

    function expectAgrees(
      actual: Float32Array,
      name: string,
      width: number,
      expected = readFixture(folder, 'expected').get(name)!.data,
    ): void {
      const { max_rel } = meta.tolerance.float32;
      if (dtype === 'float32') expectClose(actual, expected, max_rel, name);
      expect(minCosine(actual, expected, width), `${name}: cosine`).to.be.at.least(meta.tolerance[dtype].cosine);
    }

    const inputs = () => readFixture(folder, 'inputs');
    const pixelInput = (name = 'pixel_values') => {
      const { data, shape } = inputs().get(name)!;
      return { pixels: data as Float32Array, shape: shape as [number, number, number, number] };
    };
    const idInput = () => {
      const { data, shape } = inputs().get('input_ids')!;
      const width = shape[1]!;
      return { inputIds: Array.from({ length: shape[0]! }, (_, i) => [...data.subarray(i * width, (i + 1) * width)]) };
    };

    it('image features from pixels', async () => {
      using features = await clip.encodeImage(pixelInput());
      expectAgrees(await features.read(), 'image_features', clip.projectionDim);
    });

    it('text features from ids', async () => {
      using features = await clip.encodeText(idInput());
      expectAgrees(await features.read(), 'text_features', clip.projectionDim);
    });

    it('forward: embeddings and logits', async () => {
      const out = await clip.forward(pixelInput(), idInput());
      const [n, m] = out.logitsPerImage.shape as [number, number];
      expectAgrees(await out.imageEmbeds.read(), 'image_embeds', clip.projectionDim);
      expectAgrees(await out.textEmbeds.read(), 'text_embeds', clip.projectionDim);
      expectAgrees(await out.logitsPerImage.read(), 'logits_per_image', m);
      expectAgrees(await out.logitsPerText.read(), 'logits_per_text', n);
      out.dispose();
    });

    const { texts, pictures } = meta;
    if (texts) {
      it('texts through the tokenizer', async () => {
        using features = await clip.encodeText(texts);
        expectAgrees(await features.read(), 'text_features', clip.projectionDim);
      });
    }

    if (pictures) {
      it('pictures through the image processor', async () => {
        using features = await clip.encodeImage(pictures.map((picture) => join(fixtures, folder, picture)));
        const expected = readFixture(folder, 'expected').get('pictures.image_features')!.data;
        expect(minCosine(await features.read(), expected, clip.projectionDim)).to.be.at.least(
          meta.tolerance[dtype === 'bfloat16' ? dtype : 'float16'].cosine,
        );
      });
    }

    if (dtype === 'float32') {
      it('a batch gives each picture and text the bits that it gets alone', async () => {
        const { pixels, shape } = pixelInput();
        const one = pixels.length / shape[0];
        using together = await clip.encodeImage({ pixels, shape });
        const rows = await together.rows();
        for (const [i, row] of rows.entries()) {
          using alone = await clip.encodeImage({
            pixels: pixels.subarray(i * one, (i + 1) * one),
            shape: [1, shape[1], shape[2], shape[3]],
          });
          expect(maxRel(await alone.read(), row), `picture ${i}`).to.equal(0);
        }
        using texts = await clip.encodeText(idInput());
        for (const [i, row] of (await texts.rows()).entries()) {
          using alone = await clip.encodeText({ inputIds: [idInput().inputIds[i]!] });
          expect(maxRel(await alone.read(), row), `text ${i}`).to.equal(0);
        }
      });
    }
  });
}
