import { expect } from 'chai';
import { JsonObject, shown } from '../../lib/checkpoint/json';
import { expectError } from './files';

const object = JsonObject.parse('f.json', { n: 1.5, yes: true, name: 'x', none: null, inner: { n: 2, deep: { s: 3 } } });

describe('JsonObject', () => {
  it('reads fields of their types, and defaults where they are absent or null', () => {
    expect([object.number('n', 0, 2), object.boolean('yes'), object.string('name')]).to.deep.equal([1.5, true, 'x']);
    expect([object.integer('none', 0, 9, 7), object.integer('gone', 0, 9, 8)]).to.deep.equal([7, 8]);
    expect([object.string('none'), object.object('none'), object.object('gone')]).to.deep.equal([
      undefined,
      undefined,
      undefined,
    ]);
    expect(object.object('inner')?.integer('n', 0, 9)).to.equal(2);
    expect(object.choice('name', { x: 10, y: 20 })).to.equal(10);
  });

  it('names file, field, rule and value', () => {
    expectError(() => object.integer('n', 0, 2), 'ERR_CONFIG', 'f.json: n must be an integer from 0 to 2: it is 1.5');
    expectError(() => object.integer('gone', 0, 2), 'ERR_CONFIG', 'f.json: gone must be an integer from 0 to 2: it is missing');
    expectError(() => object.boolean('n'), 'ERR_CONFIG', 'f.json: n must be true or false: it is 1.5');
    expectError(() => object.choice('name', { y: 20 }), 'ERR_CONFIG', 'f.json: name must be one of y: it is "x"');
    expectError(
      () => object.object('inner')?.object('deep')?.string('s'),
      'ERR_CONFIG',
      'f.json: inner.deep.s must be a string: it is 3',
    );
    expectError(
      () => JsonObject.parse('f.json', 'x', 'ERR_CHECKPOINT'),
      'ERR_CHECKPOINT',
      'f.json must hold an object: it holds "x"',
    );
  });

  it('knows only the fields of the file itself', () => {
    expect(object.get('toString')).to.equal(undefined);
    expect(JsonObject.parse('f.json', JSON.parse('{"__proto__": {"n": 1}}')).get('n')).to.equal(undefined);
  });
});

describe('shown()', () => {
  it('cuts what is long', () => {
    expect(shown([1, 2])).to.equal('[1, 2]');
    expect(shown('a'.repeat(1000))).to.have.length(80);
    expect(shown(undefined)).to.equal('missing');
  });
});
