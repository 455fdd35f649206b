// The part of @huggingface/tokenizers 0.2.0 that is used here. Its own declarations import each other without file extensions,
// which module resolution for Node doesn't follow.
declare module '@huggingface/tokenizers' {
  export class Model {
    vocab: string[];
    tokens_to_ids: Map<string, number>;
    unk_token_id?: number;
  }

  export class BPE extends Model {
    /** Queues the merge of a symbol with the next one, if there is such a merge; the lowest score comes first. */
    add_node: (queue: { push(symbol: Symbol): void }, symbol: Symbol) => void;
  }

  /** A part of a word. */
  export interface Symbol {
    readonly token: string;
    /** Where it stands in the word, 0 to 1, so that of equal merges the first comes first. */
    readonly bias: number;
    readonly next: Symbol;
    score: number;
  }

  export class Unigram extends Model {
    populate_nodes: (lattice: Lattice) => void;
  }

  export class WordPiece extends Model {}

  export interface Lattice {
    /** The text's code points. */
    readonly chars: readonly string[];
    insert(start: number, length: number, score: number, id: number): void;
  }

  export class Tokenizer {
    readonly model: Model;
    readonly post_processor: ((tokens: string[], pair: null, addSpecialTokens: boolean) => { tokens: string[] }) | null;

    constructor(tokenizerJson: object, tokenizerConfig: object);

    /** An id is undefined for a token outside the vocabulary, if the model has no token for the unknown. */
    encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[]; tokens: string[] };
    decode(ids: number[], options: { skip_special_tokens: boolean }): string;
    token_to_id(token: string): number | undefined;
  }
}
