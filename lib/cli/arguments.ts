/** The command line was wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

// yargs drops an operand "-"; no argument of a process can hold a NUL, so this stands for nothing else meanwhile.
const kDash = '\0-';

export function hideDash(word: string): string {
  return word === '-' ? kDash : word;
}

/** What was given on the command line, read option by option into what the command needs. */
export class Arguments {
  constructor(readonly fields: Readonly<Record<string, unknown>>) {}

  flag(name: string): boolean {
    return this.fields[name] === true;
  }

  /** An option that may be given once. */
  text(name: string): string | undefined {
    const values = this.texts(name);
    if (values.length > 1) throw new UsageError(`--${name} is given ${values.length} times; once is enough`);
    if (values[0] === '') throw new UsageError(`--${name} is empty`);
    return values[0];
  }

  /** A list, or an option that may be given several times. */
  texts(name: string): string[] {
    const value = this.fields[name];
    if (value === undefined) return [];
    return (Array.isArray(value) ? value : [value]).map((each) => (each === kDash ? '-' : String(each)));
  }

  count(name: string, most: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= 1 && value <= most) return value;
    throw new UsageError(`--${name} must be a whole number from 1 to ${most}: it is ${JSON.stringify(text)}`);
  }

  /** Any finite number: what it may be is the library's business. */
  number(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (text.trim() !== '' && Number.isFinite(value)) return value;
    throw new UsageError(`--${name} must be a number: it is ${JSON.stringify(text)}`);
  }

  choice<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const found = choices.find((choice) => choice === text);
    if (found !== undefined) return found;
    throw new UsageError(`--${name} must be one of ${choices.join(', ')}: it is ${JSON.stringify(text)}`);
  }
}
