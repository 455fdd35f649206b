import { expect } from 'chai';
import { type ErrorCode, WarpsightError } from '../../lib';

/** Runs `fn` and checks the error's code and its whole message. */
export async function expectError(fn: () => unknown, code: ErrorCode, message?: string | RegExp): Promise<WarpsightError> {
  let error: unknown;
  try {
    await fn();
  } catch (thrown) {
    error = thrown;
  }
  if (!error) expect.fail(`no error was thrown where ${code} was expected`);
  if (!(error instanceof WarpsightError)) throw error;
  expect(error.code, error.message).to.equal(code);
  if (typeof message === 'string') expect(error.message).to.equal(message);
  else if (message) expect(error.message).to.match(message);
  return error;
}
