// Compiled against the packed tarball by scripts/check-package.mjs: what a TypeScript program with `require` sees.
import warpsight = require('warpsight');

async function main(): Promise<number[][]> {
  const clip: warpsight.CLIP = await warpsight.CLIP.fromPretrained();
  const embeds = await clip.encodeText(['a cat'], { normalize: true });
  const values: Float32Array = await embeds.read();
  console.log(values.length, embeds.shape);
  return clip.similarity('cat.jpg', ['a cat', 'a dog']);
}

main().catch((error: unknown) => console.error(error));
