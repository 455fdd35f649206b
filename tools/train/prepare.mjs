// Draws the training pictures and the test pictures, and collects the captions.
//
// usage    node prepare.mjs <work folder>          the packages of package.json are looked up in <work folder>/node_modules
//          node prepare.mjs <work folder> --test   only the test pictures, for which @iconify-json/openmoji and sharp are enough
// reads    the icon packages, emojibase-data, emojilib, and the stamps of Debian's tuxpaint-stamps-default where installed
// writes   <work folder>/train.rgba    uint8 [n, 80, 80, 4], straight alpha, one picture per entry of train.json
//          <work folder>/train.json    { size, pictures: [{ set, icon, concept, tone, held }], concepts: { name: { names, words } } }
//          <work folder>/test/*.png    OpenMoji, 128 x 128 on white; the file is named for the icon. Never read by train.py
//
// A concept is a name without its skin tone ("waving hand"); all packages' drawings of it share one entry.

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

const work = resolve(process.argv[2] ?? '.');
const require = createRequire(join(work, 'package.json'));
const sharp = require('sharp');

const kSize = 80; // the training crop is 64: room for rotation and scale
const kTestSize = 128;
const kStamps = '/usr/share/tuxpaint/stamps';

// Sets whose names define concepts come first; the ones after only add drawings of concepts that exist by then.
const kSets = [
  'noto',
  'twemoji',
  'fluent-emoji-flat',
  'emojione',
  'noto-v1',
  'fluent-emoji',
  'fluent-emoji-high-contrast',
  'emojione-monotone',
];
const kFollowers = ['streamline-emojis', 'fxemoji', 'flat-color-icons', 'ph', 'game-icons', 'icon-park'];
const kTone = /-(medium-light|medium-dark|light|medium|dark)(?:-skin-tone)?(?=-|$)/g;

const readJson = (path) => JSON.parse(fs.readFileSync(path, 'utf8'));
const folder = (set) => join(work, 'node_modules/@iconify-json', set);
const plain = (text) =>
  text
    .toLowerCase()
    .replace(/[_\-:,.!()"“”’]+/g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
const squeezed = (text) => text.toLowerCase().replace(/[^a-z0-9]/g, '');

/** Icons of a set as { name: { body, width, height, left, top } }, without aliases and hidden ones. */
function icons(set) {
  const file = readJson(join(folder(set), 'icons.json'));
  const entries = Object.entries(file.icons).filter(([, icon]) => !icon.hidden);
  const size = (icon) => ({
    left: icon.left ?? 0,
    top: icon.top ?? 0,
    width: icon.width ?? file.width ?? 16,
    height: icon.height ?? file.height ?? 16,
  });
  return new Map(entries.map(([name, icon]) => [name, { body: icon.body, ...size(icon) }]));
}

/** RGBA pixels [size, size, 4], straight alpha. */
function draw({ body, left, top, width, height }, size) {
  const side = Math.max(width, height);
  const box = `viewBox="${left - (side - width) / 2} ${top - (side - height) / 2} ${side} ${side}" width="${size}" height="${size}"`;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="#000" ${box}>${body}</svg>`;
  return sharp(Buffer.from(svg)).ensureAlpha().toColourspace('srgb').raw().toBuffer();
}

/** "waving-hand-dark-skin-tone" → { base: "waving hand", tone: "dark skin tone" }; Fluent's bare "-light" counts only where "-dark" exists too. */
function parse(set, name, all) {
  const matches = [...name.matchAll(kTone)];
  const paired = ['-dark', '-light'].every((tone) => all.has(name.replace(kTone, tone)));
  const isToned = name.includes('skin-tone') || (set.startsWith('fluent-emoji') && matches.length > 0 && paired);
  const tones = isToned ? matches.map((match) => `${match[1].replace('-', ' ')} skin tone`) : [];
  const base = (isToned ? name.replace(kTone, '') : name).replace(/^flag-for-(flag-)?/, 'flag-');
  return { base: plain(base), tone: [...new Set(tones)].join(' ') };
}

await drawTest();
if (process.argv[3] === '--test') process.exit();

async function drawTest() {
  fs.mkdirSync(join(work, 'test'), { recursive: true });
  for (const [name, icon] of icons('openmoji')) {
    const pixels = await draw(icon, kTestSize);
    const image = sharp(pixels, { raw: { width: kTestSize, height: kTestSize, channels: 4 } });
    await image
      .flatten({ background: '#fff' })
      .png()
      .toFile(join(work, 'test', `${name}.png`));
  }
}

const concepts = new Map(); // name → { names: Set, words: Set }
const bySqueezed = new Map();
function concept(name) {
  if (!concepts.has(name)) {
    concepts.set(name, { names: new Set([name]), words: new Set() });
    bySqueezed.set(squeezed(name), name);
  }
  return concepts.get(name);
}

const pictures = [];
const output = fs.openSync(join(work, 'train.rgba'), 'w');
function add(set, icon, name, tone, pixels) {
  // One drawing in 25 is held out to choose settings by, so that OpenMoji is looked at only for the score.
  const held = createHash('sha256').update(`${set}/${icon}`).digest()[0] < 10;
  pictures.push({ set, icon, concept: name, tone, held });
  fs.writeSync(output, pixels);
}

for (const set of kSets) {
  const all = icons(set);
  const chars = fs.existsSync(join(folder(set), 'chars.json')) ? readJson(join(folder(set), 'chars.json')) : {};
  for (const [name, icon] of all) {
    const { base, tone } = parse(set, name, all);
    concept(base);
    add(set, name, base, tone, await draw(icon, kSize));
  }
  for (const [hex, name] of Object.entries(chars)) {
    const { base, tone } = parse(set, name, all);
    if (!tone && concepts.has(base)) concepts.get(base).hex ??= hex;
  }
  console.log(set, pictures.length, concepts.size);
}

const kVariants = /-(?:\d|fill|duotone|bold|one|two)$/;
for (const set of kFollowers) {
  for (const [name, icon] of icons(set)) {
    if (/-(thin|light)$/.test(name)) continue;
    const known = bySqueezed.get(squeezed(name)) ?? bySqueezed.get(squeezed(name.replace(kVariants, '')));
    if (known) add(set, name, known, '', await draw(icon, kSize));
  }
  console.log(set, pictures.length, concepts.size);
}

/** First line of the caption beside a stamp: "A floppy-eared bunny." → "floppy eared bunny". */
function stampName(path) {
  const caption = fs
    .readFileSync(path, 'utf8')
    .split('\n')[0]
    .replace(/\s*\(.*$/, '')
    .replace(/[.!]?\s*$/, '');
  return plain(caption).replace(/^(an?|the|some|one) /, '');
}

const files = fs.existsSync(kStamps) ? fs.readdirSync(kStamps, { recursive: true }).map(String).sort() : [];
for (const file of files.filter((f) => /\.(png|svg)$/.test(f) && !/_mirror|_flip/.test(f))) {
  const caption = join(kStamps, file.replace(/\.(png|svg)$/, '.txt'));
  if (!fs.existsSync(caption) || !fs.statSync(caption).size) continue;
  const name = stampName(caption);
  if (!name || name.split(' ').length > 8) continue;
  const known = bySqueezed.get(squeezed(name)) ?? name;
  const kind = file
    .split('/')
    .slice(0, -1)
    .flatMap((part) => plain(part).split(' '));
  for (const word of kind) concept(known).words.add(word.replace(/s$/, ''));
  const clear = { r: 0, g: 0, b: 0, alpha: 0 };
  const image = sharp(join(kStamps, file))
    .resize(kSize, kSize, { fit: 'contain', background: clear })
    .ensureAlpha()
    .toColourspace('srgb');
  add('tuxpaint-stamps', file, known, '', await image.raw().toBuffer());
}
fs.closeSync(output);
console.log('tuxpaint-stamps', pictures.length, concepts.size);

// Captions: the set's name, Unicode's own label, and keywords (emojibase, emojilib) as further words.
const emojibase = new Map(
  readJson(join(work, 'node_modules/emojibase-data/en/data.json')).map((e) => [e.hexcode.toLowerCase().replace(/-fe0f/g, ''), e]),
);
const emojilib = readJson(join(work, 'node_modules/emojilib/dist/emoji-en-US.json'));
for (const [name, entry] of concepts) {
  const emoji = emojibase.get((entry.hex ?? '').replace(/-fe0f/g, ''));
  const keywords = emoji ? [...(emoji.tags ?? []), ...(emojilib[emoji.emoji] ?? [])] : [];
  if (emoji) entry.names.add(plain(emoji.label));
  if (name.startsWith('flag ')) entry.names.add(name.replace('flag ', 'flag of '));
  for (const word of keywords.map(plain)) if (word && word.length < 30 && !entry.names.has(word)) entry.words.add(word);
}
const listed = Object.fromEntries(
  [...concepts].map(([name, { names, words }]) => [name, { names: [...names], words: [...words] }]),
);
fs.writeFileSync(join(work, 'train.json'), JSON.stringify({ size: kSize, pictures, concepts: listed }));
