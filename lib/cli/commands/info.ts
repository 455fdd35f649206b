import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CLIP } from '../../models/clip';
import type { DeviceInfo, DeviceMemory } from '../../native';
import type { Arguments } from '../arguments';
import type { Command } from '../command';
import { folderOrModel, loadModel } from '../model';
import { printable, stdout } from '../terminal';

interface Report {
  readonly version: string;
  readonly node: string;
  readonly platform: string;
  readonly isa: string;
  readonly threads: number;
  readonly devices: readonly (DeviceInfo & { readonly memory?: DeviceMemory })[];
  readonly model: {
    readonly name: string;
    readonly licence: string | null;
    readonly config: CLIP['config'] | null;
    readonly device: string;
    readonly dtype: string;
    readonly quantization: string;
    readonly weightBytes: number;
  };
}

export const info: Command = {
  name: 'info',
  operands: '[folder]',
  operandNames: { folder: 'a checkpoint folder or "org/name"; the model that ships, by default' },
  describe: 'Shows the version, the devices and why one is not usable, and a model: its shapes, dtype, memory and licence.',
  options: {},
  examples: [
    ['info', 'this machine, and the model that ships'],
    ['info ./clip-vit-base-patch32 --json', 'one JSON document'],
  ],

  async run(args: Arguments): Promise<boolean> {
    const name = folderOrModel(args);
    const clip = await loadModel(args, name);
    try {
      const report = await describe(clip, name);
      await stdout(args.flag('json') ? `${JSON.stringify(report, undefined, 2)}\n` : asText(report));
      return true;
    } finally {
      clip.dispose();
    }
  },
};

async function describe(clip: CLIP, name: string | undefined): Promise<Report> {
  const { device, devices, threads } = await import('../../index.js');
  const { packageRoot } = await import('../../native.js');
  const { version }: { readonly version: string } = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8'));
  const all = devices();
  return {
    version,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    isa: all.find((each) => each.name === 'cpu')?.description.split(',')[0] ?? '',
    threads: threads(),
    devices: all.map((each) => (each.usable ? { ...each, memory: device(deviceName(each.name)).memory() } : each)),
    model: {
      name: name ?? 'clip-pictograms',
      licence: name === undefined ? `see ${join(packageRoot, 'models', 'README.md')}` : await licenceOf(name),
      config: clip.config ?? null,
      device: clip.device,
      dtype: clip.dtype,
      quantization: clip.quantization,
      weightBytes: clip.memoryUsage().weights,
    },
  };
}

function deviceName(name: string): 'cpu' | `cuda:${number}` {
  return name === 'cpu' ? 'cpu' : `cuda:${Number(name.slice('cuda:'.length))}`;
}

/** What the front matter of the model card says. */
async function licenceOf(folder: string): Promise<string | null> {
  try {
    const card = await readFile(join(folder, 'README.md'), 'utf8');
    return /^---\r?\n[\s\S]*?^license:[ \t]*(\S+)/m.exec(card)?.[1] ?? null;
  } catch {
    return null; // a model without a card
  }
}

function asText({ version, node, platform, isa, threads, devices, model }: Report): string {
  const quantised = model.quantization === 'none' ? '' : ` with ${model.quantization} matrices`;
  const lines = [
    ['warpsight', `${version}, Node.js ${node}, ${platform}`],
    ['cpu', `${isa}, ${threads} threads`],
    ...devices.map(({ name, usable, description, reason, memory }) => [
      `device ${name}`,
      usable
        ? `${description}${memory ? `, ${mebibytes(memory.free)} of ${mebibytes(memory.total)} free` : ''}`
        : `not usable: ${reason ?? 'no reason given'}`,
    ]),
    ['model', printable(model.name)],
    ...shapes(model.config),
    ['  runs on', `${model.device} in ${model.dtype}${quantised}, weights take ${mebibytes(model.weightBytes)}`],
    ['  licence', printable(model.licence ?? 'not stated in the folder')],
  ];
  return lines.map(([name = '', value = '']) => `${name.padEnd(16)} ${value}\n`).join('');
}

function shapes(config: CLIP['config'] | null): string[][] {
  if (!config) return [];
  const { vision, text } = config;
  return [
    ['  kind', `${config.kind}, stored in ${config.dtype ?? 'a type that config.json does not name'}`],
    [
      '  vision',
      `${vision.imageSize} x ${vision.imageSize} pixels in patches of ${vision.patchSize}, ${vision.layers} layers of ${vision.hiddenSize}, ${vision.heads} heads`,
    ],
    [
      '  text',
      `${text.contextLength} tokens of ${text.vocabularySize}, ${text.layers} layers of ${text.hiddenSize}, ${text.heads} heads`,
    ],
    ['  embedding', String(config.projectionDim)],
  ];
}

function mebibytes(bytes: number): string {
  return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
