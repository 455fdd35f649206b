// The head and the form that the tables of CUDA's benchmarks share: GPU, date, commit, command.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { device } from '../lib';
import { packageRoot } from '../lib/native';

export const kDevice = 'cuda:0';

/** Prints a table in Markdown and writes it to NAME.md in $OUT or bench/results. */
export function writeTable(name: string, columns: readonly string[], rows: readonly (readonly string[])[]): void {
  const { stdout } = spawnSync('git', ['describe', '--always', '--dirty'], { cwd: packageRoot, encoding: 'utf8' });
  const commit = stdout?.trim() || 'unknown';
  const command = ['node', ...process.argv.slice(1).map((arg) => (arg.startsWith('/') ? relative(packageRoot, arg) : arg))].join(
    ' ',
  );
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const text = `# ${name}

${device(kDevice).description}, ${new Date().toISOString().slice(0, 10)}, commit ${commit}, Node ${process.version}, \`${command}\`

${line(columns)}
${line(columns.map(() => '---'))}
${rows.map(line).join('\n')}
`;
  const folder = process.env.OUT ?? join(packageRoot, 'bench', 'results');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.md`), text);
  console.log(text);
}
