/** The types of elements. 16-bit floats are storage and arithmetic of CUDA devices; `read()` widens them to float32. */
export type DType = 'float32' | 'float16' | 'bfloat16' | 'int32' | 'uint8';

/** The types that activations may have. */
export type Float = 'float32' | 'float16' | 'bfloat16';

/**
 * What matrices are kept as. 'int8': one byte a number, w ≈ scale·v with a scale for each row (output channel); rows that they meet are quantised one
 * by one on the way. Sums are exact, everything else stays float32.
 */
export type Quantization = 'none' | 'int8';

/** What `read()` gives for each. */
export type ArrayOf<D extends DType> = D extends 'int32' ? Int32Array : D extends 'uint8' ? Uint8Array : Float32Array;

export function isFloat(dtype: DType): dtype is Float {
  return dtype === 'float32' || dtype === 'float16' || dtype === 'bfloat16';
}

/** What a model's activations are where it multiplies in `dtype`: the CPU rounds its operands to 16 bits and keeps float32 everywhere else. */
export function activationDtype(device: string, dtype: Float): Float {
  return device === 'cpu' ? 'float32' : dtype;
}

/** Bytes of one element. */
export function byteSize(dtype: DType): number {
  return dtype === 'uint8' ? 1 : dtype === 'float16' || dtype === 'bfloat16' ? 2 : 4;
}
