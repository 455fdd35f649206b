import { expect } from 'chai';
import { TextStream } from '../../lib/generate/text-stream';

/** Ids are bytes: what byte tokens of a tokenizer decode to, U+FFFD for what is no UTF-8. */
const decode = (ids: readonly number[]): string => new TextDecoder().decode(Uint8Array.from(ids));

function pieces(bytes: Iterable<number>, stop: readonly string[] = []): string[] {
  const stream = new TextStream(decode, stop);
  const given: string[] = [];
  for (const id of bytes) {
    given.push(stream.push(id));
    if (stream.stopped) return given.filter((piece) => piece !== '');
  }
  return [...given, stream.flush()].filter((piece) => piece !== '');
}

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

// F16
describe('TextStream', () => {
  it('never splits a character: each comes whole with its last token', () => {
    expect(pieces(bytesOf('a🦙🦊é'))).to.deep.equal(['a', '🦙', '🦊', 'é']);
    expect(pieces([0xf0, 0x9f, 0xa6, 0x99])).to.deep.equal(['🦙']);
    for (const text of ['naïve façade', '狐狸很快', '👩‍👩‍👧 family', 'हिन्दी', '\u{1F98A}\u0301x']) {
      const given = pieces(bytesOf(text));
      expect(given.join('')).to.equal(text);
      for (const piece of given) expect(piece).not.to.include('\ufffd');
    }
  });

  it('gives what is left at the end, also half a character', () => {
    expect(pieces([...bytesOf('ok'), 0xf0, 0x9f]).join('')).to.equal('ok\ufffd');
  });

  it('does not wait for ever for a character that never ends', () => {
    const stream = new TextStream(decode, []);
    const given = [0xff, 0xff, 0xff, 0xff, 0xff].map((id) => stream.push(id)).join('');
    expect(given).to.match(/^\ufffd+$/);
  });

  it('joins to the whole text for bytes of any kind', () => {
    let state = 1;
    for (let round = 0; round < 200; round++) {
      const bytes = Array.from({ length: 1 + (round % 23) }, () => {
        state = (state * 1103515245 + 12345) % 2147483648;
        return (state >> 8) % 256;
      });
      const text = pieces(bytes).join('');
      expect(text.length, String(bytes)).to.be.at.least(1);
      expect(text.replaceAll('\ufffd', '')).to.equal(decode(bytes).replaceAll('\ufffd', ''));
    }
  });

  it('stops before a stop text wherever its tokens are cut, and holds back what may begin one', () => {
    expect(pieces(bytesOf('one END two'), ['END']).join('')).to.equal('one ');
    expect(pieces(bytesOf('one EN two'), ['END']).join('')).to.equal('one EN two');
    expect(pieces(bytesOf('one EN'), ['END']).join('')).to.equal('one EN');
    expect(pieces(bytesOf('ababac'), ['abac']).join('')).to.equal('ab');
    expect(pieces(bytesOf('x🦙y'), ['🦙']).join('')).to.equal('x');
    expect(pieces(bytesOf('first second'), ['second', 'first']).join('')).to.equal('');
    for (const piece of pieces(bytesOf('a E EN ENx'), ['END'])) expect(piece).not.to.match(/^(E|EN)$/);
  });
});
