import { describeOpGoldens } from './golden';

describeOpGoldens('cpu');
