"""A plain, slow decoder of rectangles, written from the specifications' text alone.

RFC 6143, section 7.7, and rfbproto for what it lacks. Pixels are tuples of red, green and blue,
0 to 255; nothing is checked, for it is given only what is valid. Shares no line with the engine.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

from vmconnect.vnc.pixel_format import PixelFormat

Colour = tuple[int, int, int]


class Bytes:
    """A sequence of bytes that is read from its beginning to its end."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.data)
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def done(self) -> bool:
        return self.at == len(self.data)


class Reference:
    """The screen that a server's rectangles make."""

    def __init__(
        self, width: int, height: int, form: PixelFormat, colour_map: list[Colour] | None = None
    ):
        self.screen: list[list[Colour]] = [[(0, 0, 0)] * width for _ in range(height)]
        self.form = form
        self.colour_map = colour_map or [(0, 0, 0)] * 256
        self.tight = [zlib.decompressobj() for _ in range(4)]
        self.zlib = zlib.decompressobj()
        self.zrle = zlib.decompressobj()
        self.level = 0

    # Pixels.

    def colour(self, value: int) -> Colour:
        form = self.form
        if not form.true_colour:
            return self.colour_map[value]
        parts = [
            int(((value >> shift) & most) * 255 / most + 0.5)
            for shift, most in (
                (form.red_shift, form.red_max),
                (form.green_shift, form.green_max),
                (form.blue_shift, form.blue_max),
            )
        ]
        return parts[0], parts[1], parts[2]

    def pixel(self, source: Bytes) -> Colour:
        data = source.take(self.form.bits_per_pixel // 8)
        return self.colour(int.from_bytes(data, "big" if self.form.big_endian else "little"))

    def cpixel(self, source: Bytes) -> Colour:
        form = self.form
        if form.bits_per_pixel != 32 or not form.true_colour or form.depth > 24:
            return self.pixel(source)
        used = (
            form.red_max << form.red_shift
            | form.green_max << form.green_shift
            | form.blue_max << form.blue_shift
        )
        order = "big" if form.big_endian else "little"
        if used < 1 << 24:
            return self.colour(int.from_bytes(source.take(3), order))  # type: ignore[arg-type]
        if used & 255 == 0:
            return self.colour(int.from_bytes(source.take(3), order) << 8)  # type: ignore[arg-type]
        return self.pixel(source)

    def is_888(self) -> bool:
        form = self.form
        maxima = form.red_max, form.green_max, form.blue_max
        return (
            form.bits_per_pixel == 32
            and form.true_colour
            and form.depth == 24
            and maxima == (255, 255, 255)
        )

    def tpixel(self, source: Bytes) -> Colour:
        if self.is_888():
            red, green, blue = source.take(3)
            return red, green, blue
        return self.pixel(source)

    def fill(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        for row in range(y, y + height):
            for column in range(x, x + width):
                self.screen[row][column] = colour

    def put(self, x: int, y: int, width: int, height: int, colours: Iterator[Colour]) -> None:
        for row in range(y, y + height):
            for column in range(x, x + width):
                self.screen[row][column] = next(colours)

    # Encodings.

    def rectangle(self, source: Bytes) -> None:
        x, y, width, height = (source.u16() for _ in range(4))
        (encoding,) = struct.unpack(">i", source.take(4))
        decode: Callable[[Bytes, int, int, int, int], None] = {
            0: self.raw,
            1: self.copyrect,
            2: self.rre,
            4: self.corre,
            5: self.hextile,
            6: self.zlib_raw,
            7: self.tight_rectangle,
            15: self.trle_rectangle,
            16: self.zrle_rectangle,
            17: self.zywrle_rectangle,
            -260: self.tight_rectangle,
        }[encoding]
        decode(source, x, y, width, height)

    def raw(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        self.put(x, y, width, height, iter(lambda: self.pixel(source), None))

    def copyrect(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        from_x, from_y = source.u16(), source.u16()
        copied = [
            self.screen[from_y + row][from_x + column]
            for row in range(height)
            for column in range(width)
        ]
        self.put(x, y, width, height, iter(copied))

    def rre(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        count = source.u32()
        self.fill(x, y, width, height, self.pixel(source))
        for _ in range(count):
            colour = self.pixel(source)
            left, top, w, h = (source.u16() for _ in range(4))
            self.fill(x + left, y + top, w, h, colour)

    def corre(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        count = source.u32()
        self.fill(x, y, width, height, self.pixel(source))
        for _ in range(count):
            colour = self.pixel(source)
            left, top, w, h = (source.u8() for _ in range(4))
            self.fill(x + left, y + top, w, h, colour)

    def hextile(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        background = foreground = self.colour(0)
        for top in range(y, y + height, 16):
            for left in range(x, x + width, 16):
                w, h = min(16, x + width - left), min(16, y + height - top)
                mask = source.u8()
                if mask & 1:
                    self.raw(source, left, top, w, h)
                    continue
                if mask & 2:
                    background = self.pixel(source)
                if mask & 4:
                    foreground = self.pixel(source)
                self.fill(left, top, w, h, background)
                for _ in range(source.u8() if mask & 8 else 0):
                    colour = self.pixel(source) if mask & 16 else foreground
                    place, size = source.u8(), source.u8()
                    self.fill(
                        left + place // 16, top + place % 16, size // 16 + 1, size % 16 + 1, colour
                    )

    def zlib_raw(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        data = self.zlib.decompress(source.take(source.u32()))
        self.raw(Bytes(data), x, y, width, height)

    # TRLE, ZRLE, ZYWRLE.

    def trle_rectangle(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        self.tiles(source, x, y, width, height, 16)

    def zrle_rectangle(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        data = Bytes(self.zrle.decompress(source.take(source.u32())))
        self.tiles(data, x, y, width, height, 64)
        assert data.done()

    def zywrle_rectangle(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        data = Bytes(self.zrle.decompress(source.take(source.u32())))
        for top in range(y, y + height, 64):
            for left in range(x, x + width, 64):
                w, h = min(64, x + width - left), min(64, y + height - top)
                if self.level and data.data[data.at] == 0:
                    data.u8()
                    self.tile(data, left, top, w, h, [])
                    self.synthesize(left, top, w, h)
                else:
                    self.tile(data, left, top, w, h, [])
        assert data.done()

    def tiles(  # noqa: PLR0917
        self, source: Bytes, x: int, y: int, width: int, height: int, side: int
    ) -> None:
        palette: list[Colour] = []
        for top in range(y, y + height, side):
            for left in range(x, x + width, side):
                w, h = min(side, x + width - left), min(side, y + height - top)
                palette = self.tile(source, left, top, w, h, palette)

    def tile(  # noqa: PLR0917
        self, source: Bytes, x: int, y: int, width: int, height: int, palette: list[Colour]
    ) -> list[Colour]:
        kind = source.u8()
        if kind == 0:
            self.put(x, y, width, height, iter(lambda: self.cpixel(source), None))
        elif kind == 1:
            self.fill(x, y, width, height, self.cpixel(source))
        elif 2 <= kind <= 16 or kind == 127:
            if kind != 127:
                palette = [self.cpixel(source) for _ in range(kind)]
            bits = 1 if len(palette) == 2 else 2 if len(palette) in {3, 4} else 4
            for row in range(y, y + height):
                line = "".join(f"{byte:08b}" for byte in source.take((width * bits + 7) // 8))
                for i in range(width):
                    index = int(line[i * bits : i * bits + bits], 2)
                    self.screen[row][x + i] = palette[index]
        else:
            if kind >= 130:
                palette = [self.cpixel(source) for _ in range(kind - 128)]
            runs = self.plain_runs(source) if kind == 128 else self.palette_runs(source, palette)
            self.put(x, y, width, height, runs)
        return palette

    @staticmethod
    def run_length(source: Bytes) -> int:
        total = 1
        while (byte := source.u8()) == 255:
            total += 255
        return total + byte

    def plain_runs(self, source: Bytes) -> Iterator[Colour]:
        while True:
            colour = self.cpixel(source)
            for _ in range(self.run_length(source)):
                yield colour

    def palette_runs(self, source: Bytes, palette: list[Colour]) -> Iterator[Colour]:
        while True:
            byte = source.u8()
            for _ in range(self.run_length(source) if byte >= 128 else 1):
                yield palette[byte % 128]

    def synthesize(self, x: int, y: int, width: int, height: int) -> None:
        """ZYWRLE: each level halves the sides; what is left over is not transformed."""
        unit = 1 << self.level
        w, h = width // unit * unit, height // unit * unit
        if not w or not h:
            return
        wire = [
            self.screen[y + row][x + column] for row in range(height) for column in range(width)
        ]
        field: list[list[list[int]]] = [[[0, 0, 0] for _ in range(w)] for _ in range(h)]
        at = 0
        for level in range(self.level):
            half = 1 << level
            bands = [(half, half), (0, half), (half, 0)]
            if level == self.level - 1:
                bands.append((0, 0))
            for left, top in bands:
                for row in range(top, h, 2 * half):
                    for column in range(left, w, 2 * half):
                        field[row][column] = [c - 256 if c > 127 else c for c in wire[at]]
                        at += 1
        for level in reversed(range(self.level)):
            half = 1 << level
            for column in range(0, w, half):
                for row in range(0, h, 2 * half):
                    haar(field[row][column], field[row + half][column])
            for row in range(0, h, half):
                for column in range(0, w, 2 * half):
                    haar(field[row][column], field[row][column + half])
        for row in range(h):
            for column in range(w):
                v, luma, u = field[row][column]
                green = luma + 128 - (2 * u + 2 * v) // 4
                bounded = [max(0, min(255, c)) for c in (2 * v + green, green, 2 * u + green)]
                self.screen[y + row][x + column] = bounded[0], bounded[1], bounded[2]
        rest = iter(wire[at:])
        self.put(x + w, y, width - w, h, rest)
        self.put(x, y + h, w, height - h, rest)
        self.put(x + w, y + h, width - w, height - h, rest)

    # Tight.

    @staticmethod
    def compact(source: Bytes) -> int:
        first = source.u8()
        if first < 128:
            return first
        second = source.u8()
        if second < 128:
            return first - 128 + second * 128
        return first - 128 + (second - 128) * 128 + source.u8() * 16384

    def tight_rectangle(self, source: Bytes, x: int, y: int, width: int, height: int) -> None:
        control = source.u8()
        for number in range(4):
            if control >> number & 1:
                self.tight[number] = zlib.decompressobj()
        kind = control >> 4
        if kind == 8:
            self.fill(x, y, width, height, self.tpixel(source))
            return
        if kind in {9, 10}:
            picture = Image.open(io.BytesIO(source.take(self.compact(source)))).convert("RGB")
            colours = picture.tobytes()
            triples = [
                (colours[i], colours[i + 1], colours[i + 2]) for i in range(0, len(colours), 3)
            ]
            self.put(x, y, width, height, iter(triples))
            return
        chosen = source.u8() if kind & 4 else 0
        palette: list[Colour] = []
        row_bytes = width * (3 if self.is_888() else self.form.bits_per_pixel // 8)
        if chosen == 1:
            palette = [self.tpixel(source) for _ in range(source.u8() + 1)]
            row_bytes = (width + 7) // 8 if len(palette) <= 2 else width
        size = row_bytes * height
        if size < 12:
            data = Bytes(source.take(size))
        else:
            packed = source.take(self.compact(source))
            data = Bytes(self.tight[kind & 3].decompress(packed))
        if chosen == 2:
            self.gradient(data, x, y, width, height)
        elif not palette:
            self.put(x, y, width, height, iter(lambda: self.tpixel(data), None))
        elif len(palette) <= 2:
            for row in range(height):
                line = data.take(row_bytes)
                for column in range(width):
                    bit = line[column // 8] >> (7 - column % 8) & 1
                    self.screen[y + row][x + column] = palette[bit % len(palette)]
        else:
            self.put(x, y, width, height, (palette[byte] for byte in data.take(size)))

    def gradient(self, data: Bytes, x: int, y: int, width: int, height: int) -> None:
        """Each colour is stored as what it differs from left + above - left above, bounded."""
        form = self.form
        maxima = form.red_max, form.green_max, form.blue_max
        shifts = form.red_shift, form.green_shift, form.blue_shift
        raw: dict[tuple[int, int], list[int]] = {}
        for row in range(height):
            for column in range(width):
                if self.is_888():
                    differences = list(data.take(3))
                else:
                    order = "big" if form.big_endian else "little"
                    value = int.from_bytes(data.take(form.bits_per_pixel // 8), order)  # type: ignore[arg-type]
                    differences = [
                        value >> shift & most for shift, most in zip(shifts, maxima, strict=True)
                    ]
                left = raw.get((row, column - 1), [0, 0, 0])
                above = raw.get((row - 1, column), [0, 0, 0])
                corner = raw.get((row - 1, column - 1), [0, 0, 0])
                raw[row, column] = [
                    (d + max(0, min(most, a + b - c))) % (most + 1)
                    for d, a, b, c, most in zip(
                        differences, left, above, corner, maxima, strict=True
                    )
                ]
                if self.is_888():
                    red, green, blue = raw[row, column]
                    self.screen[y + row][x + column] = red, green, blue
                else:
                    value = sum(
                        c << shift for c, shift in zip(raw[row, column], shifts, strict=True)
                    )
                    self.screen[y + row][x + column] = self.colour(value)


def haar(low: list[int], high: list[int]) -> None:
    """Undo the piecewise-linear Haar transform (Senecal, Lindstrom, Duchaineau and Joy, 2004).

    The larger of the two in magnitude is rebuilt from the difference; bytes wrap around.
    """

    def byte(value: int) -> int:
        return (value + 128) % 256 - 128

    for i in range(3):
        a, b = low[i], high[i]
        if (a < 0) == (b < 0):
            rest = byte(a - b)
            low[i], high[i] = (byte(b + a - b) if (rest < 0) == (a < 0) else b), rest
        else:
            total = byte(a + b)
            low[i], high[i] = total, (byte(a - (a + b)) if (total < 0) == (b < 0) else a)
