// CLIP and SigLIP in float64, as plainly as the papers put them: one row after the other, no fusion, padding computed where it is there.
import { parseClipModelConfig, type TowerConfig } from '../../lib/models/clip-config';
import type { Json, Stored, Tensors } from './model-folder';

type Row = Float64Array;
type Rows = Row[];

const kActivations: Readonly<Record<TowerConfig['activation'], (x: number) => number>> = {
  none: (x) => x,
  quickGelu: (x) => x / (1 + Math.exp(-1.702 * x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x / (1 + Math.exp(-x)),
  relu: (x) => Math.max(0, x),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
};

/** By its series; the few terms that float64 needs for |x| < 6. */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

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
    let x = tokens.map((row, t) => sum(row, rowOf(positions, t)));
    if (kind === 'clip') x = x.map((row) => this.#norm(row, 'vision_model.pre_layrnorm', eps));
    x = this.#layers(x, 'vision_model', vision, false);
    if (kind === 'clip') return this.#linear(this.#norm(x[0]!, 'vision_model.post_layernorm', eps), 'visual_projection');
    return this.#pool(x.map((row) => this.#norm(row, 'vision_model.post_layernorm', eps)));
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
      heads,
      false,
    );
    const y = this.#linear(attended[0]!, `${head}.attention.out_proj`);
    return sum(y, this.#mlp(this.#norm(y, `${head}.layernorm`, eps), `${head}.mlp`, activation));
  }

  #layers(x: Rows, tower: string, { layers, heads, eps, activation }: TowerConfig, causal: boolean): Rows {
    for (let i = 0; i < layers; i++) {
      const layer = `${tower}.encoder.layers.${i}`;
      const normed = x.map((row) => this.#norm(row, `${layer}.layer_norm1`, eps));
      const [q, k, v] = ['q', 'k', 'v'].map((name) => normed.map((row) => this.#linear(row, `${layer}.self_attn.${name}_proj`)));
      const attended = attend(q!, k!, v!, heads, causal);
      x = x.map((row, t) => sum(row, this.#linear(attended[t]!, `${layer}.self_attn.out_proj`)));
      x = x.map((row) => sum(row, this.#mlp(this.#norm(row, `${layer}.layer_norm2`, eps), `${layer}.mlp`, activation)));
    }
    return x;
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
    const weight = this.#of(`${name}.weight`);
    const bias = this.tensors.get(`${name}.bias`);
    return Float64Array.from({ length: weight.shape[0]! }, (_, n) => dot(rowOf(weight, n), x) + (bias?.values[n] ?? 0));
  }

  #of(name: string): Stored {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new Error(`the reference has no ${name}`);
    return tensor;
  }
}

function rowOf({ shape, values }: Stored, row: number): Float32Array {
  const width = values.length / shape[0]!;
  return values.subarray(row * width, (row + 1) * width);
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}

function sum(a: ArrayLike<number>, b: ArrayLike<number>): Row {
  return Float64Array.from({ length: a.length }, (_, i) => a[i]! + b[i]!);
}

function attend(q: Rows, k: Rows, v: Rows, heads: number, causal: boolean): Rows {
  const D = q[0]!.length;
  const width = D / heads;
  return q.map((query, t) => {
    const out = new Float64Array(D);
    const seen = causal ? t + 1 : k.length;
    for (let h = 0; h < heads; h++) {
      const [from, to] = [h * width, (h + 1) * width];
      const scores = k.slice(0, seen).map((key) => dot(key.subarray(from, to), query.subarray(from, to)) / Math.sqrt(width));
      const most = Math.max(...scores);
      const exps = scores.map((score) => Math.exp(score - most));
      const total = exps.reduce((a, b) => a + b, 0);
      exps.forEach((e, j) => {
        for (let d = from; d < to; d++) out[d]! += (e / total) * v[j]![d]!;
      });
    }
    return out;
  });
}

export function unit(row: ArrayLike<number>): Row {
  const length = Math.sqrt(dot(row, row));
  return Float64Array.from(row, (value) => value / length);
}

/** exp(scale)·cos + bias, [images][texts] */
export function logits(images: Rows, texts: Rows, scale: number, bias = 0): number[][] {
  return images.map((image) => texts.map((text) => Math.exp(scale) * dot(unit(image), unit(text)) + bias));
}

export function softmax(row: readonly number[]): number[] {
  const most = Math.max(...row);
  const exps = row.map((value) => Math.exp(value - most));
  const total = exps.reduce((a, b) => a + b, 0);
  return exps.map((value) => value / total);
}
