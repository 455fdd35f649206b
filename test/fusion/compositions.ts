// Every composition against its plain definition in float64, and against itself without what is missing.
import { join } from 'node:path';
import { expect } from 'chai';
import { type DeviceName, type Float, fusion, device as openDevice, Tensor } from '../../lib';
import { cast } from '../../lib/ops';
import { ModelFolders, randomOf, safetensorsFile, type Tensors } from '../field/model-folder';
import { expectError } from '../support/errors';
import { attend, kActivations, layerNorm, linear, type Row, type Rows, sum } from '../support/float64';
import { expectClose, normal } from '../support/numbers';

type Shapes = readonly (readonly [string, readonly number[]])[];
type Given = readonly (number | boolean | readonly boolean[])[];

const both = (name: string, rows: number, columns: number): Shapes => [
  [`${name}.weight`, [rows, columns]],
  [`${name}.bias`, [rows]],
];
const normOf = (name: string, D: number): Shapes => [
  [`${name}.weight`, [D]],
  [`${name}.bias`, [D]],
];
const layerOf = (name: string, D: number, I: number): Shapes => [
  ...normOf(`${name}.norm1`, D),
  ...['query', 'key', 'value', 'out'].flatMap((part) => both(`${name}.attention.${part}`, D, D)),
  ...normOf(`${name}.norm2`, D),
  ...both(`${name}.mlp.fc1`, I, D),
  ...both(`${name}.mlp.fc2`, D, I),
];
const crossOf = (D: number, Dc: number, name = ''): Shapes => [
  ...normOf(`${name}norm`, D),
  ...both(`${name}attention.query`, D, D),
  ...both(`${name}attention.key`, D, Dc),
  ...both(`${name}attention.value`, D, Dc),
  ...both(`${name}attention.out`, D, D),
];

function arraysOf(tensors: Tensors): Record<string, fusion.WeightArray> {
  return Object.fromEntries([...tensors].map(([name, { values, shape }]) => [name, { data: values, shape }]));
}

/** The modules' arithmetic, one item after the other. */
class Plain {
  constructor(readonly tensors: Tensors) {}

  linear(x: Row, name: string): Row {
    return linear(x, this.tensors.get(`${name}.weight`)!, this.tensors.get(`${name}.bias`));
  }

  norm(x: Row, name: string): Row {
    return layerNorm(x, this.tensors.get(`${name}.weight`)!, this.tensors.get(`${name}.bias`)!, 1e-5);
  }

  mlp(x: Row, name: string): Row {
    return this.linear(this.linear(x, `${name}.fc1`).map(kActivations.gelu), `${name}.fc2`);
  }

  layer(x: Rows, name: string, heads: number): Rows {
    const normed = x.map((row) => this.norm(row, `${name}.norm1`));
    const part = (of: string) => normed.map((row) => this.linear(row, `${name}.attention.${of}`));
    const attended = attend(part('query'), part('key'), part('value'), { heads });
    const y = x.map((row, t) => sum(row, this.linear(attended[t]!, `${name}.attention.out`)));
    return y.map((row) => sum(row, this.mlp(this.norm(row, `${name}.norm2`), `${name}.mlp`)));
  }

  /** What is added to x. */
  cross(x: Rows, context: Rows, heads: number, name = ''): Rows {
    const part = (rows: Rows, of: string) => rows.map((row) => this.linear(row, `${name}attention.${of}`));
    const queries = part(
      x.map((row) => this.norm(row, `${name}norm`)),
      'query',
    );
    const attended = attend(queries, part(context, 'key'), part(context, 'value'), { heads });
    return attended.map((row) => this.linear(row, `${name}attention.out`));
  }
}

const itemOf = (data: Float32Array, item: number, T: number, D: number): Rows =>
  Array.from({ length: T }, (_, t) => Float64Array.from(data.subarray((item * T + t) * D, (item * T + t + 1) * D)));
const flat = (rows: Rows): number[] => rows.flatMap((row) => [...row]);

export function describeFusion(device: DeviceName): void {
  describe(`fusion on ${device}`, () => {
    const folders = new ModelFolders();
    /** Errors are thrown before anything reaches a device. */
    const onCpu = (name: string, test: () => Promise<void>) => device === 'cpu' && it(name, test);
    const tensor = (data: Float32Array, shape: readonly number[]) => Tensor.from(data, shape, { device });
    const read = async (x: Tensor) => (await x.read()) as Float32Array;
    const random = (count: number, seed: number) => normal(count, seed);

    describe('late', () => {
      const [n, widths, H, C] = [4, [5, 7, 3], 6, 2];
      const x = widths.map((D, m) => random(n * D, 20 + m));
      const row = (m: number, item: number) => itemOf(x[m]!, item, 1, widths[m]!)[0]!;
      const features = (m: number, present?: readonly boolean[]) => ({
        features: tensor(x[m]!, [n, widths[m]!]),
        ...(present && { present }),
      });
      const present = [
        [true, false, true, true],
        [true, true, false, true],
        [true, true, true, false],
      ];
      const there = (m: number, item: number, masks: readonly (readonly boolean[])[] | undefined) => masks?.[m]?.[item] ?? true;
      const some = (item: number, masks?: readonly (readonly boolean[])[]) => [0, 1, 2].filter((m) => there(m, item, masks));
      const items = <T>(of: (item: number) => T): T[] => Array.from({ length: n }, (_, item) => of(item));
      const all = () => [0, 1, 2].map((m) => features(m));
      const masked = () => [0, 1, 2].map((m) => features(m, present[m]!));

      it('ConcatMlp', async () => {
        const tensors = randomOf([
          ...widths.map((D, m) => [`fc1.${m}.weight`, [H, D]] as const),
          ['fc1.bias', [H]],
          ...both('fc2', C, H),
        ]);
        const plain = new Plain(tensors);
        using module = await fusion.late.ConcatMlp.load(arraysOf(tensors), { device });
        const expected = (masks?: typeof present) =>
          items((item) => {
            let hidden: Row = Float64Array.from(tensors.get('fc1.bias')!.values);
            for (const m of some(item, masks)) hidden = sum(hidden, linear(row(m, item), tensors.get(`fc1.${m}.weight`)!));
            return [...plain.linear(hidden.map(kActivations.gelu), 'fc2')];
          }).flat();
        expectClose(await read(module.forward(all())), expected(), 1e-5);
        expectClose(await read(module.forward(masked())), expected(present), 1e-5);
        const without = [[], Array(n).fill(false), []] as unknown as typeof present;
        expectClose(await read(module.forward([features(0), undefined, features(2)])), expected(without), 1e-5);
      });

      it('GatedSum', async () => {
        const total = widths.reduce((a, b) => a + b);
        const tensors = randomOf(widths.flatMap((D, m) => [...both(`hidden.${m}`, H, D), ...both(`gates.${m}`, H, total)]));
        const plain = new Plain(tensors);
        using module = await fusion.late.GatedSum.load(arraysOf(tensors), { device });
        const expected = (masks?: typeof present) =>
          items((item) => {
            const known = some(item, masks);
            const joined = Float64Array.from(
              [0, 1, 2].flatMap((m) => (known.includes(m) ? [...row(m, item)] : Array<number>(widths[m]!).fill(0))),
            );
            let y: Row = new Float64Array(H);
            for (const m of known) {
              const h = plain.linear(row(m, item), `hidden.${m}`).map(Math.tanh);
              const g = plain.linear(joined, `gates.${m}`).map(kActivations.sigmoid);
              y = sum(
                y,
                h.map((value, d) => value * g[d]!),
              );
            }
            return [...y];
          }).flat();
        expectClose(await read(module.forward(all())), expected(), 1e-5);
        expectClose(await read(module.forward(masked())), expected(present), 1e-5);
      });

      it('WeightedSum, averageScores, product and max: three modalities, what is missing left out', async () => {
        const D = 5;
        const y = [0, 1, 2].map((m) => random(n * D, 40 + m));
        const of = (masks?: typeof present) =>
          y.map((data, m) => ({ features: tensor(data, [n, D]), ...(masks && { present: masks[m]! }) }));
        const w = [0.5, 2, 1];
        const fold = (join: (values: number[], known: number[]) => number, masks?: typeof present) =>
          items((item) => {
            const known = some(item, masks);
            return Array.from({ length: D }, (_, d) =>
              join(
                known.map((m) => y[m]![item * D + d]!),
                known,
              ),
            );
          }).flat();
        const mean = (weights: readonly number[]) => (values: number[], known: number[]) =>
          values.reduce((total, value, i) => total + value * weights[known[i]!]!, 0) /
          known.reduce((total, m) => total + weights[m]!, 0);
        for (const masks of [undefined, present]) {
          using weighted = new fusion.late.WeightedSum(w);
          expectClose(await read(weighted.forward(of(masks))), fold(mean(w), masks), 1e-6, 'WeightedSum');
          expectClose(await read(fusion.late.averageScores(of(masks))), fold(mean([1, 1, 1]), masks), 1e-6, 'averageScores');
          const product = fold((values) => values.reduce((a, b) => a * b), masks);
          expectClose(await read(fusion.late.product(of(masks))), product, 1e-6, 'product');
          expectClose(
            await read(fusion.late.max(of(masks))),
            fold((values) => Math.max(...values), masks),
            0,
            'max',
          );
        }
      });

      onCpu('says what is wrong', async () => {
        using weighted = new fusion.late.WeightedSum([1, 1, 1]);
        await expectError(() => weighted.forward(all()), 'ERR_SHAPE', /modality 1 is 7 wide, modality 0 is 5/);
        await expectError(
          () => weighted.forward([features(0)]),
          'ERR_ARGUMENT',
          /1 modalities were given, the weights are for 3/,
        );
        const none = { features: features(0).features, present: [true, true, true, false] };
        await expectError(() => fusion.late.max([none]), 'ERR_ARGUMENT', /item 3 has no modality/);
        await expectError(() => fusion.late.max([undefined, undefined]), 'ERR_ARGUMENT', /no modality was given/);
        const empty = { features: tensor(new Float32Array(0), [0, 5]) };
        await expectError(() => fusion.late.product([empty]), 'ERR_SHAPE', /is empty/);
        await expectError(() => fusion.late.WeightedSum.load({ w: { data: [1], shape: [1] } }, { device }), 'ERR_CHECKPOINT');
      });
    });

    describe('early', () => {
      const [n, D, I, heads] = [3, 8, 12, 2];
      const lengths = [3, 2, 4];
      const x = lengths.map((T, m) => random(n * T * D, 60 + m));
      const tensors = randomOf([
        ['modality_embeddings.weight', [3, D]],
        ...layerOf('layers.0', D, I),
        ...layerOf('layers.1', D, I),
        ...normOf('norm', D),
      ]);
      const plain = new Plain(tensors);
      const tokens = (m: number, mask?: Given) => ({
        tokens: tensor(x[m]!, [n, lengths[m]!, D]),
        ...(mask && { mask: mask as readonly (boolean | readonly boolean[])[] }),
      });
      /** Of one item: the modalities' tokens that are there. */
      const expected = (item: number, seen: readonly (readonly boolean[])[]): Rows => {
        let rows: Rows = lengths.flatMap((T, m) => {
          const embedding = tensors.get('modality_embeddings.weight')!.values.subarray(m * D, (m + 1) * D);
          return itemOf(x[m]!, item, T, D)
            .filter((_, t) => seen[m]![t])
            .map((row) => sum(row, embedding));
        });
        for (const layer of ['layers.0', 'layers.1']) rows = plain.layer(rows, layer, heads);
        return rows.map((row) => plain.norm(row, 'norm'));
      };
      const full = lengths.map((T) => Array<boolean>(T).fill(true));

      it('joins three modalities, and leaves out what is missing: an item, some tokens, or a modality of the whole batch', async () => {
        using module = await fusion.early.EarlyFusion.load(arraysOf(tensors), { heads, device });
        const fused = module.forward([tokens(0), tokens(1), tokens(2)]);
        expect(fused.tokens.shape).to.deep.equal([n, 9, D]);
        expect(fused.starts).to.deep.equal([0, 3, 5]);
        const plainAll = Array.from({ length: n }, (_, item) => flat(expected(item, full))).flat();
        expectClose(await read(fused.tokens), plainAll, 1e-5);
        fused.dispose();

        const masks = [
          [true, [true, false, true], true],
          [false, true, true],
          [true, [true, true, false, false], false],
        ] as const;
        const some = module.forward([tokens(0, masks[0]), tokens(1, masks[1]), tokens(2, masks[2])]);
        const values = await read(some.tokens);
        for (let item = 0; item < n; item++) {
          const seen = lengths.map((T, m) => {
            const entry = masks[m]![item]!;
            return typeof entry === 'boolean' ? Array<boolean>(T).fill(entry) : [...entry];
          });
          expect(some.mask[item]).to.deep.equal(seen.flat());
          const kept = seen
            .flat()
            .flatMap((there, t) => (there ? [...values.subarray((item * 9 + t) * D, (item * 9 + t + 1) * D)] : []));
          expectClose(kept, flat(expected(item, seen)), 1e-5, `item ${item}`);
        }
        some.dispose();

        const without = module.forward([tokens(0), undefined, tokens(2)]);
        expect(without.starts).to.deep.equal([0, undefined, 3]);
        const left = [full[0]!, [false, false], full[2]!];
        expectClose(await read(without.tokens), Array.from({ length: n }, (_, item) => flat(expected(item, left))).flat(), 1e-5);
        without.dispose();
      });

      it('has the same bits from a file, behind a prefix, and inside a compiled function', async () => {
        const file = join(
          folders.make({ 'w.safetensors': safetensorsFile(new Map([...tensors].map(([k, v]) => [`a.${k}`, v]))) }),
          'w.safetensors',
        );
        using fromFile = await fusion.early.EarlyFusion.load(file, { heads, device, prefix: 'a.' });
        using fromArrays = await fusion.early.EarlyFusion.load(arraysOf(tensors), { heads, device });
        const inputs = [tokens(0), tokens(1), tokens(2)];
        const [a, b] = [fromFile.forward(inputs), fromArrays.forward(inputs)];
        expect([...(await read(a.tokens))]).to.deep.equal([...(await read(b.tokens))]);
        using program = openDevice(device).compile(
          (...given) => fromArrays.forward(given.map((one) => ({ tokens: one }))).tokens,
          lengths.map((T) => ({ shape: [n, T, D] })),
        );
        const traced = await program.run(inputs.map(({ tokens: one }) => one));
        expect([...(await read(traced))]).to.deep.equal([...(await read(b.tokens))]);
      });

      onCpu('says what is wrong', async () => {
        using module = await fusion.early.EarlyFusion.load(arraysOf(tensors), { heads, device });
        const narrow = { tokens: tensor(random(n * 2 * 4, 1), [n, 2, 4]) };
        await expectError(
          () => module.forward([tokens(0), narrow, tokens(2)]),
          'ERR_SHAPE',
          /modality 1 is 4 wide, its weights are for 8/,
        );
        await expectError(() => module.forward([tokens(0)]), 'ERR_ARGUMENT', /undefined stands for one that is missing/);
        const gone = [true, true, false];
        await expectError(
          () => module.forward([tokens(0, gone), tokens(1, gone), tokens(2, gone)]),
          'ERR_ARGUMENT',
          /item 2 has no modality/,
        );
        const empty = { tokens: tensor(new Float32Array(0), [n, 0, D]) };
        await expectError(() => module.forward([tokens(0), empty, undefined]), 'ERR_SHAPE', /modality 1 is empty/);
        await expectError(() => fusion.early.EarlyFusion.load(arraysOf(tensors), { heads: 3, device }), 'ERR_ARGUMENT', /heads/);
        const more = { ...arraysOf(tensors), 'layers.0.odd': { data: [1], shape: [1] } };
        await expectError(() => fusion.early.EarlyFusion.load(more, { heads, device }), 'ERR_CHECKPOINT', /layers\.0\.odd/);
      });
    });

    describe('mid', () => {
      const [n, T, D, Tc, Dc, I, heads] = [3, 4, 8, 5, 6, 12, 2];
      const x = random(n * T * D, 80);
      const c = [random(n * Tc * Dc, 81), random(n * 2 * Dc, 82)];
      const stream = () => ({ tokens: tensor(x, [n, T, D]) });
      const context = (mask?: readonly (boolean | readonly boolean[])[], k = 0) => ({
        tokens: tensor(c[k]!, [n, k === 0 ? Tc : 2, Dc]),
        ...(mask && { mask }),
      });
      const own = (item: number) => itemOf(x, item, T, D);
      const mask = [true, [true, false, true, false, false], false];
      const seenOf = (item: number): Rows =>
        itemOf(c[0]!, item, Tc, Dc).filter((_, t) =>
          typeof mask[item] === 'boolean' ? mask[item] : (mask[item] as boolean[])[t],
        );

      it('CrossAttention: an item without context keeps its tokens, bit for bit', async () => {
        const tensors = randomOf(crossOf(D, Dc));
        const plain = new Plain(tensors);
        using block = await fusion.mid.CrossAttention.load(arraysOf(tensors), { heads, device });
        const y = await read(block.forward(stream(), context(mask)));
        for (const item of [0, 1]) {
          const added = plain.cross(own(item), seenOf(item), heads);
          const wanted = own(item).map((row, t) => sum(row, added[t]!));
          expectClose(y.subarray(item * T * D, (item + 1) * T * D), flat(wanted), 1e-5, `item ${item}`);
        }
        expect([...y.subarray(2 * T * D)]).to.deep.equal([...x.subarray(2 * T * D)]);
        expect([...(await read(block.forward(stream(), undefined)))]).to.deep.equal([...x]);
      });

      it('GatedCrossAttention', async () => {
        const tensors = randomOf([...crossOf(D, Dc), ...normOf('norm2', D), ...both('mlp.fc1', I, D), ...both('mlp.fc2', D, I)]);
        for (const [name, value] of [
          ['attention_gate', 0.7],
          ['mlp_gate', -0.4],
        ] as const) {
          tensors.set(name, { shape: [1], values: Float32Array.of(value) });
        }
        const plain = new Plain(tensors);
        using block = await fusion.mid.GatedCrossAttention.load(arraysOf(tensors), { heads, device });
        const y = await read(block.forward(stream(), context(mask)));
        for (const item of [0, 1]) {
          const added = plain.cross(own(item), seenOf(item), heads);
          const scaled = (row: Row, gate: number) => row.map((value) => Math.tanh(Math.fround(gate)) * value);
          const wanted = own(item).map((row, t) => {
            const middle = sum(row, scaled(added[t]!, 0.7));
            return sum(middle, scaled(plain.mlp(plain.norm(middle, 'norm2'), 'mlp'), -0.4));
          });
          expectClose(y.subarray(item * T * D, (item + 1) * T * D), flat(wanted), 1e-5, `item ${item}`);
        }
        expect([...y.subarray(2 * T * D)]).to.deep.equal([...x.subarray(2 * T * D)]);
      });

      it('MidFusion: blocks at chosen depths, two contexts, layers of weights or of functions', async () => {
        const tensors = randomOf([
          ...layerOf('layers.0', D, I),
          ...layerOf('layers.1', D, I),
          ...crossOf(D, Dc, 'cross.0.'),
          ...crossOf(D, Dc, 'cross.1.'),
        ]);
        const plain = new Plain(tensors);
        const inserts = [
          { depth: 1, context: 0 },
          { depth: 2, context: 1 },
        ];
        using module = await fusion.mid.MidFusion.load(arraysOf(tensors), { heads, device, inserts });
        const expected = (item: number, contexts: readonly Rows[]) => {
          const cross = (rows: Rows, k: number): Rows => {
            if (contexts[k]!.length === 0) return rows;
            const added = plain.cross(rows, contexts[k]!, heads, `cross.${k}.`);
            return rows.map((row, t) => sum(row, added[t]!));
          };
          const first = cross(plain.layer(own(item), 'layers.0', heads), 0);
          return flat(cross(plain.layer(first, 'layers.1', heads), 1));
        };
        const y = await read(module.forward(stream(), [context(mask), context(undefined, 1)]));
        const wanted = [0, 1, 2].map((item) => expected(item, [seenOf(item), itemOf(c[1]!, item, 2, Dc)]));
        expectClose(y, wanted.flat(), 1e-5);
        const without = await read(module.forward(stream(), [context(), undefined]));
        expectClose(
          without,
          [0, 1, 2].flatMap((item) => expected(item, [itemOf(c[0]!, item, Tc, Dc), []])),
          1e-5,
        );

        const { layers, inserts: made } = module.parts;
        const [block] = made;
        using functions = new fusion.mid.MidFusion({ layers: [(z) => z, (z) => z], inserts: [{ ...block!, depth: 0 }] });
        expect(functions.parts.layers).to.have.length(layers.length);
        const direct = block!.block as fusion.mid.CrossAttention;
        expect([...(await read(functions.forward(stream(), [context()])))]).to.deep.equal([
          ...(await read(direct.forward(stream(), context()))),
        ]);
      });

      it('CoAttention: three streams of three widths', async () => {
        const widths = [8, 4, 6];
        const sizes = [3, 2, 4];
        const streamHeads = [2, 1, 3];
        const data = widths.map((width, i) => random(n * sizes[i]! * width, 90 + i));
        const tensors = randomOf(
          widths.flatMap((width, i) => [
            ...normOf(`streams.${i}.norm1`, width),
            ...both(`streams.${i}.attention.query`, width, width),
            ...both(`streams.${i}.attention.out`, width, width),
            ...widths.flatMap((other, j) =>
              i === j ? [] : ['key', 'value'].flatMap((part) => both(`streams.${i}.attention.from.${j}.${part}`, width, other)),
            ),
            ...normOf(`streams.${i}.norm2`, width),
            ...both(`streams.${i}.mlp.fc1`, 10, width),
            ...both(`streams.${i}.mlp.fc2`, width, 10),
          ]),
        );
        const plain = new Plain(tensors);
        const expected = (item: number, i: number, known: readonly number[]): Rows => {
          const rows = (j: number) => itemOf(data[j]!, item, sizes[j]!, widths[j]!);
          const normed = (j: number) => rows(j).map((row) => plain.norm(row, `streams.${j}.norm1`));
          const others = known.filter((j) => j !== i);
          const part = (of: string) =>
            others.flatMap((j) => normed(j).map((row) => plain.linear(row, `streams.${i}.attention.from.${j}.${of}`)));
          const queries = normed(i).map((row) => plain.linear(row, `streams.${i}.attention.query`));
          const attended =
            others.length > 0 ? attend(queries, part('key'), part('value'), { heads: streamHeads[i]! }) : undefined;
          const y = rows(i).map((row, t) =>
            attended ? sum(row, plain.linear(attended[t]!, `streams.${i}.attention.out`)) : row,
          );
          return y.map((row) => sum(row, plain.mlp(plain.norm(row, `streams.${i}.norm2`), `streams.${i}.mlp`)));
        };
        using module = await fusion.mid.CoAttention.load(arraysOf(tensors), { heads: streamHeads, device });
        const streams = (masks: readonly (readonly boolean[] | undefined)[]) =>
          widths.map((width, i) => {
            const one = masks[i];
            return { tokens: tensor(data[i]!, [n, sizes[i]!, width]), ...(one && { mask: one }) };
          });
        const masks = [undefined, [true, false, false], [true, true, false]];
        const known = (item: number) => [0, 1, 2].filter((i) => masks[i]?.[item] ?? true);
        const outputs = module.forward(streams(masks));
        for (const i of [0, 1, 2]) {
          const values = await read(outputs[i]!);
          const size = sizes[i]! * widths[i]!;
          for (let item = 0; item < n; item++) {
            if (!known(item).includes(i)) continue;
            const wanted = flat(expected(item, i, known(item)));
            expectClose(values.subarray(item * size, (item + 1) * size), wanted, 1e-5, `stream ${i}, item ${item}`);
          }
        }
        const [first, none, third] = module.forward([streams([])[0], undefined, streams([])[2]]);
        expect(none).to.equal(undefined);
        expectClose(
          await read(first!),
          [0, 1, 2].flatMap((item) => flat(expected(item, 0, [0, 2]))),
          1e-5,
        );
        expectClose(
          await read(third!),
          [0, 1, 2].flatMap((item) => flat(expected(item, 2, [0, 2]))),
          1e-5,
        );
      });

      onCpu('says what is wrong', async () => {
        using block = await fusion.mid.CrossAttention.load(arraysOf(randomOf(crossOf(D, Dc))), { heads, device });
        const wrong = { tokens: tensor(random(n * Tc * D, 3), [n, Tc, D]) };
        await expectError(() => block.forward(stream(), wrong), 'ERR_SHAPE', /context 0 is 8 wide, its weights are for 6/);
        const fewer = { tokens: tensor(random(2 * Tc * Dc, 3), [2, Tc, Dc]) };
        await expectError(() => block.forward(stream(), fewer), 'ERR_SHAPE', /context 0 has 2 items, x has 3/);
        const at = (depth: number) => () => new fusion.mid.MidFusion({ layers: [], inserts: [{ depth, context: 0, block }] });
        await expectError(at(1), 'ERR_ARGUMENT', /depth must be from 0 to 0: it is 1/);
        block.dispose();
        await expectError(() => block.forward(stream(), context()), 'ERR_DISPOSED');
      });
    });
  });
}

/** The same modules in 16 bits: near their float32 results. */
export function describeFusionIn(device: DeviceName, dtype: Exclude<Float, 'float32'>): void {
  const [n, T, D, heads] = [2, 4, 16, 2];
  const tensors = randomOf([['modality_embeddings.weight', [2, D]], ...layerOf('layers.0', D, 24)]);
  const run = async (of: Float, device: DeviceName) => {
    using module = await fusion.early.EarlyFusion.load(arraysOf(tensors), { heads, device, dtype: of });
    const tokens = [1, 2].map((seed) => {
      const given = Tensor.from(normal(n * T * D, seed), [n, T, D], { device });
      return { tokens: castTo(given, of), mask: [true, seed === 1] };
    });
    const fused = module.forward(tokens);
    const product = fusion.late.product([0, 1].map((i) => ({ features: tokens[i]!.tokens.reshape([n * T, D]) })));
    return [await fused.tokens.read(), await product.read()] as Float32Array[];
  };
  let exact: Float32Array[];
  before(async () => {
    exact = await run('float32', 'cpu');
  });

  it(`fusion in ${dtype} is near float32`, async () => {
    const near = await run(dtype, device);
    const seen = (values: Float32Array) => values.subarray(0, n * T * D + T * D); // item 1's second modality is missing
    const tolerance = dtype === 'float16' ? 5e-3 : 4e-2;
    expectClose(seen(near[0]!), seen(exact[0]!), tolerance, 'early');
    expectClose(near[1]!, exact[1]!, tolerance, 'product');
  });
}

function castTo(x: Tensor<'float32'>, dtype: Float): Tensor<Float> {
  return dtype === 'float32' ? x : cast(x, dtype);
}
