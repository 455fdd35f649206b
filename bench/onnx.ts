// The towers of a CLIP checkpoint as ONNX models, for onnxruntime-node: the same stored weights, in float32 or as dynamic quantisation has them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CheckpointSize, TowerSize } from './make-checkpoint';
import { StoredNumbers } from './stored-numbers';

/** How a tower is exported. */
export interface TowerOptions {
  /** Pictures or texts in a run. Without it the dimension is free. */
  readonly batch?: number;
  /**
   * Products with weights as onnxruntime.quantization's quantize_dynamic has them: activations to uint8, by one scale that is found anew in each run,
   * weights to int8, by a scale for each output channel. The convolution stays float32, as ConvInteger is slower. 7: quantize_dynamic's
   * `reduce_range`, as processors without VNNI sum pairs of products in 16 bits, which are too few for weights of 8.
   */
  readonly weightBits?: 7 | 8;
}

/**
 * Writes `path`: input "pixels" [batch, 3, R, R], output "embedding" [batch, projection]. The last layer computes all rows, as models that are exported
 * from transformers do. The checkpoint must be float32 or float16.
 */
export function writeImageTower(checkpoint: string, size: CheckpointSize, path: string, options: TowerOptions = {}): void {
  const graph = new Graph(new StoredNumbers(join(checkpoint, 'model.safetensors')), options.weightBits);
  const { width: D, image, patch } = size.vision;
  const grid = Math.floor(image / patch);
  const T = grid ** 2 + 1;
  const V = 'vision_model';

  const kernel = graph.weight(`${V}.embeddings.patch_embedding.weight`);
  const patches = graph.node('Conv', ['pixels', kernel], { kernel_shape: [patch, patch], strides: [patch, patch] }); // [N, D, grid, grid]
  const rows = graph.node('Transpose', [graph.reshape(patches, [0, D, T - 1])], { perm: [0, 2, 1] }); // [N, T - 1, D]
  const batch = graph.node('Gather', [graph.node('Shape', ['pixels']), graph.integers([0])]); // [1]
  const classToken = graph.reshape(graph.weight(`${V}.embeddings.class_embedding`), [1, 1, D]);
  const classTokens = graph.node('Expand', [classToken, graph.node('Concat', [batch, graph.integers([1, D])], { axis: 0 })]);
  const tokens = graph.node('Concat', [classTokens, rows], { axis: 1 }); // [N, T, D]
  let x = graph.node('Add', [tokens, graph.weight(`${V}.embeddings.position_embedding.weight`)]);
  x = graph.layerNorm(graph.reshape(x, [-1, D]), `${V}.pre_layrnorm`); // [N · T, D]
  x = graph.reshape(graph.layers(x, V, size.vision, T), [-1, T, D]);
  const first = graph.node('Gather', [x, graph.integer(0)], { axis: 1 }); // [N, D]
  const pooled = graph.layerNorm(first, `${V}.post_layernorm`);
  graph.node('Identity', [graph.linear(pooled, ['visual_projection.weight'])], {}, 'embedding');
  const pixels = { name: 'pixels', type: kFloat, shape: [options.batch, 3, image, image] };
  writeFileSync(
    path,
    graph.model('image tower', pixels, { name: 'embedding', type: kFloat, shape: [options.batch, size.projection] }),
  );
}

/**
 * Writes `path`: input "ids" [batch, context] int64, each text filled with its end mark, output "embedding" [batch, projection], unit rows, of the
 * first of the largest ids. All positions are computed in every layer. The checkpoint must be float32 or float16.
 */
export function writeTextTower(checkpoint: string, size: CheckpointSize, path: string, options: TowerOptions = {}): void {
  const graph = new Graph(new StoredNumbers(join(checkpoint, 'model.safetensors')), options.weightBits);
  const { width: D, context: T } = size.text;
  const name = 'text_model';
  const embedded = graph.node('Gather', [graph.weight(`${name}.embeddings.token_embedding.weight`), 'ids']); // [N, T, D]
  const placed = graph.node('Add', [embedded, graph.weight(`${name}.embeddings.position_embedding.weight`)]);
  const hidden = Float32Array.from({ length: T * T }, (_, i) => (i % T > Math.floor(i / T) ? Number.NEGATIVE_INFINITY : 0));
  const mask = graph.numbers('causal mask', [T, T], hidden);
  const x = graph.reshape(graph.layers(graph.reshape(placed, [-1, D]), name, size.text, T, mask), [-1, T, D]);
  const ends = graph.node('ArgMax', ['ids'], { axis: 1, keepdims: 1 }); // [N, 1]
  const last = graph.node('GatherND', [x, ends], { batch_dims: 1 }); // [N, D]
  const features = graph.layerNorm(last, `${name}.final_layer_norm`);
  const projected = graph.linear(features, ['text_projection.weight']);
  graph.node('Div', [projected, graph.node('ReduceL2', [projected], { axes: [1], keepdims: 1 })], {}, 'embedding');
  const ids = { name: 'ids', type: kInt64, shape: [options.batch, T] };
  writeFileSync(
    path,
    graph.model('text tower', ids, { name: 'embedding', type: kFloat, shape: [options.batch, size.projection] }),
  );
}

/** Writes `path`: input "x" [M, K], output "y" [M, N], x times the last of `copies` weights; all of them are multiplied, and of the others one number is taken. */
export function writeProducts(stored: StoredNumbers, copies: number, path: string): void {
  const graph = new Graph(stored);
  const [M, K] = stored.shape('x') as [number, number];
  const corners: string[] = [];
  let y = '';
  for (let i = 0; i < copies; i++) {
    y = graph.linear('x', [`w${i}`]);
    corners.push(graph.node('Slice', [y, graph.integers([0, 0]), graph.integers([1, 1])]));
  }
  const sum = graph.node('Mul', [graph.node('Sum', corners), graph.number(0)]); // [1, 1], so that no product can be left out
  graph.node('Add', [y, sum], {}, 'y');
  const [N] = stored.shape('w0') as [number];
  writeFileSync(
    path,
    graph.model('products', { name: 'x', type: kFloat, shape: [M, K] }, { name: 'y', type: kFloat, shape: [M, N] }),
  );
}

type Attribute = number | readonly number[];

interface Value {
  readonly name: string;
  readonly type: number;
  /** undefined: free */
  readonly shape: readonly (number | undefined)[];
}

/** Nodes and constants as they are added; a value is its name. */
class Graph {
  readonly #nodes: Buffer[] = [];
  readonly #constants = new Map<string, Buffer>();
  readonly #quantized = new Map<string, QuantizedRows>();

  constructor(
    readonly stored: StoredNumbers,
    readonly weightBits?: 7 | 8,
  ) {}

  node(type: string, inputs: readonly string[], attributes: Readonly<Record<string, Attribute>> = {}, output?: string): string {
    const [name] = this.nodes(type, inputs, attributes, [output ?? `${type}_${this.#nodes.length}`]);
    return name!;
  }

  /** A node of several outputs; their names. */
  nodes(type: string, inputs: readonly string[], attributes: Readonly<Record<string, Attribute>>, outputs: readonly string[]) {
    const fields = [...inputs.map((input) => bytes(1, input)), ...outputs.map((output) => bytes(2, output)), bytes(4, type)];
    for (const [key, value] of Object.entries(attributes)) {
      const of =
        typeof value === 'number' ? [integer(3, value), integer(20, 2)] : [...value.map((i) => integer(8, i)), integer(20, 7)];
      fields.push(bytes(5, Buffer.concat([bytes(1, key), ...of])));
    }
    this.#nodes.push(Buffer.concat(fields));
    return outputs;
  }

  weight(name: string): string {
    if (this.#constants.has(name)) return name;
    return this.numbers(name, this.stored.shape(name), this.stored.read(name));
  }

  number(value: number): string {
    return this.numbers(`number ${value}`, [], Float32Array.of(value));
  }

  numbers(name: string, shape: readonly number[], values: Float32Array): string {
    return this.#constant(name, shape, kFloat, values);
  }

  integer(value: number): string {
    return this.#constant(`integer ${value}`, [], kInt64, BigInt64Array.of(BigInt(value)));
  }

  integers(values: readonly number[]): string {
    return this.#constant(`integers ${values}`, [values.length], kInt64, BigInt64Array.from(values, BigInt));
  }

  reshape(x: string, shape: readonly number[]): string {
    return this.node('Reshape', [x, this.integers(shape)]);
  }

  /** x·Wᵀ + b for rows x [M, K]; W is one tensor of the checkpoint or several, one under the other. */
  linear(x: string, weights: readonly string[], biases: readonly string[] = []): string {
    const W = this.#stacked(weights);
    const bias = biases.length > 0 ? [this.numbers(biases.join(' '), [W.rows], this.#stacked(biases).values)] : [];
    if (!this.weightBits)
      return this.node('Gemm', [x, this.numbers(weights.join(' '), [W.rows, W.columns], W.values), ...bias], { transB: 1 });

    const { q, scales } = quantizedColumns(W, 2 ** (this.weightBits - 1) - 1);
    const name = `${weights.join(' ')} int8`;
    const zeros = this.#constant(`${name} zero point`, [W.rows], kInt8, new Int8Array(W.rows));
    const rows = this.#quantizedRows(x);
    const sums = this.node('MatMulInteger', [rows.q, this.#constant(name, [W.columns, W.rows], kInt8, q), rows.zero, zeros]);
    const scale = this.node('Mul', [rows.scale, this.numbers(`${name} scale`, [W.rows], scales)]);
    const y = this.node('Mul', [this.node('Cast', [sums], { to: kFloat }), scale]);
    return bias.length > 0 ? this.node('Add', [y, ...bias]) : y;
  }

  /** ONNX's default eps is CLIP's, 1e-5. */
  layerNorm(x: string, name: string): string {
    return this.node('LayerNormalization', [x, this.weight(`${name}.weight`), this.weight(`${name}.bias`)]);
  }

  /** The layers of a tower over rows x [N · T, D]. @param mask is added to the scores [T, T] */
  layers(x: string, tower: string, { width: D, heads, layers }: TowerSize, T: number, mask?: string): string {
    const Dh = D / heads;
    let rows = x;
    for (let i = 0; i < layers; i++) {
      const name = `${tower}.encoder.layers.${i}`;
      const project = (from: string, ...parts: readonly string[]) => {
        const all = (end: string) => parts.map((part) => `${name}.${part}.${end}`);
        return this.linear(from, all('weight'), all('bias'));
      };
      const normed = this.layerNorm(rows, `${name}.layer_norm1`);
      const qkv = project(normed, 'self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj');
      const split = this.nodes(
        'Split',
        [qkv],
        { axis: 1 },
        ['q', 'k', 'v'].map((part) => `${name} ${part}`),
      );
      const [q, k, v] = split.map((part, j) =>
        this.node('Transpose', [this.reshape(part, [-1, T, heads, Dh])], { perm: j === 1 ? [0, 2, 3, 1] : [0, 2, 1, 3] }),
      ); // [N, H, T, Dh]; k [N, H, Dh, T]
      const product = this.node('MatMul', [this.node('Mul', [q!, this.number(1 / Math.sqrt(Dh))]), k!]);
      const scores = mask === undefined ? product : this.node('Add', [product, mask]); // [N, H, T, T]
      const mixed = this.node('MatMul', [this.node('Softmax', [scores], { axis: 3 }), v!]); // [N, H, T, Dh]
      const joined = this.reshape(this.node('Transpose', [mixed], { perm: [0, 2, 1, 3] }), [-1, D]);
      rows = this.node('Add', [rows, project(joined, 'self_attn.out_proj')]);
      const inner = project(this.layerNorm(rows, `${name}.layer_norm2`), 'mlp.fc1');
      const gate = this.node('Sigmoid', [this.node('Mul', [inner, this.number(1.702)])]); // quickGelu
      rows = this.node('Add', [rows, project(this.node('Mul', [inner, gate]), 'mlp.fc2')]);
    }
    return rows;
  }

  model(name: string, input: Value, output: Value): Buffer {
    const graph = Buffer.concat([
      ...this.#nodes.map((node) => bytes(1, node)),
      bytes(2, name),
      ...[...this.#constants.values()].map((constant) => bytes(5, constant)),
      bytes(11, valueInfo(input)),
      bytes(12, valueInfo(output)),
    ]);
    const opset = Buffer.concat([bytes(1, ''), integer(2, 17)]);
    return Buffer.concat([integer(1, 8), bytes(7, graph), bytes(8, opset)]);
  }

  #stacked(names: readonly string[]): Matrix {
    const parts = names.map((name) => this.stored.read(name));
    const [, columns = 1] = this.stored.shape(names[0]!);
    const values = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      values.set(part, at);
      at += part.length;
    }
    return { rows: values.length / columns, columns, values };
  }

  /** Rows that several products take are quantised once. */
  #quantizedRows(x: string): QuantizedRows {
    let rows = this.#quantized.get(x);
    if (!rows) {
      const [q, scale, zero] = this.nodes('DynamicQuantizeLinear', [x], {}, [`${x} uint8`, `${x} scale`, `${x} zero point`]);
      rows = { q: q!, scale: scale!, zero: zero! };
      this.#quantized.set(x, rows);
    }
    return rows;
  }

  #constant(name: string, shape: readonly number[], type: number, data: NodeJS.TypedArray): string {
    const dims = shape.map((size) => integer(1, size));
    const raw = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    this.#constants.set(name, Buffer.concat([...dims, integer(2, type), bytes(8, name), bytes(9, raw)]));
    return name;
  }
}

interface QuantizedRows {
  readonly q: string;
  readonly scale: string;
  readonly zero: string;
}

interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float32Array;
}

/** Wᵀ in int8 and the scale of each of its columns: the largest magnitude becomes `most`. */
function quantizedColumns({ rows, columns, values }: Matrix, most: number): { q: Int8Array; scales: Float32Array } {
  const q = new Int8Array(values.length);
  const scales = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const of = values.subarray(row * columns, (row + 1) * columns);
    const scale = of.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) / most || 1;
    scales[row] = scale;
    for (let k = 0; k < columns; k++) q[k * rows + row] = Math.round(of[k]! / scale);
  }
  return { q, scales };
}

/** Of TensorProto.DataType */
const kFloat = 1;
const kInt8 = 3;
const kInt64 = 7;

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

function valueInfo({ name, type, shape }: Value): Buffer {
  const dims = Buffer.concat(shape.map((size) => bytes(1, size === undefined ? bytes(2, 'batch') : integer(1, size))));
  const tensor = Buffer.concat([integer(1, type), bytes(2, dims)]);
  return Buffer.concat([bytes(1, name), bytes(2, bytes(1, tensor))]);
}
