import { describeFusion } from './compositions';

describeFusion('cpu');
