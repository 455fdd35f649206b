// dropped FOLDER: what nobody disposes is freed by the collector.
import { CLIP, device, Tensor } from '../../../lib';
import { collect, print } from './measure';

const [folder = ''] = process.argv.slice(2);

async function useAndDrop(): Promise<{ readonly weights: number; readonly tensors: number }> {
  const clip = await CLIP.fromPretrained(folder, { device: 'cpu' });
  const text = await clip.encodeText('a red circle');
  await text.read();
  for (let i = 0; i < 20; i++) await Tensor.from(new Float32Array(250_000), [250_000]).read();
  return device('cpu').memory();
}

async function main(): Promise<void> {
  const held = await useAndDrop();
  for (let i = 0; i < 10; i++) await collect();
  const { weights, tensors } = device('cpu').memory();
  print({ held: { weights: held.weights, tensors: held.tensors }, left: { weights, tensors } });
}

main();
