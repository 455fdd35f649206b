// Mid fusion behind late fusion: CLIP finds the pictures that may fit a text, BLIP judges the best of them by reading both.
// node examples/mid-fusion.js ./blip-itm-base-coco 'a rocket at its start' photos/*.jpg
const { BlipImageTextMatching, CLIP, encodeCandidates, retrieveAndRerank } = require('warpsight');

async function main([folder, text, ...images]) {
  const retrieve = await CLIP.fromPretrained(); // the small model that ships; a larger one finds better
  const rerank = await BlipImageTextMatching.fromPretrained(folder);
  const candidates = await encodeCandidates({ images }, { retrieve, rerank }); // once, however many texts come
  for (const { index, score, retrieveScore } of await retrieveAndRerank(text, candidates, { retrieve, rerank, k: 5 })) {
    console.log(`${(100 * score).toFixed(1).padStart(5)} %  (cosine ${retrieveScore.toFixed(2)})  ${images[index]}`);
  }
  for (const used of [candidates, retrieve, rerank]) used.dispose();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
