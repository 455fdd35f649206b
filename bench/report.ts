import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { cpuName } from './cores';

/** The package's bench folder: the compiled files lie elsewhere. */
export const benchFolder = join(__dirname, '..', '..', 'bench');

/** Where and when a run takes place; call it before the run, so that the load is that of others. @param cores as it is said of the run */
export function conditions(command: string, cores: string) {
  const { stdout } = spawnSync('git', ['describe', '--always', '--dirty'], { cwd: benchFolder, encoding: 'utf8' });
  return {
    date: new Date().toISOString().slice(0, 16),
    cpu: `${cpuName()}, ${cores}`,
    node: process.version,
    commit: stdout?.trim() || 'unknown',
    command,
    loadBefore: loadavg()[0]!,
  };
}

/** Lines of a table in Markdown. */
export function markdown(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(columns), `|${'---|'.repeat(columns.length)}`, ...rows.map(line)].join('\n');
}

/** Prints a run's table, and writes `name`.md with it, `name`.json with the raw numbers and perhaps `name`.svg to $OUT or bench/results. */
export function report(
  name: string,
  title: string,
  about: Readonly<Record<string, unknown>>,
  table: string,
  raw: object,
  plot?: string,
): void {
  console.log(table);
  console.log(about);
  const out = process.env.OUT ?? join(benchFolder, 'results');
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, `${name}.json`), `${JSON.stringify({ ...about, ...raw }, null, 2)}\n`);
  if (plot !== undefined) writeFileSync(join(out, `${name}.svg`), plot);
  const heading = Object.entries(about).map(([key, value]) => `* ${key}: ${value}`);
  writeFileSync(join(out, `${name}.md`), `# ${title}\n\n${heading.join('\n')}\n\n${table}\n`);
}
