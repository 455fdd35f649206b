import { join } from 'node:path';
import { expect } from 'chai';
import { type DeviceName, type Float, LLaVA } from '../../lib';
import { fixtures, needsFixtures, readFixture, readMeta } from '../support/fixtures';
import { expectClose, minCosine, standardDeviation } from '../support/numbers';

interface Meta {
  readonly cases: Readonly<
    Record<
      string,
      {
        readonly prompt: string;
        readonly images: number;
        readonly pictures: readonly string[] | null;
        readonly tokens: readonly number[];
      }
    >
  >;
  readonly chat: { readonly messages: Parameters<LLaVA['generate']>[0]['messages']; readonly prompt: string };
}

/** Every LLaVA checkpoint of the fixtures. */
export const kLlavaFixtures = [
  ['llava-tiny', 'checkpoint'],
  ['llava-tiny', 'checkpoint-new'],
  ['llava-tiny-gqa-f16', 'checkpoint'],
  ['llava-tiny-gqa-bf16', 'checkpoint'],
] as const;

/** What the fixtures' README allows. */
const kCosine: Readonly<Record<Float, number>> = { float32: 0.99999, float16: 0.9999, bfloat16: 0.999 };
/** Of the logits' standard deviation: where the best two are nearer, 16-bit arithmetic may take the other. */
const kMargin: Readonly<Record<Float, number>> = { float32: 0, float16: 0.02, bfloat16: 0.1 };

/** The LLaVA of a fixture's folder, on one device in one dtype. */
export function describeLlavaGolden(
  folder: string,
  checkpoint: string,
  { device, dtype }: { device: DeviceName; dtype: Float },
): void {
  describe(`LLaVA: ${folder}/${checkpoint} on ${device} in ${dtype}`, () => {
    let llava: LLaVA;
    let meta: Meta;

    before(async function () {
      needsFixtures(this);
      llava = await LLaVA.fromPretrained(join(fixtures, folder, checkpoint), { device, dtype, cacheTokens: 512 });
      meta = readMeta<Meta>(folder);
      expect([llava.device, llava.dtype]).to.deep.equal([device, dtype]);
    });
    after(() => llava?.dispose());

    const input = (name: string) => readFixture(folder, 'inputs').get(name);
    const expected = (name: string) => readFixture(folder, 'expected').get(name)!;
    const pixelsOf = (name: string) => {
      const found = input(`${name}.pixel_values`);
      return found && { pixels: found.data as Float32Array, shape: found.shape as [number, number, number, number] };
    };
    const expectNear = (actual: Float32Array, name: string) => {
      const { data, shape } = expected(name);
      expect(minCosine(actual, data, shape.at(-1)!), name).to.be.at.least(kCosine[dtype]);
      if (dtype === 'float32') expectClose(actual, data, 1e-4, name);
    };

    it('projects pictures as the reference does', async () => {
      for (const [name, { images }] of Object.entries(meta.cases)) {
        if (images === 0) continue;
        const features = await llava.encodeImage(pixelsOf(name)!);
        expect(features.shape).to.deep.equal(expected(`${name}.image_features`).shape);
        expectNear(await features.read(), `${name}.image_features`);
        features.dispose();
      }
    });

    it('splices them into the embeddings, and gives the logits of the reference', async () => {
      for (const name of Object.keys(meta.cases)) {
        const ids = input(`${name}.input_ids`)!.data as Int32Array;
        const pixels = pixelsOf(name);
        const { inputIds, inputEmbeds } = await llava.prepareInputs(pixels, meta.cases[name]!.prompt);
        expect(inputIds).to.deep.equal([...ids]);
        expectNear(await inputEmbeds.read(), `${name}.input_embeds`);
        inputEmbeds.dispose();
        const logits = await llava.forward({ inputIds: ids, ...(pixels && { pixels }) });
        expect(logits.shape).to.deep.equal([1, ...expected(`${name}.logits`).shape]);
        expectNear(await logits.read(), `${name}.logits`);
        logits.dispose();
      }
    });

    it('answers with the tokens of the reference, from pixels, pictures and no picture', async () => {
      for (const [name, { prompt, tokens, pictures }] of Object.entries(meta.cases)) {
        const images = pictures?.map((path) => join(fixtures, folder, path)) ?? pixelsOf(name);
        const run = llava.generate({ prompt, ...(images && { images }), maxNewTokens: tokens.length });
        const { tokens: ours, usage } = await run.result;
        expect(usage.promptTokens).to.equal(input(`${name}.input_ids`)!.data.length);
        const deviation = standardDeviation(expected(`${name}.step_logits`).data);
        const unsure = expected(`${name}.margins`).data.findIndex((margin) => margin < kMargin[dtype] * deviation);
        const sure = unsure < 0 ? tokens.length : unsure;
        expect(ours.slice(0, sure), name).to.deep.equal(tokens.slice(0, sure));
      }
    });

    it('answers messages as their prompt', async () => {
      const images = pixelsOf('one')!;
      const fromPrompt = await llava.generate({ prompt: meta.chat.prompt, images, maxNewTokens: 6 }).result;
      const fromMessages = await llava.generate({ messages: meta.chat.messages!, images, maxNewTokens: 6 }).result;
      expect(fromMessages.tokens).to.deep.equal(fromPrompt.tokens);
      expect(fromMessages.usage).to.deep.equal(fromPrompt.usage);
    });
  });
}
