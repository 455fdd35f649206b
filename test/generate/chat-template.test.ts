import { expect } from 'chai';
import { type ChatMessage, ChatTemplate, checkMessages } from '../../lib/generate/chat-template';
import { ModelFolders } from '../field/model-folder';
import { expectError } from '../support/errors';

// The form of llava-hf's: a loop over messages, contents as parts, names of roles in capitals.
const kTemplate =
  "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: " +
  "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} " +
  '{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}';
const kTokens = { bos_token: '<s>', eos_token: { content: '</s>', special: true } };
const kQuestion: readonly ChatMessage[] = [
  { role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'What is it?' }] },
  { role: 'assistant', content: 'A fox.' },
  { role: 'user', content: 'Sure?' },
];
const kPrompt = '<s>USER: <image>\nWhat is it? ASSISTANT: A fox. USER: Sure? ASSISTANT:';

describe('ChatTemplate', () => {
  const folders = new ModelFolders();
  const render = async (template: string, messages = kQuestion): Promise<string> => {
    const folder = folders.make({ 'chat_template.jinja': template, 'tokenizer_config.json': kTokens });
    return (await ChatTemplate.fromPretrained(folder))!.render(messages, { parts: true });
  };

  it('renders a conversation up to where the model answers, from every file that may hold the template', async () => {
    const forms: readonly Record<string, string | object>[] = [
      { 'chat_template.jinja': kTemplate, 'tokenizer_config.json': kTokens },
      { 'chat_template.json': { chat_template: kTemplate }, 'tokenizer_config.json': kTokens },
      { 'tokenizer_config.json': { ...kTokens, chat_template: kTemplate } },
      {
        'tokenizer_config.json': {
          ...kTokens,
          chat_template: [
            { name: 'tool_use', template: 'wrong' },
            { name: 'default', template: kTemplate },
          ],
        },
      },
      // a file of its own goes before the tokenizer's
      { 'chat_template.jinja': kTemplate, 'tokenizer_config.json': { ...kTokens, chat_template: 'wrong' } },
      { 'chat_template.json': { chat_template: kTemplate }, 'tokenizer_config.json': { ...kTokens, chat_template: 'wrong' } },
    ];
    for (const files of forms) {
      const template = await ChatTemplate.fromPretrained(folders.make(files));
      expect(await template?.render(kQuestion, { parts: true }), Object.keys(files).join()).to.equal(kPrompt);
    }
  });

  it('gives texts to templates that expect texts', async () => {
    const source = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}";
    const template = await ChatTemplate.fromPretrained(folders.make({ 'chat_template.jinja': source }));
    const messages: readonly ChatMessage[] = [{ role: 'user', content: [{ type: 'text', text: 'a' }, { type: 'image' }] }];
    expect(await template!.render(messages, { parts: false })).to.equal('[a]');
  });

  it('is undefined where a checkpoint has none', async () => {
    expect(await ChatTemplate.fromPretrained(folders.make({ 'tokenizer_config.json': kTokens }))).to.equal(undefined);
    expect(await ChatTemplate.fromPretrained(folders.make({}))).to.equal(undefined);
  });

  it('refuses a template that is none', async () => {
    for (const chat_template of [7, {}, [], [{ name: 'other', template: kTemplate }], [null], [{ name: 'default' }]]) {
      const folder = folders.make({ 'chat_template.json': { chat_template } });
      await expectError(
        () => ChatTemplate.fromPretrained(folder),
        'ERR_CONFIG',
        /chat_template\.json: chat_template must be a template/,
      );
    }
    const folder = folders.make({ 'chat_template.jinja': ' '.repeat((1 << 20) + 1) });
    await expectError(() => ChatTemplate.fromPretrained(folder), 'ERR_CONFIG', /1048577 bytes/);
  });

  it('says what a template says', async () => {
    await expectError(
      () => render("{{ raise_exception('roles must alternate') }}"),
      'ERR_CONFIG',
      /failed: .*roles must alternate/,
    );
    await expectError(() => render('{% for %}'), 'ERR_CONFIG', /chat template failed/);
    await expectError(() => render('{{ nothing() }}'), 'ERR_CONFIG', /chat template failed/);
  });

  it('stops a template that never ends, while the event loop goes on', async () => {
    const loop = '{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}';
    let turns = 0;
    const timer = setInterval(() => turns++, 20);
    await expectError(() => render(loop), 'ERR_CONFIG', /did not end within 5 seconds|failed/);
    clearInterval(timer);
    expect(turns).to.be.above(5);
  }).timeout(60_000);

  it('stops a template that prints megabytes or takes gigabytes', async () => {
    const line = 'x'.repeat(1000);
    await expectError(() => render(`{% for i in range(5000) %}${line}{% endfor %}`), 'ERR_CONFIG', /gave 5000000 characters/);
    await expectError(
      () => render("{% set x = ['a' * 1000] %}{{ range(1000000000) | list | length }}"),
      'ERR_CONFIG',
      /chat template/,
    );
    expect(await render(kTemplate)).to.equal(kPrompt);
  }).timeout(60_000);

  it('ends when its signal fires', async () => {
    const template = await ChatTemplate.fromPretrained(
      folders.make({
        'chat_template.jinja': '{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}',
      }),
    );
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    await expectError(() => template!.render(kQuestion, { parts: true, signal: controller.signal }), 'ERR_ABORTED');
    await expectError(() => template!.render(kQuestion, { parts: true, signal: AbortSignal.abort() }), 'ERR_ABORTED');
  });

  it('can not reach the process it runs in', async () => {
    const reach = "{{ messages.constructor.constructor('return process')().env }}";
    await expectError(() => render(reach), 'ERR_CONFIG', /chat template failed/);
  });
});

describe('messages', () => {
  it('must be a conversation', async () => {
    const wrong: readonly unknown[] = [
      undefined,
      [],
      'hello',
      [null],
      [{ role: 'robot', content: 'a' }],
      [{ content: 'a' }],
      [{ role: 'user' }],
      [{ role: 'user', content: 7 }],
      [{ role: 'user', content: [{ type: 'video' }] }],
      [{ role: 'user', content: [{ type: 'text' }] }],
      [{ role: 'user', content: [null] }],
    ];
    for (const messages of wrong) await expectError(() => checkMessages(messages), 'ERR_ARGUMENT', /messages/);
    expect(checkMessages(kQuestion)).to.equal(kQuestion);
  });
});
