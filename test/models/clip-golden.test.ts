import { describeClipGolden, kClipFixtures } from './golden';

for (const folder of kClipFixtures) describeClipGolden(folder, { device: 'cpu', dtype: 'float32' });
