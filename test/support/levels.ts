/** Skips the test where a child whose WARPSIGHT_ISA named a level wrote that this machine or build lacks it. */
export function skipIfLacking(context: Mocha.Context, written: string): void {
  const [lacking] = /WARPSIGHT_ISA is "\w+": this machine and build have.*/.exec(written) ?? [];
  if (lacking === undefined) return;
  console.log(`skipped: ${lacking}`);
  context.skip();
}
