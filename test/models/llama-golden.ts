import { join } from 'node:path';
import { expect } from 'chai';
import { type DeviceName, type Float, Llama } from '../../lib';
import { fixtures, needsFixtures, readFixture, readMeta } from '../support/fixtures';
import { expectClose, minCosine, standardDeviation } from '../support/numbers';

interface Meta {
  readonly cases: Readonly<Record<string, { readonly prompt: string; readonly tokens: readonly number[] }>>;
}

export const kLlamaFixtures = ['llama-tiny-llama3-tied', 'llama-tiny-linear'];

/** What the fixtures' README allows. */
const kCosine: Readonly<Record<Float, number>> = { float32: 0.99999, float16: 0.9999, bfloat16: 0.999 };
/** Of the logits' standard deviation: where the best two are nearer, 16-bit arithmetic may take the other. */
const kMargin: Readonly<Record<Float, number>> = { float32: 0, float16: 0.02, bfloat16: 0.1 };

/** The Llama of a fixture's folder, on one device in one dtype. */
export function describeLlamaGolden(folder: string, { device, dtype }: { device: DeviceName; dtype: Float }): void {
  describe(`Llama: ${folder} on ${device} in ${dtype}`, () => {
    let llama: Llama;
    let cases: Meta['cases'];

    before(async function () {
      needsFixtures(this);
      llama = await Llama.fromPretrained(join(fixtures, folder, 'checkpoint'), { device, dtype, cacheTokens: 256 });
      cases = readMeta<Meta>(folder).cases;
      expect([llama.device, llama.dtype]).to.deep.equal([device, dtype]);
    });
    after(() => llama?.dispose());

    it('gives the logits of the reference', async () => {
      for (const name of Object.keys(cases)) {
        const ids = readFixture(folder, 'inputs').get(`${name}.input_ids`)!.data as Int32Array;
        const expected = readFixture(folder, 'expected').get(`${name}.logits`)!;
        const logits = await llama.forward({ inputIds: ids });
        expect(logits.shape).to.deep.equal([1, ...expected.shape]);
        const values = await logits.read();
        logits.dispose();
        expect(minCosine(values, expected.data, expected.shape[1]!)).to.be.at.least(kCosine[dtype]);
        if (dtype === 'float32') expectClose(values, expected.data, 1e-4);
      }
    });

    it('decodes greedily to the tokens of the reference', async () => {
      for (const [name, { prompt, tokens }] of Object.entries(cases)) {
        const { tokens: ours, usage } = await llama.generate({ prompt, maxNewTokens: tokens.length }).result;
        expect(usage.promptTokens).to.equal(readFixture(folder, 'inputs').get(`${name}.input_ids`)!.data.length);
        const expected = readFixture(folder, 'expected');
        const margins = expected.get(`${name}.margins`)!.data;
        const deviation = standardDeviation(expected.get(`${name}.step_logits`)!.data);
        const unsure = margins.findIndex((margin) => margin < kMargin[dtype] * deviation);
        const sure = unsure < 0 ? tokens.length : unsure;
        expect(ours.slice(0, sure)).to.deep.equal(tokens.slice(0, sure));
      }
    });
  });
}
