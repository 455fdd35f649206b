// node dist/bench/make-llava.js SIZE FOLDER [F32|F16|BF16]: a LLaVA in Hugging Face format with random weights and a tokenizer of bytes. It says
// nothing about any picture, but takes the memory and the time that a trained one of its size takes.
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import {
  type CheckpointSize,
  linear,
  preprocessor,
  random,
  type StoredType,
  type TensorSpec,
  tower,
  visionTensors,
  writeJson,
  writeWeights,
} from './make-checkpoint';

export interface LlavaSize {
  readonly vision: CheckpointSize['vision'];
  readonly text: {
    readonly width: number;
    readonly layers: number;
    readonly heads: number;
    readonly kvHeads: number;
    /** Inside the SwiGLU. */
    readonly inner: number;
    readonly vocabulary: number;
    /** The head is the embedding. */
    readonly tied: boolean;
  };
}

/** `7b`: LLaVA 1.5; `1b`: the layers of Llama 3.2 1B under its tower; `loading`: 55 million weights, mostly the language model's. */
export const kLlavaSizes: Readonly<Record<string, LlavaSize>> = {
  micro: {
    vision: { width: 32, layers: 2, heads: 2, image: 32, patch: 16 },
    text: { width: 64, layers: 2, heads: 4, kvHeads: 2, inner: 128, vocabulary: 320, tied: true },
  },
  loading: {
    vision: { width: 64, layers: 2, heads: 2, image: 32, patch: 16 },
    text: { width: 512, layers: 8, heads: 8, kvHeads: 4, inner: 2048, vocabulary: 48_000, tied: true },
  },
  '1b': {
    vision: { width: 1024, layers: 24, heads: 16, image: 336, patch: 14 },
    text: { width: 2048, layers: 16, heads: 32, kvHeads: 8, inner: 8192, vocabulary: 32_064, tied: true },
  },
  '7b': {
    vision: { width: 1024, layers: 24, heads: 16, image: 336, patch: 14 },
    text: { width: 4096, layers: 32, heads: 32, kvHeads: 32, inner: 11_008, vocabulary: 32_064, tied: false },
  },
};

/** Stands for a picture; the ids below are bytes, the one above ends an answer. */
export const kImageMark = 256;

/** Writes config.json, preprocessor_config.json, tokenizer files and model.safetensors; the same bytes each time. */
export function makeLlava(folder: string, size: LlavaSize, { dtype = 'F32' }: { readonly dtype?: StoredType } = {}): void {
  const { vision, text } = size;
  mkdirSync(folder, { recursive: true });
  writeJson(join(folder, 'config.json'), {
    model_type: 'llava',
    image_token_index: kImageMark,
    tie_word_embeddings: text.tied,
    vision_config: { ...tower(vision), image_size: vision.image, patch_size: vision.patch, num_channels: 3 },
    text_config: {
      model_type: 'llama',
      hidden_size: text.width,
      intermediate_size: text.inner,
      num_hidden_layers: text.layers,
      num_attention_heads: text.heads,
      num_key_value_heads: text.kvHeads,
      vocab_size: text.vocabulary,
      max_position_embeddings: 4096,
      rms_norm_eps: 1e-5,
      eos_token_id: kImageMark + 1,
    },
  });
  writeJson(join(folder, 'preprocessor_config.json'), preprocessor(vision.image));
  writeJson(join(folder, 'tokenizer.json'), byteTokenizer());
  writeJson(join(folder, 'tokenizer_config.json'), { tokenizer_class: 'PreTrainedTokenizerFast' });
  writeWeights(join(folder, 'model.safetensors'), llavaTensors(size), dtype);
}

/** Every tensor by the names of transformers 4's `LlavaForConditionalGeneration`. */
export function llavaTensors({ vision, text }: LlavaSize): TensorSpec[] {
  const { width: D, inner, heads, kvHeads } = text;
  const keys = (kvHeads * D) / heads;
  const ones = (name: string): TensorSpec => ({ name, shape: [D], fill: 'ones' });
  const layers = Array.from({ length: text.layers }, (_, i) => `language_model.model.layers.${i}`).flatMap((layer) => [
    ones(`${layer}.input_layernorm.weight`),
    random(`${layer}.self_attn.q_proj.weight`, [D, D]),
    random(`${layer}.self_attn.k_proj.weight`, [keys, D]),
    random(`${layer}.self_attn.v_proj.weight`, [keys, D]),
    random(`${layer}.self_attn.o_proj.weight`, [D, D]),
    ones(`${layer}.post_attention_layernorm.weight`),
    random(`${layer}.mlp.gate_proj.weight`, [inner, D]),
    random(`${layer}.mlp.up_proj.weight`, [inner, D]),
    random(`${layer}.mlp.down_proj.weight`, [D, inner]),
  ]);
  return [
    ...visionTensors(vision).map((tensor) => ({ ...tensor, name: `vision_tower.${tensor.name}` })),
    ...linear('multi_modal_projector.linear_1', D, vision.width),
    ...linear('multi_modal_projector.linear_2', D, D),
    random('language_model.model.embed_tokens.weight', [text.vocabulary, D]),
    ...layers,
    ones('language_model.model.norm.weight'),
    ...(text.tied ? [] : [random('language_model.lm_head.weight', [text.vocabulary, D])]),
  ];
}

/** Each byte is a token, as byte-level BPE without merges has it; source of the characters: GPT-2's table of printable bytes. */
function byteTokenizer() {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  const characters = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
  const added = ['<image>', '<end>'].map((content, i) => ({
    id: kImageMark + i,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  }));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    version: '1.0',
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', vocab: Object.fromEntries(characters.map((character, byte) => [character, byte])), merges: [] },
  };
}

if (require.main === module) {
  const [name = '', folder, dtype = 'F32'] = process.argv.slice(2);
  const size = kLlavaSizes[name];
  if (!size || folder === undefined || !(dtype === 'F32' || dtype === 'F16' || dtype === 'BF16')) {
    console.error(`usage: node dist/bench/make-llava.js ${Object.keys(kLlavaSizes).join('|')} FOLDER [F32|F16|BF16]`);
    process.exitCode = 2;
  } else {
    makeLlava(resolve(folder), size, { dtype });
  }
}
