import { type Arguments, UsageError } from '../arguments';
import type { Command } from '../command';
import { formatOf, type Rows, toFile, toStdout } from '../features-file';
import { inBatches, picturePaths } from '../inputs';
import { loadModel } from '../model';
import { printable, stdout } from '../terminal';

export const embed: Command = {
  name: 'embed',
  operands: '[image..]',
  operandNames: { image: 'pictures (also as --image FILE…); "-" reads a list of paths from stdin' },
  describe: 'Turns pictures or texts into embeddings: rows of unit length, one for each input, in their order.',
  options: {
    text: { value: 'STRING…', list: true, describe: 'texts, in place of pictures' },
    out: { value: 'FILE', short: 'o', describe: 'a .npy, .safetensors or .jsonl file; JSON lines on stdout, by default' },
  },
  examples: [
    ['embed rocket.jpg', '{"image":"rocket.jpg","embedding":[…]}'],
    ['embed photos/*.jpg --out photos.npy', 'a float32 matrix [pictures, width] for numpy'],
    ['embed --text "a cat" "a rocket" --out texts.safetensors', 'tensor "embeddings"; the texts are in its metadata'],
    ['embed - --out all.npy < list.txt', 'row i is line i; an unreadable picture is a row of NaN, and exit code 1'],
  ],

  async run(args: Arguments): Promise<boolean> {
    const texts = args.texts('text');
    const out = args.text('out');
    if (out !== undefined) formatOf(out);
    const operands = args.texts('image');
    if (texts.length > 0 && operands.length > 0) throw new UsageError('give pictures or --text, not both');
    if (texts.length === 0 && operands.length === 0) throw new UsageError('pictures or --text are needed');
    const kind = texts.length > 0 ? 'text' : 'image';
    const inputs = kind === 'text' ? texts : await picturePaths(operands);
    const clip = await loadModel(args);
    try {
      const encode = async (batch: string[]): Promise<Float32Array[]> => {
        const features = await (kind === 'text' ? clip.encodeText : clip.encodeImage).call(clip, batch, { normalize: true }); // [n, d]
        try {
          return await features.rows();
        } finally {
          features.dispose();
        }
      };
      const rows: Rows = { kind, inputs, width: clip.config?.projectionDim ?? 0 };
      const sink = out === undefined ? toStdout(rows) : await toFile(out, rows);
      let failed = 0;
      for await (const outcome of inBatches(inputs, encode)) {
        if ('error' in outcome) failed++;
        await sink.row(outcome.input, 'error' in outcome ? outcome.error : outcome.value);
      }
      await sink.finish();
      if (out !== undefined) {
        if (args.flag('json')) await stdout(`${JSON.stringify({ out, rows: inputs.length, width: rows.width, failed })}\n`);
        else process.stderr.write(`${printable(out)}: ${inputs.length} x ${rows.width}\n`);
      }
      return failed === 0;
    } finally {
      clip.dispose();
    }
  },
};
