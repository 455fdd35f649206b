import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';

/** The package's bench folder: the compiled files lie elsewhere. */
export const benchFolder = join(__dirname, '..', '..', 'bench');

/** Where and when a run takes place; call it before the run, so that the load is that of others. @param cores as it is said of the run */
export function conditions(command: string, cores: string) {
  return {
    date: new Date().toISOString().slice(0, 16),
    cpu: `${cpus()[0]?.model}, ${cores}`,
    node: process.version,
    commit: execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: benchFolder, encoding: 'utf8' }).trim(),
    command,
    loadBefore: loadavg()[0]!,
  };
}

/** Prints a run's table, and writes results/`name`.md with it and results/`name`.json with the raw numbers. */
export function report(name: string, title: string, about: Readonly<Record<string, unknown>>, table: string, raw: object): void {
  console.log(table);
  console.log(about);
  const out = join(benchFolder, 'results');
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, `${name}.json`), `${JSON.stringify({ ...about, ...raw }, null, 2)}\n`);
  const heading = Object.entries(about).map(([key, value]) => `* ${key}: ${value}`);
  writeFileSync(join(out, `${name}.md`), `# ${title}\n\n${heading.join('\n')}\n\n${table}\n`);
}
