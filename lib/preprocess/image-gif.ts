/** A GIF's first frame as a GIF of its own, and where it stands on the canvas. */
export interface GifFrame {
  readonly bytes: Buffer;
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly canvasWidth: number;
  readonly canvasHeight: number;
  /** Colour of the canvas around the frame: the transparent index, else index 0. */
  readonly around: readonly [number, number, number];
  readonly transparent: boolean;
}

/**
 * Cuts the first frame out of a GIF. A decoder that composes frames loses the colour of a transparent pixel; PIL keeps it, so the frame is
 * made opaque unless `keepTransparency`. Later frames, which may be many or broken, are never decoded.
 *
 * @returns a sentence where the file is no whole frame
 * @see CompuServe 1990, Graphics Interchange Format 89a, sections 17 to 27; PIL's GifImagePlugin for what surrounds the frame
 */
export function firstGifFrame(file: Buffer, keepTransparency: boolean): GifFrame | string {
  const cut = 'the GIF ends before its first frame does';
  if (file.length < 13) return cut;
  const screenFlags = file[10]!;
  const globalColours = screenFlags & 0x80 ? 3 << ((screenFlags & 7) + 1) : 0; // bytes
  let at = 13 + globalColours;
  let control: Buffer | undefined; // the graphic control extension's 4 bytes: flags, delay, transparent index

  for (;;) {
    const mark = file[at];
    if (mark === undefined) return cut;
    if (mark === 0x3b) return 'the GIF has no frame';
    if (mark === 0x2c) break;
    if (mark !== 0x21) {
      at++; // bytes between blocks are passed over, as PIL does
      continue;
    }
    if (file[at + 1] === 0xf9 && file[at + 2] === 4) control = file.subarray(at + 3, at + 7);
    const end = endOfBlocks(file, at + 2);
    if (end === undefined) return cut;
    at = end;
  }

  if (at + 11 > file.length) return cut;
  const [left, top, width, height] = [1, 3, 5, 7].map((i) => file.readUInt16LE(at + i)) as [number, number, number, number];
  if (width === 0 || height === 0) return `the GIF's first frame is ${width} x ${height}`;
  const frameFlags = file[at + 9]!;
  const localColours = frameFlags & 0x80 ? 3 << ((frameFlags & 7) + 1) : 0;
  const data = at + 10 + localColours;
  const end = endOfBlocks(file, data + 1);
  if (end === undefined) return cut;

  const colours = localColours ? file.subarray(at + 10, data) : file.subarray(13, 13 + globalColours);
  const palette = colours.length > 0 ? colours : kGreys;
  const transparent = control !== undefined && (control[0]! & 1) === 1;
  const index = transparent ? control![3]! * 3 : 0;

  const screen = Buffer.alloc(13);
  screen.write('GIF89a', 'latin1');
  screen.writeUInt16LE(width, 6);
  screen.writeUInt16LE(height, 8);
  screen[10] = 0xf0 | (Math.log2(palette.length / 3) - 1);
  const frame = Buffer.alloc(10);
  frame[0] = 0x2c;
  frame.writeUInt16LE(width, 5);
  frame.writeUInt16LE(height, 7);
  frame[9] = frameFlags & 0x40; // interlaced or not; the table of colours is global now
  const extension = keepTransparency && transparent ? Buffer.from([0x21, 0xf9, 4, 1, 0, 0, control![3]!, 0]) : Buffer.alloc(0);

  return {
    bytes: Buffer.concat([screen, palette, extension, frame, file.subarray(data, end), Buffer.from([0x3b])]),
    left,
    top,
    width,
    height,
    canvasWidth: Math.max(file.readUInt16LE(6), left + width),
    canvasHeight: Math.max(file.readUInt16LE(8), top + height),
    around: [palette[index] ?? 0, palette[index + 1] ?? 0, palette[index + 2] ?? 0],
    transparent,
  };
}

/** A GIF without any table of colours is grey. */
const kGreys = Buffer.from(Array.from({ length: 768 }, (_, i) => Math.floor(i / 3)));

/** The position after a chain of sub-blocks (a length, that many bytes, … , 0), or undefined where the file ends first. */
function endOfBlocks(file: Buffer, start: number): number | undefined {
  let at = start;
  for (;;) {
    const length = file[at];
    if (length === undefined) return undefined;
    at += 1 + length;
    if (length === 0) return at;
  }
}
