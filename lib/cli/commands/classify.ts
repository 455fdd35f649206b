import type { Classification } from '../../zero-shot';
import { type Arguments, UsageError } from '../arguments';
import { barChart } from '../chart';
import type { Command } from '../command';
import { inBatches, type Outcome, picturePaths, readLines } from '../inputs';
import { loadModel } from '../model';
import { colours, printable, stdout } from '../terminal';

export const classify: Command = {
  name: 'classify',
  operands: '[image..]',
  operandNames: { image: 'pictures: JPEG, PNG, WebP or GIF; "-" reads a list of paths from stdin' },
  describe: 'Says which of the labels fits each picture best (zero-shot classification).',
  options: {
    labels: { value: 'A,B,C', short: 'l', describe: 'the labels, between commas; may be given several times' },
    'labels-file': { value: 'FILE', describe: 'a file with a label on each line, in place of --labels' },
    template: {
      value: 'TEXT',
      short: 't',
      describe: '"{}" is where the label goes; several are averaged; "a photo of a {}" by default',
    },
    'top-k': { value: 'K', short: 'k', aliases: ['top'], describe: 'print the K best labels; all, by default' },
  },
  examples: [
    ['classify rocket.jpg --labels "cat,rocket,car"', 'a bar chart; plain columns where the output is no terminal'],
    ['classify *.png --labels-file names.txt --top-k 1', 'the best name of each picture'],
    ['classify a.jpg -l cat,dog -t "a photo of a {}" -t "a drawing of a {}"', 'two prompts for each label, averaged'],
    ['classify - -l cat,dog --json < list.txt', 'one line of JSON for each path in list.txt'],
  ],

  async run(args: Arguments): Promise<boolean> {
    const labels = await labelsOf(args);
    const template = args.texts('template');
    const topK = args.count('top-k', 1_000_000);
    const images = await picturePaths(args.texts('image'));
    const clip = await loadModel(args);
    const { ZeroShotClassifier } = await import('../../index.js');
    try {
      const classifier = new ZeroShotClassifier(clip, labels, template.length > 0 ? { template } : {});
      await classifier.ready;
      let good = true;
      for await (const outcome of inBatches(images, (batch) => classifier.classify(batch, topK === undefined ? {} : { topK }))) {
        if ('error' in outcome) good = false;
        if (args.flag('json')) await stdout(`${JSON.stringify(asJson(outcome))}\n`);
        else if ('value' in outcome) await stdout(asText(outcome.input, outcome.value));
      }
      classifier.dispose();
      return good;
    } finally {
      clip.dispose();
    }
  },
};

async function labelsOf(args: Arguments): Promise<string[]> {
  const file = args.text('labels-file');
  const given = args.texts('labels');
  if (file !== undefined && given.length > 0) throw new UsageError('give --labels or --labels-file, not both');
  if (file === undefined && given.length === 0)
    throw new UsageError('labels are needed: --labels "cat,dog" or --labels-file FILE');
  const labels = file === undefined ? given.flatMap((list) => list.split(',')) : await readLines(file);
  const trimmed = labels.map((label) => label.trim()).filter((label) => label !== '');
  if (trimmed.length === 0) throw new UsageError(file === undefined ? '--labels is empty' : `${file} has no labels`);
  return trimmed;
}

function asJson(outcome: Outcome<Classification>): unknown {
  if ('error' in outcome) return { image: outcome.input, error: { code: outcome.error.code, message: outcome.error.message } };
  return { image: outcome.input, ...outcome.value };
}

function asText(path: string, { scores }: Classification): string {
  if (process.stdout.isTTY)
    return `${printable(path)}\n${barChart(scores, process.stdout.columns || 80, colours(process.stdout))}`;
  return scores.map(({ label, score }) => `${printable(path)}\t${printable(label)}\t${score.toFixed(6)}\n`).join('');
}
