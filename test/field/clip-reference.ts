// CLIP and SigLIP in float64, as plainly as the papers put them: one row after the other, no fusion, padding computed where it is there.
import { parseClipModelConfig } from '../../lib/models/clip-config';
import type { TowerConfig } from '../../lib/models/tower-config';
import { attend, dot, kActivations, linear, type Row, type Rows, rowOf, sum, unit } from '../support/float64';
import type { Json, Stored, Tensors } from './model-folder';

export class ClipReference {
  readonly #config: ReturnType<typeof parseClipModelConfig>;

  constructor(
    config: Json,
    readonly tensors: Tensors,
  ) {
    this.#config = parseClipModelConfig(config);
  }

  /** @param pixels [n, 3, R, R] @returns [n][d] */
  images(pixels: ArrayLike<number>): Rows {
    const R = this.#config.vision.imageSize;
    const one = 3 * R * R;
    return Array.from({ length: pixels.length / one }, (_, i) =>
      this.#image(Array.from({ length: one }, (_, j) => pixels[i * one + j]!)),
    );
  }

  /** @param ids with their marks; SigLIP's are padded here @param pooled the row that is read; by default the config's rule */
  text(ids: readonly number[], pooled?: number): Row {
    const { text, kind } = this.#config;
    const given =
      kind === 'siglip' ? [...ids, ...Array<number>(text.contextLength - ids.length).fill(this.#config.text.padTokenId)] : ids;
    const tokens = this.#of('text_model.embeddings.token_embedding.weight');
    const positions = this.#of('text_model.embeddings.position_embedding.weight');
    let x: Rows = given.map((id, t) => sum(rowOf(tokens, id), rowOf(positions, t)));
    x = this.#layers(x, 'text_model', text, kind === 'clip');
    x = x.map((row) => this.#norm(row, 'text_model.final_layer_norm', text.eps));
    if (kind === 'siglip') return this.#linear(x[pooled ?? x.length - 1]!, 'text_model.head');
    const { eosTokenId } = this.#config.text;
    const mark = eosTokenId === 2 ? Math.max(...ids) : eosTokenId;
    return this.#linear(x[pooled ?? ids.indexOf(mark)]!, 'text_projection');
  }

  #image(pixels: readonly number[]): Row {
    const { vision, kind } = this.#config;
    const x = this.#layers(this.#patches(pixels), 'vision_model', vision, false);
    const last = (row: Row): Row => this.#norm(row, 'vision_model.post_layernorm', vision.eps);
    return kind === 'clip' ? this.#linear(last(x[0]!), 'visual_projection') : this.#pool(x.map(last));
  }

  /** What goes into the vision tower's first layer, and what each layer makes of it: [layers + 1][tokens][D]. */
  visionStates(pixels: readonly number[]): Rows[] {
    return this.#states(this.#patches(pixels), 'vision_model', this.#config.vision, false);
  }

  #patches(pixels: readonly number[]): Rows {
    const { vision, kind } = this.#config;
    const { imageSize: R, patchSize: p, hiddenSize: D, eps } = vision;
    const side = Math.floor(R / p);
    const kernel = this.#of('vision_model.embeddings.patch_embedding.weight');
    const bias = this.tensors.get('vision_model.embeddings.patch_embedding.bias');
    const patches: Rows = [];
    for (let i = 0; i < side * side; i++) {
      const [top, left] = [Math.floor(i / side) * p, (i % side) * p];
      patches.push(
        Float64Array.from({ length: D }, (_, d) => {
          let total = bias?.values[d] ?? 0;
          for (let k = 0; k < 3 * p * p; k++) {
            const [c, y, x] = [Math.floor(k / (p * p)), Math.floor(k / p) % p, k % p];
            total += kernel.values[d * 3 * p * p + k]! * pixels[(c * R + top + y) * R + left + x]!;
          }
          return total;
        }),
      );
    }
    const tokens =
      kind === 'clip' ? [Float64Array.from(this.#of('vision_model.embeddings.class_embedding').values), ...patches] : patches;
    const positions = this.#of('vision_model.embeddings.position_embedding.weight');
    const x = tokens.map((row, t) => sum(row, rowOf(positions, t)));
    return kind === 'clip' ? x.map((row) => this.#norm(row, 'vision_model.pre_layrnorm', eps)) : x;
  }

  /** SigLIP's attention pooling, with torch's packed in_proj_weight. */
  #pool(x: Rows): Row {
    const { hiddenSize: D, heads, eps, activation } = this.#config.vision;
    const head = 'vision_model.head';
    const [weight, bias] = [this.#of(`${head}.attention.in_proj_weight`), this.#of(`${head}.attention.in_proj_bias`)];
    const part = (row: Row, which: number): Row =>
      Float64Array.from({ length: D }, (_, d) => dot(rowOf(weight, which * D + d), row) + bias.values[which * D + d]!);
    const query = part(Float64Array.from(this.#of(`${head}.probe`).values), 0);
    const attended = attend(
      [query],
      x.map((row) => part(row, 1)),
      x.map((row) => part(row, 2)),
      { heads },
    );
    const y = this.#linear(attended[0]!, `${head}.attention.out_proj`);
    return sum(y, this.#mlp(this.#norm(y, `${head}.layernorm`, eps), `${head}.mlp`, activation));
  }

  #layers(x: Rows, tower: string, config: TowerConfig, causal: boolean): Rows {
    return this.#states(x, tower, config, causal).at(-1)!;
  }

  /** x, and what each layer makes of it. */
  #states(x: Rows, tower: string, { layers, heads, eps, activation }: TowerConfig, causal: boolean): Rows[] {
    const states = [x];
    for (let i = 0; i < layers; i++) {
      const layer = `${tower}.encoder.layers.${i}`;
      const normed = x.map((row) => this.#norm(row, `${layer}.layer_norm1`, eps));
      const [q, k, v] = ['q', 'k', 'v'].map((name) => normed.map((row) => this.#linear(row, `${layer}.self_attn.${name}_proj`)));
      const attended = attend(q!, k!, v!, { heads, causal });
      x = x.map((row, t) => sum(row, this.#linear(attended[t]!, `${layer}.self_attn.out_proj`)));
      x = x.map((row) => sum(row, this.#mlp(this.#norm(row, `${layer}.layer_norm2`, eps), `${layer}.mlp`, activation)));
      states.push(x);
    }
    return states;
  }

  #mlp(x: Row, name: string, activation: TowerConfig['activation']): Row {
    return this.#linear(this.#linear(x, `${name}.fc1`).map(kActivations[activation]), `${name}.fc2`);
  }

  #norm(x: Row, name: string, eps: number): Row {
    const [weight, bias] = [this.#of(`${name}.weight`).values, this.#of(`${name}.bias`).values];
    const mean = x.reduce((total, value) => total + value, 0) / x.length;
    const variance = x.reduce((total, value) => total + (value - mean) ** 2, 0) / x.length;
    return x.map((value, d) => ((value - mean) / Math.sqrt(variance + eps)) * weight[d]! + bias[d]!);
  }

  #linear(x: Row, name: string): Row {
    return linear(x, this.#of(`${name}.weight`), this.tensors.get(`${name}.bias`));
  }

  #of(name: string): Stored {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new Error(`the reference has no ${name}`);
    return tensor;
  }
}

/** exp(scale)·cos + bias, [images][texts] */
export function logits(images: Rows, texts: Rows, scale: number, bias = 0): number[][] {
  return images.map((image) => texts.map((text) => Math.exp(scale) * dot(unit(image), unit(text)) + bias));
}
