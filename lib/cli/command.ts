import type { Arguments } from './arguments';

export interface Option {
  readonly describe: string;
  /** How the value is called in the help; without it the option is a switch. */
  readonly value?: string;
  readonly short?: string;
  readonly aliases?: readonly string[];
  /** Takes all words up to the next option. */
  readonly list?: boolean;
}

/** A command is one file in commands/ and one line in program.ts. */
export interface Command {
  readonly name: string;
  /** What follows the name, in the form of yargs: '[image..]' */
  readonly operands: string;
  readonly operandNames: Readonly<Record<string, string>>;
  readonly describe: string;
  readonly options: Readonly<Record<string, Option>>;
  /** Command lines (without "warpsight") and what they do. */
  readonly examples: readonly (readonly [string, string])[];
  /** @returns whether everything succeeded, or an exit code of its own; what it throws is reported as one sentence */
  run(args: Arguments): Promise<boolean | number>;
}

/** What every command takes. */
export const commonOptions: Readonly<Record<string, Option>> = {
  model: { value: 'FOLDER', short: 'm', describe: 'a checkpoint folder or "org/name"; the model that ships, by default' },
  device: { value: 'NAME', describe: 'auto (default), cpu, cuda or cuda:N' },
  dtype: { value: 'TYPE', describe: 'arithmetic: auto (default), float32, float16 or bfloat16' },
  quantization: { value: 'KIND', describe: 'what matrices are kept as: none (default) or int8, on the CPU' },
  threads: { value: 'N', describe: 'CPU threads; the cores this process may use, by default' },
  json: { describe: 'print JSON' },
  verbose: { describe: 'print the stack of an error (as WARPSIGHT_DEBUG=1 does)' },
};
