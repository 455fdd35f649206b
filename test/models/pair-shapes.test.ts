import { describePairShapes } from './pair-shapes';

describePairShapes('cpu');
