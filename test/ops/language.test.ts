import { describeLanguageOps } from './language';

describeLanguageOps('cpu', 'float32');
