/** The public names of warpsight, and nothing else. */
export { counters, Device, type DeviceName, device, devices, setThreads, threads } from './device';
export type { ArrayOf, DType, Float, Quantization } from './dtype';
export { type ErrorCode, WarpsightError } from './errors';
export * as fusion from './fusion';
export { type ChatMessage, type ChatPart, ChatTemplate } from './generate/chat-template';
export { Generation, type GenerationResult } from './generate/generation';
export type { GenerateOptions } from './generate/options';
export { type BlipImages, BlipImageTextMatching, type BlipOutput } from './models/blip';
export type { BlipConfig } from './models/blip-config';
export {
  CLIP,
  type ClipComposition,
  type ClipOutput,
  type EncodeOptions,
  type LoadOptions,
  SigLIP,
} from './models/clip';
export type { ImageInputs } from './models/image-runner';
export type { LanguageParts } from './models/language-model';
export { type GenerativeLoadOptions, Llama, type LlamaGenerateOptions } from './models/llama';
export { type LlamaConfig, ropeFrequencies } from './models/llama-config';
export { LLaVA, type LlavaComposition, type LlavaGenerateOptions, type LlavaInputs, type Projector } from './models/llava';
export type { LlavaConfig } from './models/llava-config';
export { SiglipTextTransformer, type TextEncoder, type TextInputs, TextTransformer } from './models/text-encoder';
export type { TextInput, TokenIds } from './models/token-rows';
export { type Answer, type AnswerOptions, type PairOptions, ViLT, type ViltOutput } from './models/vilt';
export type { ViltConfig } from './models/vilt-config';
export {
  type FeatureEncoder,
  type FeatureSelection,
  SiglipVisionTransformer,
  type VisionEncoder,
  VisionFeatures,
  VisionTransformer,
} from './models/vision-encoder';
export type { Counters, DeviceInfo, DeviceMemory, StepInfo, TypedArray } from './native';
export * as ops from './ops';
export { ImageProcessor } from './preprocess/image-processor';
export type { ImageInput, PixelTensor, RawPixels } from './preprocess/image-source';
export { Tokenizer } from './preprocess/tokenizer';
export type { StepProfile } from './profile';
export { dim, type InputSpec, type LaunchOptions, type ProfileOptions, type Program } from './program';
export {
  type CandidateInputs,
  Candidates,
  encodeCandidates,
  type RankedCandidate,
  type Reranker,
  type RerankQuery,
  type RetrieveAndRerankOptions,
  type Retriever,
  retrieveAndRerank,
} from './retrieve-and-rerank';
export type { Peaks } from './roofline';
export type { Shape } from './shape';
export { scope, Tensor, type TensorOptions } from './tensor';
export { type MatrixOptions, Weight, type WeightOptions } from './weight';
export {
  type Classification,
  type ClassifyOptions,
  type ClassScore,
  type Template,
  ZeroShotClassifier,
  type ZeroShotOptions,
} from './zero-shot';
