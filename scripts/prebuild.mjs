// prepack: what the tarball carries besides sources: dist/lib, and the CPU addon for this platform in prebuilds/.
// lib/native.ts looks for it under the same name.
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buildWithCmake, buildWithGyp } from './addon.mjs';
import { requireDependencies } from './install.mjs';
import { capture, root } from './process.mjs';
import { cudaWanted, findCmake, requirePrerequisites } from './toolchain.mjs';
import { compile } from './typescript.mjs';

requirePrerequisites();
requireDependencies();
compile('tsconfig.lib.json');
const folder = cudaWanted() ? 'build-cpu' : 'build'; // a build with CUDA stays where it is
const addon = findCmake() ? buildWithCmake({ folder }) : buildWithGyp(folder === 'build' ? {} : { folder });

// glibc reports its version; on Linux without it the C library is musl
const musl = process.platform === 'linux' && process.report.getReport().header.glibcVersionRuntime === undefined;
const target = join(root, 'prebuilds', `${process.platform}-${process.arch}${musl ? '-musl' : ''}`);
rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
copyFileSync(addon, join(target, 'warpsight.node'));
if (process.platform === 'linux') capture('strip', ['--strip-unneeded', join(target, 'warpsight.node')]);
console.log(join(target, 'warpsight.node'));
