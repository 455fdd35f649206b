// Early fusion: a question about a picture, read together by one encoder.
// node examples/early-fusion.js ./vilt-b32-finetuned-vqa photo.jpg 'How many cats are there?'
const { ViLT } = require('warpsight');

async function main([folder, picture, question]) {
  const vilt = await ViLT.fromPretrained(folder);
  for (const { label, score } of await vilt.answer(picture, question, { topK: 3 })) {
    console.log(`${(100 * score).toFixed(1).padStart(5)} %  ${label}`);
  }
  vilt.dispose();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
