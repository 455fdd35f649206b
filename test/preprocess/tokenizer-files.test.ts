import { expect } from 'chai';
import { WarpsightError } from '../../lib/errors';
import { Tokenizer } from '../../lib/preprocess/tokenizer';
import { endTokenizerThread } from '../../lib/preprocess/tokenizer-thread';
import { gemmaJson, removeTemporaryFolders, siglipJson, temporaryFolder } from './tokenizer-reference';

after(async () => {
  removeTemporaryFolders();
  await endTokenizerThread();
});

/** A whole CLIP tokenizer of a few words. */
const vocab = { a: 0, b: 1, 'a</w>': 2, 'b</w>': 3, 'ab</w>': 4, '<|startoftext|>': 5, '<|endoftext|>': 6 };
const bpe = { type: 'BPE', unk_token: '<|endoftext|>', end_of_word_suffix: '</w>', vocab, merges: ['a b</w>'] };

async function failure(files: Readonly<Record<string, string | object>>): Promise<string> {
  const folder = temporaryFolder(files);
  try {
    await Tokenizer.fromPretrained(folder);
  } catch (error) {
    expect(error).to.be.instanceOf(WarpsightError).with.property('code', 'ERR_TOKENIZER');
    return error instanceof Error ? error.message.replaceAll(folder, 'folder') : '';
  }
  return 'nothing was thrown';
}

describe('tokenizer files that are wrong', () => {
  const json = (model: object, rest: object = {}): Record<string, object> => ({
    'tokenizer.json': { model: { ...bpe, ...model }, ...rest },
  });

  for (const [what, files, message] of [
    [
      'nothing',
      {},
      'tokenizer "folder": there must be a tokenizer.json, or vocab.json and merges.txt, or vocab.txt, in this folder',
    ],
    ['vocab.json alone', { 'vocab.json': vocab }, /there must be a tokenizer.json, or vocab.json and merges.txt/],
    ['no JSON', { 'tokenizer.json': '{"model": ' }, /^tokenizer "folder.tokenizer.json": it is not JSON: SyntaxError/],
    ['JSON nested too deeply', { 'tokenizer.json': '['.repeat(1_000_000) }, /^tokenizer "folder.tokenizer.json": it is not JSON/],
    ['an array', { 'tokenizer.json': '[]' }, 'tokenizer "folder/tokenizer.json": the file must be an object, it is an array'],
    ['no model', { 'tokenizer.json': {} }, 'tokenizer "folder/tokenizer.json": model must be an object, it is missing'],
    ['another kind of model', json({ type: 'Magic' }), /model.type must be BPE, WordPiece or Unigram, it is "Magic"$/],
    ['a vocabulary that is an array', json({ vocab: ['a'] }), /model.vocab must be an object, it is an array$/],
    ['an empty vocabulary', json({ vocab: {}, merges: [] }), /its vocabulary is empty$/],
    [
      'a text for an id',
      json({ vocab: { ...vocab, c: '7' } }),
      /the id of "c" must be an integer from 0 to 16777215, it is "7"$/,
    ],
    ['a negative id', json({ vocab: { ...vocab, c: -1 } }), /the id of "c" must be .* it is -1$/],
    ['an absurd id', json({ vocab: { ...vocab, c: 2 ** 40 } }), /the id of "c" must be .* it is 1099511627776$/],
    ['no merges', json({ merges: 'a b' }), /model.merges must be an array, it is string$/],
    [
      'a merge of three',
      json({ merges: ['a b c'] }),
      /model.merges\[0\] must be two tokens, "a b" or \["a", "b"\], it is "a b c"$/,
    ],
    ['a merge of numbers', json({ merges: [[1, 2]] }), /model.merges\[0\] must be two tokens/],
    [
      'a merge of unknown tokens',
      json({ merges: [['a', 'z']] }),
      /merge 0, "a z", needs the token "z", which is not in the vocabulary$/,
    ],
    [
      'a merge to an unknown token',
      json({ merges: ['b a'] }),
      /merge 0, "b a", needs the token "ba", which is not in the vocabulary$/,
    ],
    ['added tokens that are no array', json({}, { added_tokens: {} }), /added_tokens must be an array, it is object$/],
    [
      'an added token without text',
      json({}, { added_tokens: [{ id: 3 }] }),
      /the content of an added token must be a string, it is missing$/,
    ],
    ['an empty added token', json({}, { added_tokens: [{ id: 3, content: '' }] }), /an added token is empty$/],
    ['a normaliser that is a text', json({}, { normalizer: 'NFC' }), /normalizer must be an object, it is string$/],
    [
      'a normaliser nobody knows',
      json({}, { normalizer: { type: 'Rot13' } }),
      /^tokenizer "folder": Unknown Normalizer type: Rot13$/,
    ],
    [
      'a pattern that is no expression',
      json({}, { pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Removed', invert: true } }),
      /^tokenizer "folder": .*\(/,
    ],
    [
      'an end mark outside the vocabulary',
      json({}, { post_processor: { type: 'RobertaProcessing', sep: ['[SEP]', 9], cls: ['<|startoftext|>', 5] } }),
      /the post-processor adds "\[SEP\]", which is not in the vocabulary$/,
    ],
    [
      'an end mark that only the configuration knows',
      { ...json({}), 'tokenizer_config.json': { eos_token: '[END]' } },
      'tokenizer "folder": the end mark "[END]" is not in the vocabulary',
    ],
    [
      'a configuration that is no object',
      { ...json({}), 'tokenizer_config.json': '7' },
      /tokenizer_config.json": the file must be an object/,
    ],
    [
      'a Unigram vocabulary of words',
      json({ type: 'Unigram', vocab: ['a'], unk_id: 0 }),
      /model.vocab\[0\] must be \[piece, score\], it is "a"$/,
    ],
    [
      'a Unigram model without unknown',
      json({ type: 'Unigram', vocab: [['a', 0]] }),
      /model.unk_id must be the index of a piece, 0 to 0, it is undefined$/,
    ],
    [
      'vocabulary and merges of another model',
      { 'vocab.json': { a: 0, Ġa: 1 }, 'merges.txt': '' },
      /a vocabulary without <\/w> needs a tokenizer.json$/,
    ],
    [
      'the class of another model',
      { 'vocab.json': vocab, 'merges.txt': 'a b</w>', 'tokenizer_config.json': { tokenizer_class: 'GPT2Tokenizer' } },
      /GPT2Tokenizer needs a tokenizer.json$/,
    ],
    [
      'a broken merges.txt',
      { 'vocab.json': vocab, 'merges.txt': '#version: 0.2\na b</w>\nab' },
      /merges.txt": each line must be two tokens.* it is "ab"$/,
    ],
  ] as const) {
    it(`${what}: ERR_TOKENIZER`, async () => {
      const given = await failure(files);
      if (typeof message === 'string') expect(given).to.equal(message);
      else expect(given).to.match(message);
    });
  }

  it('a folder that is not there, and a folder in place of a file: ERR_TOKENIZER', async () => {
    for (const folder of ['/no/such/folder', __filename]) {
      const error: unknown = await Tokenizer.fromPretrained(folder).catch((e: unknown) => e);
      expect(error)
        .to.be.instanceOf(WarpsightError)
        .with.property('message')
        .that.matches(/there must be a tokenizer.json/);
    }
  });

  it('the next tokenizer loads as if nothing had been', async () => {
    const clip = await Tokenizer.fromPretrained(temporaryFolder(json({})));
    expect(clip.decode([4])).to.equal('ab</w>');
  });
});

describe('tokenizer files that are unusual', () => {
  it('vocab.json and merges.txt alone are a CLIP tokenizer, if its words end in </w>', async () => {
    const clip = await Tokenizer.fromPretrained(
      temporaryFolder({ 'vocab.json': vocab, 'merges.txt': '#version: 0.2\r\na b</w>\r\n' }),
    );
    expect(clip.encode('AB  a')).to.deep.equal([5, 4, 2, 6]);
    expect([clip.bosTokenId, clip.eosTokenId, clip.padTokenId, clip.modelMaxLength]).to.deep.equal([5, 6, 6, 77]);
  });

  it('a token added above the end mark gives its id, and is the largest one', async () => {
    const files = {
      'vocab.json': vocab,
      'merges.txt': 'a b</w>',
      'tokenizer_config.json': { added_tokens_decoder: { 9: { content: '<|image|>', special: true } } },
    };
    const clip = await Tokenizer.fromPretrained(temporaryFolder(files));
    expect(clip.encode('a <|image|> b')).to.deep.equal([5, 2, 9, 3, 6]);
    expect([clip.largestId, clip.vocabularySize]).to.deep.equal([9, 8]);
    expect(() => clip.decode([8])).to.throw('decode: 8 is not an id of this vocabulary, 0 to 9');
  });

  it("the model's number of positions counts where it is less than the tokenizer's", async () => {
    const files = { 'tokenizer.json': { model: bpe }, 'tokenizer_config.json': { model_max_length: 77 } };
    const config = { text_config: { max_position_embeddings: 40 }, text_config_dict: { max_position_embeddings: 20 } };
    const clip = await Tokenizer.fromPretrained(temporaryFolder({ ...files, 'config.json': { model_type: 'clip', ...config } }));
    expect(clip.modelMaxLength).to.equal(20);
  });

  it('merges as pairs, and a model without a type', async () => {
    const clip = await Tokenizer.fromPretrained(
      temporaryFolder({ 'tokenizer.json': { model: { ...bpe, type: undefined, merges: [['a', 'b</w>']] } } }),
    );
    expect(clip.encode('ab')).to.deep.equal([4]);
    const siglip = await Tokenizer.fromPretrained(temporaryFolder({ 'tokenizer.json': siglipJson() }));
    const gemma = await Tokenizer.fromPretrained(temporaryFolder({ 'tokenizer.json': gemmaJson() }));
    expect([siglip.vocabularySize, gemma.vocabularySize]).to.deep.equal([20, 278]);
  });
});
