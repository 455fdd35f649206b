/** Early, mid and late fusion: ways of joining modalities, over tensors that any encoders made. */
export * as early from './early';
export * as late from './late';
export * as mid from './mid';
export type { FusionLoadOptions, WeightArray, WeightSource } from './weight-source';
