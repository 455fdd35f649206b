import { join } from 'node:path';
import { resolveCheckpoint } from '../checkpoint/hub';
import { JsonObject, readJson } from '../checkpoint/json';
import type { ChatMessage, GenerateOptions, Generation, ImageInput } from '../index';
import type { CLIP } from '../models/clip';
import { type Arguments, UsageError } from './arguments';
import { Progress, waitFor } from './terminal';

/** The model of a command that takes it as FOLDER or with --model; undefined for the one that ships. */
export function folderOrModel(args: Arguments): string | undefined {
  const folder = args.text('folder');
  if (folder !== undefined && args.text('model') !== undefined)
    throw new UsageError('give the model once: as FOLDER or with --model');
  return folder ?? args.text('model');
}

/** The model that --model, --device, --dtype and --threads ask for. */
export async function loadModel(args: Arguments, folder = args.text('model')): Promise<CLIP> {
  const options = loadOptions(args);
  const { CLIP } = await library(args);
  return waitFor(`loading ${folder ?? 'the model that ships'}`, CLIP.fromPretrained(folder, options));
}

/** What a conversation is held with. */
export interface ChatModel {
  readonly device: string;
  readonly dtype: string;
  readonly seesPictures: boolean;
  readonly hasChatTemplate: boolean;
  generate(asked: GenerateOptions & Asked, images: readonly ImageInput[]): Generation;
  dispose(): void;
}

type Asked = { readonly prompt: string } | { readonly messages: readonly ChatMessage[] };

/** Whether a checkpoint generates text, as a LLaVA or a Llama does. */
export async function canTalk(name: string): Promise<boolean> {
  return ['llava', 'llama'].includes((await configOf(await resolveCheckpoint(name))).string('model_type') ?? '');
}

async function configOf(folder: string): Promise<JsonObject> {
  return JsonObject.parse('config.json', (await readJson(join(folder, 'config.json'), 1 << 20, 'ERR_CONFIG')) ?? {});
}

/** The LLaVA or the Llama of a folder. */
export async function loadChatModel(args: Arguments, name: string): Promise<ChatModel> {
  const options = loadOptions(args);
  const { LLaVA, Llama } = await library(args);
  const folder = await resolveCheckpoint(name);
  const config = await configOf(folder);
  const progress = new Progress();
  const onProgress = ({ loaded, total }: { readonly loaded: number; readonly total: number }) =>
    progress.update(`loading ${name} … ${Math.floor((100 * loaded) / total)} %`);
  try {
    const asked = { ...options, onProgress };
    if (config.string('model_type') === 'llava' || config.get('vision_config') !== undefined) {
      const llava = await LLaVA.fromPretrained(folder, asked);
      return {
        device: llava.device,
        dtype: llava.dtype,
        seesPictures: true,
        hasChatTemplate: llava.chatTemplate !== undefined,
        generate: (given, images) => llava.generate({ ...given, images }),
        dispose: () => llava.dispose(),
      };
    }
    const llama = await Llama.fromPretrained(folder, asked);
    return {
      device: llama.device,
      dtype: llama.dtype,
      seesPictures: false,
      hasChatTemplate: llama.chatTemplate !== undefined,
      generate: (given) => llama.generate(given),
      dispose: () => llama.dispose(),
    };
  } finally {
    progress.clear();
  }
}

function loadOptions(args: Arguments) {
  const dtype = args.choice('dtype', ['auto', 'float32', 'float16', 'bfloat16']) ?? 'auto';
  const quantization = args.choice('quantization', ['none', 'int8']) ?? 'none';
  return { device: deviceName(args), dtype, quantization } as const;
}

/** Late: --help and usage errors need no addon. */
async function library(args: Arguments): Promise<typeof import('../index')> {
  const threads = args.count('threads', 1024);
  const index = await import('../index.js');
  if (threads !== undefined) index.setThreads(threads);
  return index;
}

function deviceName(args: Arguments): 'auto' | 'cpu' | 'cuda' | `cuda:${number}` {
  const text = args.text('device') ?? 'auto';
  if (text === 'auto' || text === 'cpu' || text === 'cuda') return text;
  const index = /^cuda:(\d{1,3})$/.exec(text)?.[1];
  if (index !== undefined) return `cuda:${Number(index)}`;
  throw new UsageError(`--device must be auto, cpu, cuda or cuda:N: it is ${JSON.stringify(text)}`);
}
