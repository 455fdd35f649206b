// CLIP and SigLIP in float64, as plainly as the papers put them: one row after the other, no fusion, padding computed where it is there.
import { parseClipModelConfig } from '../../lib/models/clip-config';
import type { TowerConfig } from '../../lib/models/tower-config';
import { attend, dot, kActivations, type Row, type Rows, rowOf, sum, unit } from '../support/float64';
import type { Json, Tensors } from './model-folder';
import { Reference } from './reference';

export class ClipReference extends Reference {
  readonly #config: ReturnType<typeof parseClipModelConfig>;

  constructor(config: Json, tensors: Tensors) {
    super(tensors);
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
    const tokens = this.of('text_model.embeddings.token_embedding.weight');
    const positions = this.of('text_model.embeddings.position_embedding.weight');
    let x: Rows = given.map((id, t) => sum(rowOf(tokens, id), rowOf(positions, t)));
    x = this.#layers(x, 'text_model', text, kind === 'clip');
    x = x.map((row) => this.norm(row, 'text_model.final_layer_norm', text.eps));
    if (kind === 'siglip') return this.linear(x[pooled ?? x.length - 1]!, 'text_model.head');
    const { eosTokenId } = this.#config.text;
    const mark = eosTokenId === 2 ? Math.max(...ids) : eosTokenId;
    return this.linear(x[pooled ?? ids.indexOf(mark)]!, 'text_projection');
  }

  #image(pixels: readonly number[]): Row {
    const { vision, kind } = this.#config;
    const x = this.#layers(this.#patches(pixels), 'vision_model', vision, false);
    const last = (row: Row): Row => this.norm(row, 'vision_model.post_layernorm', vision.eps);
    return kind === 'clip' ? this.linear(last(x[0]!), 'visual_projection') : this.#pool(x.map(last));
  }

  /** What goes into the vision tower's first layer, and what each layer makes of it: [layers + 1][tokens][D]. */
  visionStates(pixels: readonly number[]): Rows[] {
    return this.#states(this.#patches(pixels), 'vision_model', this.#config.vision, false);
  }

  #patches(pixels: readonly number[]): Rows {
    const { vision, kind } = this.#config;
    const { imageSize: R, eps } = vision;
    const name = 'vision_model.embeddings';
    const classToken = kind === 'clip' ? `${name}.class_embedding` : undefined;
    const tokens = this.patches(pixels, [R, R], `${name}.patch_embedding`, classToken);
    const positions = this.of('vision_model.embeddings.position_embedding.weight');
    const x = tokens.map((row, t) => sum(row, rowOf(positions, t)));
    return kind === 'clip' ? x.map((row) => this.norm(row, 'vision_model.pre_layrnorm', eps)) : x;
  }

  /** SigLIP's attention pooling, with torch's packed in_proj_weight. */
  #pool(x: Rows): Row {
    const { hiddenSize: D, heads, eps, activation } = this.#config.vision;
    const head = 'vision_model.head';
    const [weight, bias] = [this.of(`${head}.attention.in_proj_weight`), this.of(`${head}.attention.in_proj_bias`)];
    const part = (row: Row, which: number): Row =>
      Float64Array.from({ length: D }, (_, d) => dot(rowOf(weight, which * D + d), row) + bias.values[which * D + d]!);
    const query = part(Float64Array.from(this.of(`${head}.probe`).values), 0);
    const attended = attend(
      [query],
      x.map((row) => part(row, 1)),
      x.map((row) => part(row, 2)),
      { heads },
    );
    const y = this.linear(attended[0]!, `${head}.attention.out_proj`);
    return sum(y, this.#mlp(this.norm(y, `${head}.layernorm`, eps), `${head}.mlp`, activation));
  }

  #layers(x: Rows, tower: string, config: TowerConfig, causal: boolean): Rows {
    return this.#states(x, tower, config, causal).at(-1)!;
  }

  /** x, and what each layer makes of it. */
  #states(x: Rows, tower: string, { layers, heads, eps, activation }: TowerConfig, causal: boolean): Rows[] {
    const states = [x];
    for (let i = 0; i < layers; i++) {
      const layer = `${tower}.encoder.layers.${i}`;
      const normed = x.map((row) => this.norm(row, `${layer}.layer_norm1`, eps));
      const [q, k, v] = ['q', 'k', 'v'].map((name) => normed.map((row) => this.linear(row, `${layer}.self_attn.${name}_proj`)));
      const attended = attend(q!, k!, v!, { heads, causal });
      x = x.map((row, t) => sum(row, this.linear(attended[t]!, `${layer}.self_attn.out_proj`)));
      x = x.map((row) => sum(row, this.#mlp(this.norm(row, `${layer}.layer_norm2`, eps), `${layer}.mlp`, activation)));
      states.push(x);
    }
    return states;
  }

  #mlp(x: Row, name: string, activation: TowerConfig['activation']): Row {
    return this.linear(this.linear(x, `${name}.fc1`).map(kActivations[activation]), `${name}.fc2`);
  }
}

/** exp(scale)·cos + bias, [images][texts] */
export function logits(images: Rows, texts: Rows, scale: number, bias = 0): number[][] {
  return images.map((image) => texts.map((text) => Math.exp(scale) * dot(unit(image), unit(text)) + bias));
}
