import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect } from 'chai';

const root = resolve(__dirname, '../../..'); // from dist/test/scripts

function node(code: string, env: NodeJS.ProcessEnv = {}) {
  const args = ['--input-type=module', '-e', code];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  return { status, stdout: stdout.trim(), stderr };
}

const gencode = (archs: string) =>
  node(`import { gencode } from './scripts/toolchain.mjs'; console.log(JSON.stringify(gencode(${JSON.stringify(archs)})))`);

describe('native/sources.json', () => {
  it('lists every source once, and nothing that is not there', () => {
    const lists: Record<string, readonly string[]> = JSON.parse(readFileSync(join(root, 'native', 'sources.json'), 'utf8'));
    const listed = Object.values(lists).flat().sort();
    const files = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' }).map((file) => `native/${file}`);
    // libFuzzer has a main of its own
    const sources = files.filter((file) => /\.(cpp|cu)$/.test(file) && !file.endsWith('_fuzz.cpp')).sort();
    expect(listed).deep.equal(sources);
  });
});

describe('the build scripts', () => {
  for (const [archs, expected] of [
    ['all', ['arch=compute_80,code=[sm_80,sm_86,sm_89]', 'arch=compute_90a,code=sm_90a']],
    ['all;ptx', ['arch=compute_80,code=[sm_80,sm_86,sm_89,compute_80]', 'arch=compute_90a,code=sm_90a']],
    ['90a;80', ['arch=compute_80,code=sm_80', 'arch=compute_90a,code=sm_90a']],
    ['90', ['arch=compute_90a,code=sm_90a']],
    ['90,90a 86', ['arch=compute_86,code=sm_86', 'arch=compute_90a,code=sm_90a']],
    ['120;100a;121;ptx', ['arch=compute_100a,code=sm_100a', 'arch=compute_120,code=[sm_120,sm_121,compute_120]']],
  ] as const) {
    it(`translate WARPSIGHT_CUDA_ARCHS=${archs} into one front end for each major number`, () => {
      expect(JSON.parse(gencode(archs).stdout)).deep.equal(expected);
    });
  }

  it('refuse PTX where there is none that a later GPU takes', () => {
    const { status, stderr } = gencode('90a;ptx');
    expect(status).equal(1);
    expect(stderr).equal(
      'warpsight: WARPSIGHT_CUDA_ARCHS: ptx needs an architecture that is no variant, such as 80, beside it: "90a;ptx"\n',
    );
  });

  it('refuse an architecture that is none', () => {
    const { status, stderr } = gencode('hopper');
    expect(status).equal(1);
    expect(stderr).equal(
      'warpsight: WARPSIGHT_CUDA_ARCHS: "hopper" is no compute capability: give native, all, or a list such as 80;90a;ptx\n',
    );
  });

  it('name the packages where a compiler is missing', () => {
    const { status, stderr } = node("import { requirePrerequisites } from './scripts/toolchain.mjs'; requirePrerequisites()", {
      PATH: '/nonexistent',
      CXX: '',
    });
    if (process.platform === 'win32') return;
    expect(status).equal(1);
    expect(stderr).match(/C\+\+20 compiler.*is needed/);
    expect(stderr).match(/apt: {4}sudo apt-get install g\+\+\n {2}brew: {3}brew install .*\n {2}winget: winget install /);
  });

  it('say what is missing where there is neither CMake nor Python with make', () => {
    const code = "import { requirePrerequisites } from './scripts/toolchain.mjs'; requirePrerequisites()";
    const { status, stderr } = node(code, { WARPSIGHT_CMAKE: '0', PYTHON: '/nonexistent' });
    if (process.platform === 'win32') return;
    expect(status).equal(1);
    expect(stderr).match(
      /CMake, or Python 3 with make, is needed.*\n.*apt-get install cmake\n.*brew install cmake\n.*Kitware\.CMake/,
    );
  });

  it('leave CUDA out where WARPSIGHT_CUDA=0 says so', () => {
    const code = "import { cudaWanted } from './scripts/toolchain.mjs'; console.log(cudaWanted() === undefined)";
    expect(node(code, { WARPSIGHT_CUDA: '0' }).stdout).equal('true');
  });
});
