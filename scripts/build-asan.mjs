// npm run build:asan: the addon and the native tests with AddressSanitizer and UBSan, in build-asan/ (CPU only).
import { fileURLToPath } from 'node:url';
import { buildWithCmake } from './addon.mjs';
import { requirePrerequisites } from './toolchain.mjs';

/** @returns {string} the addon's path; the tests are in build-asan/test */
export function buildWithSanitizers() {
  requirePrerequisites();
  return buildWithCmake({ folder: 'build-asan', sanitize: true, tests: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(buildWithSanitizers());
