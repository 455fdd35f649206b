// Late fusion: a picture and a text are encoded each by itself, and their features joined to one query.
// node examples/late-fusion.js [picture] [text]
const { join } = require('node:path');
const { CLIP, fusion, ops } = require('warpsight');

const labels = ['rocket', 'car', 'cat', 'pizza', 'star'];

async function main([picture = join(__dirname, 'rocket.jpg'), text = 'star']) {
  const clip = await CLIP.fromPretrained(); // the small model that ships
  const image = await clip.encodeImage(picture, { normalize: true });
  const words = await clip.encodeText(`a photo of a ${text}`, { normalize: true });
  const classes = await clip.encodeText(
    labels.map((label) => `a photo of a ${label}`),
    { normalize: true },
  );
  const both = new fusion.late.WeightedSum([0.5, 0.5]);
  for (const [name, query] of [
    ['picture', image],
    ['text', words],
    ['both', both.forward([{ features: image }, { features: words }])],
  ]) {
    const cosines = await ops.scaledLogits(query, classes, 0).read();
    console.log(name.padEnd(8), labels.map((label, i) => `${label} ${cosines[i].toFixed(2)}`).join('  '));
  }
  clip.dispose();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
