import { describeViltGolden, kViltFixtures } from './vilt-golden';

for (const folder of kViltFixtures) describeViltGolden(folder, { device: 'cpu', dtype: 'float32' });
