import { fileURLToPath } from 'node:url';
import { WarpsightError } from '../errors';
import { shown } from './json';

/**
 * A folder that a caller named, as a path.
 *
 * @param what names the call in messages
 * @throws {WarpsightError} ERR_ARGUMENT if it is neither a path nor a file: URL of this machine
 */
export function folderPath(what: string, folder: unknown): string {
  const href = typeof folder === 'object' && folder !== null && 'href' in folder ? folder.href : undefined;
  if (typeof href === 'string' && href.startsWith('file:')) {
    try {
      return fileURLToPath(href);
    } catch (cause) {
      throw new WarpsightError('ERR_ARGUMENT', `${what}: the URL is not one of a folder of this machine: it is ${href}`, {
        cause,
      });
    }
  }
  if (typeof folder === 'string' && folder !== '' && !folder.includes('\0')) return folder;
  throw new WarpsightError('ERR_ARGUMENT', `${what}: the folder must be a path or a file: URL: it is ${shown(folder)}`);
}
