// Compiled against the packed tarball by scripts/check-package.mjs: what a TypeScript program with `import` sees.
import { CLIP, WarpsightError, ZeroShotClassifier } from 'warpsight';

const clip = await CLIP.fromPretrained();
const classifier = new ZeroShotClassifier(clip, ['cat', 'dog'], { template: 'a photo of a {}' });
try {
  const one = await classifier.classify('cat.jpg', { topK: 1 });
  const label: string = one.label;
  const many = await classifier.classify(['cat.jpg', new Uint8Array(8)]);
  const scores: number[] = many.map((result) => result.score);
  // @ts-expect-error a picture is no number
  await classifier.classify(7);
  console.log(label, scores);
} catch (error) {
  if (error instanceof WarpsightError && error.code === 'ERR_IMAGE') console.error(error.message);
} finally {
  classifier.dispose();
  clip.dispose();
}
