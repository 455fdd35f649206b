// exit HOW MICRO LARGE: ends the process in a certain way while work is in flight in the main thread.
import { startWork } from './work';

const [how, micro = '', large = ''] = process.argv.slice(2);

async function main(): Promise<void> {
  const { begun, all } = await startWork(micro, large);
  switch (how) {
    case 'natural end': // nobody waits, but what was asked for is done first
      all.then(() => console.log('all done'));
      return;
    case 'process.exit()':
      await begun;
      return process.exit(7);
    case 'process.exit() at once':
      return process.exit(7);
    case 'uncaught exception':
      await begun;
      setImmediate(() => {
        throw new Error('planned');
      });
      return;
    case 'unhandled rejection':
      await begun;
      Promise.reject(new Error('planned'));
      return;
    case 'exit in an exit handler':
      process.on('exit', () => process.exit(7));
      await begun;
      return process.exit(3);
  }
}

main();
