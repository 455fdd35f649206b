import { layerNorm, linear, patchRows, type Row, type Rows } from '../support/float64';
import type { Stored, Tensors } from './model-folder';

/** What the references of all models are made of: tensors by name, in float64. */
export abstract class Reference {
  constructor(readonly tensors: Tensors) {}

  protected of(name: string): Stored {
    const found = this.tensors.get(name);
    if (!found) throw new Error(`the reference has no ${name}`);
    return found;
  }

  protected linear(x: Row, name: string): Row {
    return linear(x, this.of(`${name}.weight`), this.tensors.get(`${name}.bias`));
  }

  protected norm(x: Row, name: string, eps: number): Row {
    return layerNorm(x, this.of(`${name}.weight`), this.of(`${name}.bias`), eps);
  }

  /** Patches of a picture [3, height, width] by their convolution `name`, behind the class token where there is one. */
  protected patches(pixels: ArrayLike<number>, size: readonly [number, number], name: string, classToken?: string): Rows {
    const rows = patchRows(pixels, size, this.of(`${name}.weight`), this.tensors.get(`${name}.bias`));
    return classToken === undefined ? rows : [Float64Array.from(this.of(classToken).values), ...rows];
  }
}
