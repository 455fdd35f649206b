#!/usr/bin/env node
import { main } from './program';

// A reader that has seen enough (`| head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});
process.once('SIGINT', () => process.exit(130)); // 128 + 2, as shells count; work in flight is let go by the addon

main(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});
