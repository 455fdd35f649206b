// ViLT and BLIP in float64, as plainly as the papers put them: one pair after the other, nothing shared, every row computed.
import { parseBlipConfig } from '../../lib/models/blip-config';
import { parseViltConfig } from '../../lib/models/vilt-config';
import type { Json, Tensors } from '../field/model-folder';
import { Reference } from '../field/reference';
import { attend, kActivations, type Row, type Rows, rowOf, sum, unit } from '../support/float64';

/** One picture [3, H, W]. */
export interface Picture {
  readonly pixels: Float32Array;
  readonly size: readonly [height: number, width: number];
}

export class ViltReference extends Reference {
  readonly #config: ReturnType<typeof parseViltConfig>;

  constructor(config: Json, tensors: Tensors) {
    super(tensors);
    this.#config = parseViltConfig(config);
  }

  pair(picture: Picture, ids: readonly number[]): { logits: Row; pooled: Row } {
    const { vision } = this.#config;
    const { eps, heads, activation } = vision;
    let x = [...this.#text(ids), ...this.#image(picture)];
    for (let l = 0; l < vision.layers; l++) {
      const layer = `vilt.encoder.layer.${l}`;
      const normed = x.map((row) => this.norm(row, `${layer}.layernorm_before`, eps));
      const part = (name: string) => normed.map((row) => this.linear(row, `${layer}.attention.attention.${name}`));
      const attended = attend(part('query'), part('key'), part('value'), { heads });
      x = x.map((row, t) => sum(row, this.linear(attended[t]!, `${layer}.attention.output.dense`)));
      x = x.map((row) => {
        const inner = this.linear(this.norm(row, `${layer}.layernorm_after`, eps), `${layer}.intermediate.dense`);
        return sum(row, this.linear(inner.map(kActivations[activation]), `${layer}.output.dense`));
      });
    }
    const pooled = this.linear(this.norm(x[0]!, 'vilt.layernorm', eps), 'vilt.pooler.dense').map(Math.tanh);
    return { logits: this.#head(pooled), pooled };
  }

  #head(pooled: Row): Row {
    if (this.tensors.has('rank_output.weight')) return this.linear(pooled, 'rank_output');
    const hidden = this.norm(this.linear(pooled, 'classifier.0'), 'classifier.1', 1e-5);
    return this.linear(hidden.map(kActivations.gelu), 'classifier.3');
  }

  #text(ids: readonly number[]): Rows {
    const name = 'vilt.embeddings.text_embeddings';
    const table = (of: string) => this.of(`${name}.${of}_embeddings.weight`);
    return ids.map((id, t) => {
      const embedded = sum(sum(rowOf(table('word'), id), rowOf(table('position'), t)), rowOf(table('token_type'), 0));
      return sum(this.norm(embedded, `${name}.LayerNorm`, this.#config.text.eps), this.#modality(0));
    });
  }

  #modality(index: number): Float32Array {
    return rowOf(this.of('vilt.embeddings.token_type_embeddings.weight'), index);
  }

  #image(picture: Picture): Rows {
    const { imageSize, patchSize, hiddenSize } = this.#config.vision;
    const grid = Math.floor(imageSize / patchSize);
    const [rows, columns] = picture.size.map((side) => Math.floor(side / patchSize)) as [number, number];
    const table = this.of('vilt.embeddings.position_embeddings').values;
    const at = (y: number, x: number) => table.subarray((1 + y * grid + x) * hiddenSize, (2 + y * grid + x) * hiddenSize);
    /** Of the nearest four, each by how near it is. */
    const position = (row: number, column: number): Row => {
      const y = rows > 1 ? (row * (grid - 1)) / (rows - 1) : 0;
      const x = columns > 1 ? (column * (grid - 1)) / (columns - 1) : 0;
      const out = new Float64Array(hiddenSize);
      for (let i = 0; i < grid; i++)
        for (let j = 0; j < grid; j++) {
          const near = Math.max(0, 1 - Math.abs(i - y)) * Math.max(0, 1 - Math.abs(j - x));
          at(i, j).forEach((value, d) => {
            out[d]! += near * value;
          });
        }
      return out;
    };
    const tokens = this.patches(
      picture.pixels,
      picture.size,
      'vilt.embeddings.patch_embeddings.projection',
      'vilt.embeddings.cls_token',
    );
    return tokens.map((row, t) => {
      const own = t === 0 ? table.subarray(0, hiddenSize) : position(Math.floor((t - 1) / columns), (t - 1) % columns);
      return sum(sum(row, own), this.#modality(1));
    });
  }
}

export class BlipReference extends Reference {
  readonly #config: ReturnType<typeof parseBlipConfig>;

  constructor(config: Json, tensors: Tensors) {
    super(tensors);
    this.#config = parseBlipConfig(config);
  }

  /** Logits of the matching head. */
  match(picture: Picture, ids: readonly number[]): Row {
    return this.linear(this.#text(ids, this.#image(picture))[0]!, 'itm_head');
  }

  imageEmbed(picture: Picture): Row {
    return unit(this.linear(this.#image(picture)[0]!, 'vision_proj'));
  }

  textEmbed(ids: readonly number[]): Row {
    return unit(this.linear(this.#text(ids, undefined)[0]!, 'text_proj'));
  }

  #image(picture: Picture): Rows {
    const { vision } = this.#config;
    const { eps, heads, hiddenSize: D, activation } = vision;
    const name = 'vision_model.embeddings';
    const positions = this.of(`${name}.position_embedding`).values;
    let x = this.patches(picture.pixels, picture.size, `${name}.patch_embedding`, `${name}.class_embedding`).map((row, t) =>
      sum(row, positions.subarray(t * D, (t + 1) * D)),
    );
    for (let l = 0; l < vision.layers; l++) {
      const layer = `vision_model.encoder.layers.${l}`;
      const qkv = x.map((row) => this.linear(this.norm(row, `${layer}.layer_norm1`, eps), `${layer}.self_attn.qkv`));
      const part = (i: number) => qkv.map((row) => row.subarray(i * D, (i + 1) * D));
      const attended = attend(part(0), part(1), part(2), { heads });
      x = x.map((row, t) => sum(row, this.linear(attended[t]!, `${layer}.self_attn.projection`)));
      x = x.map((row) => {
        const inner = this.linear(this.norm(row, `${layer}.layer_norm2`, eps), `${layer}.mlp.fc1`);
        return sum(row, this.linear(inner.map(kActivations[activation]), `${layer}.mlp.fc2`));
      });
    }
    return x.map((row) => this.norm(row, 'vision_model.post_layernorm', eps));
  }

  #text(ids: readonly number[], image: Rows | undefined): Rows {
    const { text } = this.#config;
    const { eps, heads, activation } = text;
    const name = 'text_encoder.embeddings';
    const table = (of: string) => this.of(`${name}.${of}_embeddings.weight`);
    let x = ids.map((id, t) => this.norm(sum(rowOf(table('word'), id), rowOf(table('position'), t)), `${name}.LayerNorm`, eps));
    for (let l = 0; l < text.layers; l++) {
      const layer = `text_encoder.encoder.layer.${l}`;
      const attention = (which: string, keys: Rows): Rows => {
        const part = (rows: Rows, of: string) => rows.map((row) => this.linear(row, `${layer}.${which}.self.${of}`));
        const attended = attend(part(x, 'query'), part(keys, 'key'), part(keys, 'value'), { heads });
        return x.map((row, t) => {
          const out = this.linear(attended[t]!, `${layer}.${which}.output.dense`);
          return this.norm(sum(row, out), `${layer}.${which}.output.LayerNorm`, eps);
        });
      };
      x = attention('attention', x);
      if (image) x = attention('crossattention', image);
      x = x.map((row) => {
        const inner = this.linear(row, `${layer}.intermediate.dense`).map(kActivations[activation]);
        return this.norm(sum(row, this.linear(inner, `${layer}.output.dense`)), `${layer}.output.LayerNorm`, eps);
      });
    }
    return x;
  }
}
