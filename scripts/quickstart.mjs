// npm run quickstart: installs and builds what is missing, then runs the README's first program.
import './build.mjs';
import { join } from 'node:path';
import { root, run } from './process.mjs';

run(process.execPath, [join(root, 'examples', 'quickstart.js'), ...process.argv.slice(2)]);
