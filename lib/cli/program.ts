import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Options } from 'yargs';
import { Arguments, hideDash, UsageError } from './arguments';
import { type Command, commonOptions, type Option } from './command';
import { bench } from './commands/bench';
import { chat } from './commands/chat';
import { classify } from './commands/classify';
import { embed } from './commands/embed';
import { info } from './commands/info';
import { nearest } from './nearest';
import { printable, stdout } from './terminal';

const commands: readonly Command[] = [classify, embed, chat, bench, info];

/** @returns the exit code: 0, 1 it failed, 2 wrong usage */
export async function main(words: readonly string[]): Promise<number> {
  try {
    return await runProgram(words);
  } catch (error) {
    report(error, words.includes('--verbose') || Boolean(process.env.WARPSIGHT_DEBUG));
    return isUsage(error) ? 2 : 1;
  }
}

async function runProgram(words: readonly string[]): Promise<number> {
  const parsed = await parse(words);
  if (parsed.shown !== '') {
    await stdout(`${parsed.shown}\n`);
    return 0;
  }
  if (parsed.command === undefined) {
    const [name] = parsed.operands;
    if (name === undefined) throw new UsageError(`a command is needed: ${commands.map((each) => each.name).join(', ')}`);
    throw new UsageError(
      unknown(
        'command',
        String(name),
        commands.map((each) => each.name),
      ),
    );
  }
  const { command, operands, fields } = parsed;
  const list = /^\[(\w+)\.\.\]$/.exec(command.operands)?.[1];
  if (list === undefined && operands[0] !== undefined) {
    throw new UsageError(`${command.name} doesn't take ${JSON.stringify(String(operands[0]))} here`);
  }
  const args = new Arguments(list === undefined ? fields : { ...fields, [list]: [fields[list] ?? [], operands].flat() });
  const result = await command.run(args);
  return typeof result === 'number' ? result : result ? 0 : 1;
}

interface Parsed {
  /** The help or the version, if that was asked for. */
  readonly shown: string;
  readonly command: Command | undefined;
  readonly fields: Readonly<Record<string, unknown>>;
  /** Words that no command and no option took: those after "--". */
  readonly operands: readonly unknown[];
}

async function parse(words: readonly string[]): Promise<Parsed> {
  const { default: yargs } = await import('yargs'); // an ES module
  let command: Command | undefined;
  let shown = '';
  const parser = yargs([])
    .scriptName('warpsight')
    .usage('$0 <command> [options]\n\nCLIP, SigLIP, zero-shot image classification and LLaVA on this machine.')
    .locale('en')
    .parserConfiguration({ 'camel-case-expansion': false, 'dot-notation': false, 'boolean-negation': false })
    .exitProcess(false)
    .fail((message, error) => {
      throw new UsageError(sentence(message ?? error.message));
    })
    .version(version())
    .alias('version', 'v')
    .alias('help', 'h')
    .wrap(Math.min(110, process.stdout.columns || 110))
    .epilogue('warpsight <command> --help shows the options and examples of a command.');
  for (const [name, option] of Object.entries(commonOptions)) {
    parser.option(name, { ...toYargs(option), group: 'Options of every command:' });
  }
  for (const each of commands) {
    parser.command(
      `${each.name} ${each.operands}`.trim(),
      each.describe,
      (builder) => {
        for (const [name, describe] of Object.entries(each.operandNames)) builder.positional(name, { type: 'string', describe });
        for (const [name, option] of Object.entries(each.options)) builder.option(name, toYargs(option));
        for (const [line, describe] of each.examples) builder.example(`$0 ${line}`, describe);
        return builder.usage(`$0 ${each.name} ${each.operands} [options]\n\n${each.describe}`).epilogue('');
      },
      () => {
        command = each;
      },
    );
  }
  const { _: operands, ...fields } = await parser.parse(words.map(hideDash), {}, (_error, _arguments, output) => {
    shown = output;
  });
  if (shown === '' && (command !== undefined || operands.length === 0)) checkNames(fields, command); // else the command is the error
  return { shown, command, fields, operands: command ? operands.slice(1) : operands };
}

function toYargs({ describe, value, short, aliases = [], list = false }: Option): Options {
  const alias = [...aliases, ...(short === undefined ? [] : [short])];
  if (value === undefined) return { type: 'boolean', describe, alias };
  return { type: list ? 'array' : 'string', string: true, requiresArg: true, describe: `${value}: ${describe}`, alias };
}

/** yargs takes unknown options; here one is an error that suggests the nearest. */
function checkNames(fields: Readonly<Record<string, unknown>>, command: Command | undefined): void {
  const options = { ...command?.options, ...commonOptions };
  const long = ['help', 'version', ...Object.keys(options), ...Object.values(options).flatMap((each) => each.aliases ?? [])];
  const short = ['h', 'v', ...Object.values(options).flatMap((each) => each.short ?? [])];
  const known = new Set([...long, ...short, '$0', ...Object.keys(command?.operandNames ?? {})]);
  for (const name of Object.keys(fields)) {
    if (known.has(name)) continue;
    throw new UsageError(unknown('option', name, long));
  }
}

function unknown(what: 'command' | 'option', name: string, candidates: readonly string[]): string {
  const dashes = (word: string) => (what === 'command' ? word : `${word.length > 1 ? '--' : '-'}${word}`);
  const near = nearest(name, candidates);
  const hint =
    near === undefined ? (what === 'command' ? `there are ${candidates.join(', ')}` : '') : `did you mean ${dashes(near)}?`;
  return `unknown ${what} ${dashes(name)}${hint === '' ? '' : `: ${hint}`}`;
}

/** yargs' own messages, in our words. */
function sentence(message: string): string {
  const missing = /^Not enough arguments following: (.*)$/.exec(message)?.[1];
  return missing === undefined ? message : `--${missing} needs a value`;
}

function version(): string {
  const file: { readonly version: string } = JSON.parse(readFileSync(join(__dirname, '..', '..', '..', 'package.json'), 'utf8'));
  return file.version;
}

/** Labels, templates and numbers that the library refuses came from the command line too. */
function isUsage(error: unknown): boolean {
  return error instanceof UsageError || (error instanceof Error && 'code' in error && error.code === 'ERR_ARGUMENT');
}

function report(error: unknown, verbose: boolean): void {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`warpsight: ${printable(message)}\n`);
  if (error instanceof UsageError) process.stderr.write('warpsight --help shows how it is used\n');
  if (!verbose) return;
  for (let cause = error; cause instanceof Error; cause = cause.cause) process.stderr.write(`${cause.stack ?? ''}\n`);
}
