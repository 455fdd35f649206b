import { describeBlipGolden } from './blip-golden';

describeBlipGolden({ device: 'cpu', dtype: 'float32' });
