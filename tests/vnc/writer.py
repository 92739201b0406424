"""A server that sends random, valid rectangles in every encoding."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from vmconnect.vnc.pixel_format import OURS, PixelFormat

from .wire import long, rectangle, words

FORMATS: dict[str, PixelFormat] = {
    "ours": OURS,
    "rgb": PixelFormat(32, 24, False, True, 255, 255, 255, 0, 8, 16),
    "grb": PixelFormat(32, 24, False, True, 255, 255, 255, 8, 16, 0),
    "32 big": PixelFormat(32, 24, True, True, 255, 255, 255, 16, 8, 0),
    "32 high": PixelFormat(32, 24, False, True, 255, 255, 255, 24, 16, 8),
    "32 high big": PixelFormat(32, 24, True, True, 255, 255, 255, 24, 16, 8),
    "32 of depth 32": PixelFormat(32, 32, False, True, 255, 255, 255, 16, 8, 0),
    "10 bits": PixelFormat(32, 30, False, True, 1023, 1023, 1023, 20, 10, 0),
    "565": PixelFormat(16, 16, False, True, 31, 63, 31, 11, 5, 0),
    "565 big": PixelFormat(16, 16, True, True, 31, 63, 31, 11, 5, 0),
    "555": PixelFormat(16, 15, False, True, 31, 31, 31, 10, 5, 0),
    "332": PixelFormat(8, 8, False, True, 7, 7, 3, 0, 3, 6),
    "map": PixelFormat(8, 8, False, False, 0, 0, 0, 0, 0, 0),
}


class Writer:
    """Rectangles by chance; zlib streams go on from one to the next."""

    def __init__(self, chance: random.Random, form: PixelFormat, width: int, height: int):
        self.chance = chance
        self.form = form
        self.width, self.height = width, height
        self.streams = [zlib.compressobj(chance.randrange(10)) for _ in range(6)]
        self.encodings: list[Callable[[int, int, int, int], bytes]] = [
            self.raw,
            self.copyrect,
            self.rre,
            self.corre,
            self.hextile,
            self.zlib,
            self.tight,
            self.trle,
            self.zrle,
        ]

    def rectangles(self, count: int) -> bytes:
        return b"".join(self.chance.choice(self.encodings)(*self.place()) for _ in range(count))

    def place(self) -> tuple[int, int, int, int]:
        chance = self.chance
        x, y = chance.randrange(self.width), chance.randrange(self.height)
        sides = 0, 1, 2, 7, 16, 17, 40, 64, 70
        return (
            x,
            y,
            min(chance.choice(sides), self.width - x),
            min(chance.choice(sides), self.height - y),
        )

    # Pixels.

    def pixel(self) -> bytes:
        return self.chance.randbytes(self.form.bits_per_pixel // 8)

    def cpixel(self) -> bytes:
        form = self.form
        if form.bits_per_pixel != 32 or not form.true_colour or form.depth > 24:
            return self.pixel()
        return self.chance.randbytes(3)

    def tpixel(self) -> bytes:
        form = self.form
        if (form.bits_per_pixel, form.depth, form.red_max) == (32, 24, 255):
            return self.chance.randbytes(3)
        return self.pixel()

    def several(self, one: Callable[[], bytes], count: int) -> bytes:
        """Return pixels of few colours, or of many."""
        if self.chance.random() < 0.5:
            some = [one() for _ in range(3)]
            return b"".join(self.chance.choices(some, k=count))
        return self.chance.randbytes(len(one()) * count)

    def deflate(self, number: int, data: bytes) -> bytes:
        stream = self.streams[number]
        return stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)

    # Encodings.

    def raw(self, x: int, y: int, width: int, height: int) -> bytes:
        return rectangle(x, y, width, height, 0, self.several(self.pixel, width * height))

    def copyrect(self, x: int, y: int, width: int, height: int) -> bytes:
        from_x = self.chance.randint(0, self.width - width)
        from_y = self.chance.randint(0, self.height - height)
        return rectangle(x, y, width, height, 1, words(from_x, from_y))

    def part(self, width: int, height: int) -> tuple[int, int, int, int]:
        left, top = self.chance.randrange(width), self.chance.randrange(height)
        return (
            left,
            top,
            self.chance.randint(1, width - left),
            self.chance.randint(1, height - top),
        )

    def rre(self, x: int, y: int, width: int, height: int) -> bytes:
        count = self.chance.randint(0, min(9, width * height))
        body = long(count) + self.pixel()
        for _ in range(count):
            body += self.pixel() + words(*self.part(width, height))
        return rectangle(x, y, width, height, 2, body)

    def corre(self, x: int, y: int, width: int, height: int) -> bytes:
        count = self.chance.randint(0, min(9, width * height))
        body = long(count) + self.pixel()
        for _ in range(count):
            body += self.pixel() + bytes(self.part(width, height))
        return rectangle(x, y, width, height, 4, body)

    def hextile(self, x: int, y: int, width: int, height: int) -> bytes:
        body = b""
        must = 6
        for top in range(0, height, 16):
            for left in range(0, width, 16):
                w, h = min(16, width - left), min(16, height - top)
                mask = must | self.chance.choice((0, 1, 2, 4, 6, 8, 10, 14, 24, 26, 31, 8 + 4))
                body += bytes((mask,))
                if mask & 1:
                    body += self.several(self.pixel, w * h)
                    continue
                must = 0
                body += self.pixel() * bool(mask & 2) + self.pixel() * bool(mask & 4)
                if mask & 8:
                    count = self.chance.choice((0, 1, 3, 9))
                    body += bytes((count,))
                    for _ in range(count):
                        body += self.pixel() * bool(mask & 16)
                        l2, t2, w2, h2 = self.part(w, h)
                        body += bytes((l2 << 4 | t2, w2 - 1 << 4 | h2 - 1))
        return rectangle(x, y, width, height, 5, body)

    def zlib(self, x: int, y: int, width: int, height: int) -> bytes:
        data = self.deflate(5, self.several(self.pixel, width * height))
        return rectangle(x, y, width, height, 6, long(len(data)) + data)

    def trle(self, x: int, y: int, width: int, height: int) -> bytes:
        return rectangle(x, y, width, height, 15, self.tiles(width, height, 16))

    def zrle(self, x: int, y: int, width: int, height: int) -> bytes:
        data = self.deflate(4, self.tiles(width, height, 64))
        return rectangle(x, y, width, height, 16, long(len(data)) + data)

    def zywrle(self, x: int, y: int, width: int, height: int) -> bytes:
        body = b""
        for top in range(0, height, 64):
            for left in range(0, width, 64):
                w, h = min(64, width - left), min(64, height - top)
                if self.chance.random() < 0.6:
                    body += b"\0"
                    body += self.tile(w, h, 0, trle=False)[0]
                else:
                    # A raw tile always is a transformed one.
                    body += bytes((1,)) + self.cpixel()
        data = self.deflate(4, body)
        return rectangle(x, y, width, height, 17, long(len(data)) + data)

    def tiles(self, width: int, height: int, side: int) -> bytes:
        body = b""
        colours = 0
        for top in range(0, height, side):
            for left in range(0, width, side):
                w, h = min(side, width - left), min(side, height - top)
                tile, colours = self.tile(w, h, colours, trle=side == 16)
                body += tile
        return body

    def tile(self, width: int, height: int, colours: int, *, trle: bool) -> tuple[bytes, int]:
        kinds = [0, 1, 2, 3, 4, 5, 9, 16, 128, 130, 131, 140, 255]
        if trle and colours:
            kinds += [129] * 4
            if colours <= 16:
                kinds += [127] * 4
        kind = self.chance.choice(kinds)
        body = bytes((kind,))
        if kind == 0:
            return body + self.several(self.cpixel, width * height), colours
        if kind == 1:
            return body + self.cpixel(), colours
        if kind <= 16 or kind >= 130:
            colours = kind & 127
            body += b"".join(self.cpixel() for _ in range(colours))
        if kind <= 127:
            bits = 1 if colours == 2 else 2 if colours <= 4 else 4
            for _ in range(height):
                line = "".join(f"{self.chance.randrange(colours):0{bits}b}" for _ in range(width))
                # What fills up the last byte may be anything.
                line += "".join(self.chance.choice("01") for _ in range(-len(line) % 8))
                body += int(line, 2).to_bytes(len(line) // 8, "big")
            return body, colours
        left = width * height
        while left:
            length = min(left, self.chance.choice((1, 1, 2, 5, 70, 255, 256, 300, 511, 4096)))
            left -= length
            if kind == 128:
                body += self.cpixel()
            else:
                index = self.chance.randrange(colours)
                if length == 1 and self.chance.random() < 0.9:
                    body += bytes((index,))
                    continue
                body += bytes((index | 128,))
            body += b"\xff" * ((length - 1) // 255) + bytes(((length - 1) % 255,))
        return body, colours

    def compact(self, length: int) -> bytes:
        if length < 1 << 7:
            return bytes((length,))
        if length < 1 << 14:
            return bytes((length & 127 | 128, length >> 7))
        return bytes((length & 127 | 128, length >> 7 & 127 | 128, length >> 14))

    def tight(self, x: int, y: int, width: int, height: int) -> bytes:
        number = self.chance.randrange(4)
        resets = 0
        if self.chance.random() < 0.1:
            resets = self.chance.randrange(16)
            for i in range(4):
                if resets >> i & 1:
                    self.streams[i] = zlib.compressobj(self.chance.randrange(10))
        kind = self.chance.choice(("fill", "copy", "copy", "palette", "palette", "gradient"))
        tpixel = len(self.tpixel())
        if kind == "fill":
            body = bytes((0x80 | resets,)) + self.tpixel()
            return rectangle(x, y, width, height, 7, body)
        data = self.several(self.tpixel, width * height)
        body = bytes((number << 4 | resets,))
        if kind == "gradient" and self.form.true_colour:
            body = bytes(((number | 4) << 4 | resets, 2))
        elif kind == "palette":
            colours = self.chance.choice((1, 2, 3, 17, 256))
            body = bytes(((number | 4) << 4 | resets, 1, colours - 1))
            body += self.chance.randbytes(tpixel * colours)
            if colours <= 2:
                data = self.chance.randbytes((width + 7) // 8 * height)
            else:
                data = bytes(self.chance.choices(range(colours), k=width * height))
        elif self.chance.random() < 0.3:
            body = bytes(((number | 4) << 4 | resets, 0))
        if len(data) >= 12:
            data = self.deflate(number, data)
            data = self.compact(len(data)) + data
        return rectangle(x, y, width, height, 7, body + data)

    def picture(self, width: int, height: int) -> Image.Image:
        """Return a smooth picture with an edge."""
        colours = np.linspace(0, 255, 3 * width * height, dtype=np.uint8).reshape(height, width, 3)
        colours[height // 2 :] = 255 - colours[height // 2 :]
        return Image.fromarray(np.ascontiguousarray(colours))

    def file(self, width: int, height: int, kind: str, **options: object) -> bytes:
        file = io.BytesIO()
        self.picture(width, height).save(file, kind, **options)
        return file.getvalue()

    def tight_jpeg(self, x: int, y: int, width: int, height: int) -> bytes:
        data = self.file(width, height, "JPEG", quality=90)
        return rectangle(x, y, width, height, 7, b"\x90" + self.compact(len(data)) + data)

    def tight_png(self, x: int, y: int, width: int, height: int) -> bytes:
        data = self.file(width, height, "PNG")
        return rectangle(x, y, width, height, -260, b"\xa0" + self.compact(len(data)) + data)


def colour_map(chance: random.Random) -> tuple[bytes, list[tuple[int, int, int]]]:
    """Return a SetColourMapEntries of 256 random colours, and the colours."""
    colours = [
        (chance.randrange(65536), chance.randrange(65536), chance.randrange(65536))
        for _ in range(256)
    ]
    body = b"".join(struct.pack(">HHH", *colour) for colour in colours)
    return b"\1\0" + words(0, 256) + body, [(r >> 8, g >> 8, b >> 8) for r, g, b in colours]
