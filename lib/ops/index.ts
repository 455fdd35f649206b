/** One typed function for each operation: the rule of shapes and dtypes is checked here, once for every backend. */
export { type AttentionLayout, type AttentionOptions, attention, attentionRows } from './attention';
export { activate, add, cast, maximum, multiply, sigmoid, siluGate } from './elementwise';
export {
  appendRows,
  type DrawOptions,
  type PagedLayout,
  pagedAttention,
  rope,
  ropeAppend,
  type SampleOptions,
  sample,
  sampleDistribution,
  splice,
} from './language';
export { type Activation, type LinearOptions, linear } from './linear';
export { type ScaledLogitsOptions, scaledLogits, type ZeroShotHeadOptions, zeroShotHead } from './logits';
export { addLayerNorm, addRmsNorm, type LayerNormOptions, l2Normalize, layerNorm, rmsNorm } from './norms';
export { type PatchEmbedOptions, patchEmbed } from './patch-embed';
export { type ResizeNormalizeOptions, resizeNormalize } from './resize-normalize';
export { argmax, concat, embed, gatherRows, segmentMean, softmax, topK } from './rows';
