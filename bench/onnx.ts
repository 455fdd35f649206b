// The image tower of a CLIP checkpoint as an ONNX model, for onnxruntime-node: the same stored weights, batch 1, float32.
import { closeSync, openSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CheckpointSize } from './make-checkpoint';

/** Writes `path`: input "pixels" [1, 3, R, R], output "embedding" [1, projection]. The checkpoint must be float32. */
export function writeImageTower(checkpoint: string, size: CheckpointSize, path: string): void {
  const graph = new Graph(checkpoint);
  const { width: D, heads, layers, image, patch } = size.vision;
  const grid = Math.floor(image / patch);
  const T = grid ** 2 + 1;
  const V = 'vision_model';

  const patches = graph.node('Conv', ['pixels', graph.weight(`${V}.embeddings.patch_embedding.weight`)], {
    kernel_shape: [patch, patch],
    strides: [patch, patch],
  }); // [1, D, grid, grid]
  const rows = graph.node('Transpose', [graph.reshape(patches, [D, T - 1])], { perm: [1, 0] }); // [T - 1, D]
  const classToken = graph.reshape(graph.weight(`${V}.embeddings.class_embedding`), [1, D]);
  const tokens = graph.node('Concat', [classToken, rows], { axis: 0 }); // [T, D]
  let x = graph.node('Add', [tokens, graph.weight(`${V}.embeddings.position_embedding.weight`)]);
  x = graph.layerNorm(x, `${V}.pre_layrnorm`);
  for (let i = 0; i < layers; i++) {
    const name = `${V}.encoder.layers.${i}`;
    const normed = graph.layerNorm(x, `${name}.layer_norm1`);
    const split = (part: string, perm: readonly number[]) =>
      graph.node('Transpose', [graph.reshape(graph.linear(normed, `${name}.self_attn.${part}_proj`), [T, heads, D / heads])], {
        perm,
      });
    const scores = graph.node('MatMul', [split('q', [1, 0, 2]), split('k', [1, 2, 0])]); // [H, T, T]
    const weights = graph.node('Softmax', [graph.node('Mul', [scores, graph.number(1 / Math.sqrt(D / heads))])], { axis: 2 });
    const mixed = graph.node('MatMul', [weights, split('v', [1, 0, 2])]); // [H, T, Dh]
    const joined = graph.reshape(graph.node('Transpose', [mixed], { perm: [1, 0, 2] }), [T, D]);
    x = graph.node('Add', [x, graph.linear(joined, `${name}.self_attn.out_proj`)]);
    const inner = graph.linear(graph.layerNorm(x, `${name}.layer_norm2`), `${name}.mlp.fc1`);
    const gate = graph.node('Sigmoid', [graph.node('Mul', [inner, graph.number(1.702)])]); // quickGelu
    x = graph.node('Add', [x, graph.linear(graph.node('Mul', [inner, gate]), `${name}.mlp.fc2`)]);
  }
  const first = graph.node('Slice', [x, graph.integers([0]), graph.integers([1]), graph.integers([0])]); // [1, D]
  const pooled = graph.layerNorm(first, `${V}.post_layernorm`);
  graph.node('Gemm', [pooled, graph.weight('visual_projection.weight')], { transB: 1 }, 'embedding');
  writeFileSync(path, graph.model([1, 3, image, image], [1, size.projection]));
}

type Attribute = number | readonly number[];

/** Nodes and constants as they are added; a value is its name. */
class Graph {
  readonly #nodes: Buffer[] = [];
  readonly #constants = new Map<string, Buffer>();
  readonly #file: string;
  readonly #header: Readonly<Record<string, { readonly shape: number[]; readonly data_offsets: readonly [number, number] }>>;
  readonly #dataStart: number;

  constructor(checkpoint: string) {
    this.#file = join(checkpoint, 'model.safetensors');
    const length = Number(readPart(this.#file, 0, 8).readBigUInt64LE());
    this.#header = JSON.parse(readPart(this.#file, 8, length).toString());
    this.#dataStart = 8 + length;
  }

  node(type: string, inputs: readonly string[], attributes: Readonly<Record<string, Attribute>> = {}, output?: string): string {
    const name = output ?? `${type}_${this.#nodes.length}`;
    const fields = [...inputs.map((input) => bytes(1, input)), bytes(2, name), bytes(4, type)];
    for (const [key, value] of Object.entries(attributes)) {
      const of =
        typeof value === 'number' ? [integer(3, value), integer(20, 2)] : [...value.map((i) => integer(8, i)), integer(20, 7)];
      fields.push(bytes(5, Buffer.concat([bytes(1, key), ...of])));
    }
    this.#nodes.push(Buffer.concat(fields));
    return name;
  }

  weight(name: string): string {
    if (this.#constants.has(name)) return name;
    const { shape, data_offsets } = this.#header[name]!;
    const [begin, end] = data_offsets;
    return this.#constant(name, shape, kFloat, readPart(this.#file, this.#dataStart + begin, end - begin));
  }

  number(value: number): string {
    return this.#constant(`number ${value}`, [], kFloat, Buffer.from(Float32Array.of(value).buffer));
  }

  integers(values: readonly number[]): string {
    return this.#constant(`integers ${values}`, [values.length], kInt64, Buffer.from(BigInt64Array.from(values, BigInt).buffer));
  }

  reshape(x: string, shape: readonly number[]): string {
    return this.node('Reshape', [x, this.integers(shape)]);
  }

  linear(x: string, name: string): string {
    return this.node('Gemm', [x, this.weight(`${name}.weight`), this.weight(`${name}.bias`)], { transB: 1 });
  }

  /** ONNX's default eps is CLIP's, 1e-5. */
  layerNorm(x: string, name: string): string {
    return this.node('LayerNormalization', [x, this.weight(`${name}.weight`), this.weight(`${name}.bias`)]);
  }

  model(input: readonly number[], output: readonly number[]): Buffer {
    const graph = Buffer.concat([
      ...this.#nodes.map((node) => bytes(1, node)),
      bytes(2, 'image tower'),
      ...[...this.#constants.values()].map((constant) => bytes(5, constant)),
      bytes(11, valueInfo('pixels', input)),
      bytes(12, valueInfo('embedding', output)),
    ]);
    const opset = Buffer.concat([bytes(1, ''), integer(2, 17)]);
    return Buffer.concat([integer(1, 8), bytes(7, graph), bytes(8, opset)]);
  }

  #constant(name: string, shape: readonly number[], type: number, data: Buffer): string {
    const dims = shape.map((size) => integer(1, size));
    this.#constants.set(name, Buffer.concat([...dims, integer(2, type), bytes(8, name), bytes(9, data)]));
    return name;
  }
}

/** Of TensorProto.DataType */
const kFloat = 1;
const kInt64 = 7;

function readPart(path: string, position: number, length: number): Buffer {
  const part = Buffer.alloc(length);
  const file = openSync(path, 'r');
  try {
    if (readSync(file, part, 0, length, position) < length) throw new Error(`${path} ends before byte ${position + length}`);
  } finally {
    closeSync(file);
  }
  return part;
}

// ── protocol buffers, as https://github.com/onnx/onnx/blob/main/onnx/onnx.proto numbers its fields ───────────────────────────────────

function varint(value: number): Buffer {
  const out: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) out.push((rest % 128) | 128);
  return Buffer.from([...out, rest]);
}

function integer(field: number, value: number): Buffer {
  return Buffer.concat([varint(field * 8), varint(value)]);
}

function bytes(field: number, value: string | Buffer): Buffer {
  const content = Buffer.from(value);
  return Buffer.concat([varint(field * 8 + 2), varint(content.length), content]);
}

function valueInfo(name: string, shape: readonly number[]): Buffer {
  const dims = Buffer.concat(shape.map((size) => bytes(1, integer(1, size))));
  const tensor = Buffer.concat([integer(1, kFloat), bytes(2, dims)]);
  return Buffer.concat([bytes(1, name), bytes(2, bytes(1, tensor))]);
}
