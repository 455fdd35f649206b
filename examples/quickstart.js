// The README's first program: a picture, a few class names, a bar chart. Run it with `npm run quickstart`.
const { join } = require('node:path');
const { CLIP, ZeroShotClassifier } = require('warpsight');

async function main() {
  const clip = await CLIP.fromPretrained(); // the small model that ships
  const classifier = new ZeroShotClassifier(clip, ['cat', 'rocket', 'car', 'pizza']);
  const { scores } = await classifier.classify(join(__dirname, 'rocket.jpg'));
  for (const { label, score } of scores) {
    console.log(`${label.padEnd(8)} ${'█'.repeat(Math.round(score * 40)).padEnd(40)} ${(100 * score).toFixed(1)} %`);
  }
  classifier.dispose();
  clip.dispose();
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
