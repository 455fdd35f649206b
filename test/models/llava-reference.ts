// LLaVA and Llama in float64, as plainly as the papers put them: every position of a whole text, one row after the other.
import { JsonObject } from '../../lib/checkpoint/json';
import { type LlamaConfig, llamaFields } from '../../lib/models/llama-config';
import { type LlavaConfig, parseLlavaConfig } from '../../lib/models/llava-config';
import { ClipReference } from '../field/clip-reference';
import type { Json, Tensors } from '../field/model-folder';
import { Reference } from '../field/reference';
import { attend, dot, kActivations, type Row, type Rows, rowOf, sum } from '../support/float64';

/** Rotary angles per position of each pair: what the config says, by the formulas of its source. */
export function frequencies({ headWidth, ropeTheta, ropeScaling }: LlamaConfig): number[] {
  const plain = Array.from({ length: headWidth / 2 }, (_, i) => ropeTheta ** ((-2 * i) / headWidth));
  if (ropeScaling.kind === 'none') return plain;
  const { factor } = ropeScaling;
  if (ropeScaling.kind === 'linear') return plain.map((frequency) => frequency / factor);
  // source: Llama 3.1's reference code: long waves are stretched, short ones stay, those between are mixed
  const { lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength: length } = ropeScaling;
  return plain.map((frequency) => {
    const turns = (length * frequency) / (2 * Math.PI);
    if (turns < low) return frequency / factor;
    if (turns > high) return frequency;
    const share = (turns - low) / (high - low);
    return (1 - share) * (frequency / factor) + share * frequency;
  });
}

export class LlamaReference extends Reference {
  constructor(
    readonly config: LlamaConfig,
    tensors: Tensors,
  ) {
    super(tensors);
  }

  static of(config: Json, tensors: Tensors): LlamaReference {
    return new LlamaReference(llamaFields(new JsonObject('config.json', '', config)), tensors);
  }

  embeddings(ids: readonly number[]): Rows {
    return ids.map((id) => Float64Array.from(rowOf(this.of('language_model.embed_tokens.weight'), id)));
  }

  /** @param x [T][D] @returns logits [T][V] */
  logits(x: Rows): Rows {
    const { layers, heads, kvHeads, eps, tied } = this.config;
    for (let i = 0; i < layers; i++) {
      const layer = `language_model.layers.${i}`;
      const normed = x.map((row) => this.norm(row, `${layer}.input_layernorm`, eps));
      const [q, k, v] = ['q', 'k', 'v'].map((name) => normed.map((row) => this.linear(row, `${layer}.self_attn.${name}_proj`)));
      const turned = [q!, k!].map((rows) => rows.map((row, position) => this.#turn(row, position)));
      const attended = attend(turned[0]!, turned[1]!, v!, { heads, kvHeads, causal: true });
      x = x.map((row, t) => sum(row, this.linear(attended[t]!, `${layer}.self_attn.o_proj`)));
      x = x.map((row) => sum(row, this.#mlp(this.norm(row, `${layer}.post_attention_layernorm`, eps), `${layer}.mlp`)));
    }
    const head = tied ? 'language_model.embed_tokens' : 'lm_head';
    return x.map((row) => this.linear(this.norm(row, 'language_model.norm', eps), head));
  }

  /** Each head's component i with component i + d / 2, by position · frequency i. */
  #turn(row: Row, position: number): Row {
    const d = this.config.headWidth;
    const turned = Float64Array.from(row);
    frequencies(this.config).forEach((frequency, i) => {
      const [cos, sin] = [Math.cos(position * frequency), Math.sin(position * frequency)];
      for (let head = 0; head < row.length; head += d) {
        const [a, b] = [row[head + i]!, row[head + i + d / 2]!];
        turned[head + i] = a * cos - b * sin;
        turned[head + i + d / 2] = b * cos + a * sin;
      }
    });
    return turned;
  }

  #mlp(x: Row, name: string): Row {
    const gate = this.linear(x, `${name}.gate_proj`).map(kActivations.silu);
    const up = this.linear(x, `${name}.up_proj`);
    return this.linear(
      gate.map((value, i) => value * up[i]!),
      `${name}.down_proj`,
    );
  }

  /** Llama's has no mean and no bias. */
  protected override norm(x: Row, name: string, eps: number): Row {
    const weight = this.of(`${name}.weight`).values;
    const scale = 1 / Math.sqrt(dot(x, x) / x.length + eps);
    return x.map((value, d) => value * scale * weight[d]!);
  }
}

export class LlavaReference extends Reference {
  readonly config: LlavaConfig;
  readonly #vision: ClipReference;
  readonly #language: LlamaReference;

  /** @param tensors by canonical name */
  constructor(config: Json, tensors: Tensors) {
    super(tensors);
    this.config = parseLlavaConfig(config);
    this.#vision = new ClipReference({ model_type: 'clip', vision_config: config.vision_config, text_config: {} }, tensors);
    this.#language = new LlamaReference(this.config.text, tensors);
  }

  /** @param pixels [n, 3, R, R] @returns [n][rows of a picture][D of the language model] */
  features(pixels: Float32Array): Rows[] {
    const one = 3 * this.config.vision.imageSize ** 2;
    return Array.from({ length: pixels.length / one }, (_, i) => this.#features([...pixels.subarray(i * one, (i + 1) * one)]));
  }

  /** @param ids with an image mark for each row of features @returns [T][V] */
  logits(ids: readonly number[], features: readonly Rows[]): Rows {
    const rows = features.flat();
    const embeddings = this.#language.embeddings(ids);
    return this.#language.logits(embeddings.map((row, t) => (ids[t] === this.config.imageTokenId ? rows.shift()! : row)));
  }

  #features(pixels: readonly number[]): Rows {
    const { selection, projectorActivation } = this.config;
    const states = this.#vision.visionStates(pixels);
    const tokens = Array.from({ length: states[0]!.length }, (_, t) => t).slice(selection.classToken ? 0 : 1);
    return tokens.map((t) => {
      const joined = Float64Array.from(selection.states.flatMap((state) => [...states[state]![t]!]));
      const hidden = this.linear(joined, 'multi_modal_projector.linear_1').map(kActivations[projectorActivation]);
      return this.linear(hidden, 'multi_modal_projector.linear_2');
    });
  }
}
