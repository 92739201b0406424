"""From bytes by chance to what a server could send: true headers, lengths and zlib streams.

So that what is mutated is what lies inside, and executions reach it. Each function takes bytes
and returns what a server says after ServerInit. The first bytes choose the pixel format and the
place of the rectangle; lengths and checksums are made to fit, unless a bit says not to.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

from fuzz.oracle import Said
from fuzz.room import HEIGHT, WIDTH
from tests.vnc.wire import long, rectangle, update, words
from vmconnect.vnc.encodings import ENCODINGS
from vmconnect.vnc.encodings.desktop_size import DESKTOP_SIZE
from vmconnect.vnc.encodings.zrle import ZRLE

__all__ = ["HEAD_BYTES", "QUICK", "WRAPS", "Wrap"]

Wrap = Callable[[bytes], Said]

HEAD_BYTES = 6
"""Format, place and options: what is before the bytes of an encoding."""

# How many rectangles are said to follow: the bytes may bring more of their own.
_MANY = 200


class _Head:
    """The first bytes, and what they choose."""

    def __init__(self, data: bytes):
        form, x, y, width, height, self.options = data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0")
        self.form, self.level = form & 15, form >> 4 & 3
        self.x, self.y = x % WIDTH, y % HEIGHT
        # Mostly within the screen; the highest bit leaves it as it comes.
        self.width = width if width & 128 else min(width, WIDTH - self.x)
        self.height = height if height & 128 else min(height, HEIGHT - self.y)
        self.body = data[HEAD_BYTES:]

    @property
    def pixel_bytes(self) -> int:
        """The length of a pixel: of some formats only, which is enough for lengths."""
        return 4 if self.form < 8 else 2 if self.form < 11 else 1

    def rectangle(self, number: int, body: bytes) -> bytes:
        """Return a rectangle at the place."""
        return rectangle(self.x, self.y, self.width, self.height, number, body)

    def said(self, *rectangles: bytes) -> Said:
        """Return an update of these rectangles, and the bytes that they hold beyond."""
        return Said(
            update(*rectangles, count=_MANY if self.options & 1 else None),
            self.form,
            self.level,
            rectangles,
        )

    def deflated(self, plain: bytes, stream: zlib._Compress | None = None) -> bytes:
        """Return zlib data that inflate to ``plain``, or that are as they come."""
        if self.options & 2:
            return plain
        stream = stream or zlib.compressobj(self.options >> 2 & 1)
        return stream.compress(plain) + stream.flush(zlib.Z_SYNC_FLUSH)


def plain(number: int) -> Wrap:
    """Return the wrap of an encoding whose body says itself where it ends."""

    def wrap(data: bytes) -> Said:
        head = _Head(data)
        return head.said(head.rectangle(number, head.body))

    return wrap


def compressed(number: int) -> Wrap:
    """Return the wrap of an encoding with a length and zlib data: what is inside is mutated.

    With an option, half of it is in a second rectangle of the same stream.
    """

    def wrap(data: bytes) -> Said:
        head = _Head(data)
        parts = [head.body]
        if head.options & 8:
            middle = len(head.body) // 2
            parts = [head.body[:middle], head.body[middle:]]
        stream = zlib.compressobj(head.options >> 2 & 1)
        bodies = [head.deflated(part, stream) for part in parts]
        return head.said(*(head.rectangle(number, long(len(body)) + body) for body in bodies))

    return wrap


_LARGE = 520
"""The side of a square that inflates to more than a job may (`jobs.LARGE_INFLATED`)."""


def large(number: int) -> Wrap:
    """Return the wrap of Zlib or ZRLE of a rectangle so large that it is drawn as it comes.

    What is mutated is at its beginning; the rest repeats it, or is tiles of one colour.
    """

    def wrap(data: bytes) -> Said:
        head = _Head(data)
        body = head.body
        if not head.options & 64:
            size = _LARGE * _LARGE * head.pixel_bytes
            if number == ZRLE.number:
                body += (b"\1" + bytes(3 if head.form < 6 else head.pixel_bytes)) * 81
            else:
                body = (body * (size // max(1, len(body)) + 1))[:size]
        body = head.deflated(body)
        screen = rectangle(0, 0, _LARGE, _LARGE, DESKTOP_SIZE.number)
        said = head.said(screen, rectangle(0, 0, _LARGE, _LARGE, number, long(len(body)) + body))
        # The plain decoder knows of no screen that changes its size.
        return replace(said, rectangles=())

    return wrap


def compact(length: int) -> bytes:
    """Return a length as Tight has it."""
    if length < 1 << 7:
        return bytes((length,))
    if length < 1 << 14:
        return bytes((length & 127 | 128, length >> 7))
    return bytes((length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 255))


def tight(data: bytes) -> Said:
    """Wrap control, filter and palette as they come, then what is deflated."""
    head = _Head(data)
    control = head.body[:1] or b"\0"
    # Of the streams that could begin anew, one in four executions has any.
    if not head.options & 48:
        control = bytes((control[0] & 0xF0,))
    begin, body = control, head.body[1:]
    chosen = control[0] >> 4
    if chosen >= 8 and chosen not in {10, 14}:
        return head.said(head.rectangle(7, begin + body))
    row = head.width * (3 if head.form < 6 else head.pixel_bytes)
    if chosen & 4 and body:
        begin, body = begin + body[:1], body[1:]
        if begin[-1] == 1 and body:
            colours = body[0] + 1
            size = 1 + colours * (3 if head.form < 6 else head.pixel_bytes)
            begin, body = begin + body[:size].ljust(size, b"\7"), body[size:]
            row = -(-head.width // 8) if colours <= 2 else head.width
    size = row * head.height
    if not head.options & 64:
        body = body[:size].ljust(size, body[-1:] or b"\0")
    if size >= 12 and chosen < 8:
        body = head.deflated(body)
    if size >= 12:
        body = compact(len(body)) + body
    return head.said(head.rectangle(7, begin + body))


def jpeg(data: bytes) -> Said:
    """Wrap a JPEG for Tight; decoders may round as they like, so none is compared."""
    head = _Head(data)
    body = b"\x90" + compact(len(head.body)) + head.body
    return replace(head.said(head.rectangle(7, body)), rectangles=())


def jpeg_21(data: bytes) -> Said:
    """Wrap a JPEG for the encoding of that name."""
    head = _Head(data)
    return replace(head.said(head.rectangle(21, head.body)), rectangles=())


_MOST_PIECES = 8


def h264(data: bytes) -> Said:
    """Wrap pieces of a stream, each with its flags and its length before it, for one rectangle.

    A start code is put before each, but for one flag.
    """
    head = _Head(data)
    rectangles: list[bytes] = []
    body = head.body
    while body and len(rectangles) < _MOST_PIECES:
        flags, high, low = body[:3].ljust(3, b"\0")
        length = 3 + (high << 8 | low)
        piece, body = body[3:length], body[length:]
        if not flags & 128:
            piece = b"\0\0\0\1" + piece
        rectangles.append(head.rectangle(50, long(len(piece)) + long(flags & 127) + piece))
    return replace(head.said(*rectangles), rectangles=())


def _chunk(kind: bytes, body: bytes) -> bytes:
    return long(len(body)) + kind + body + long(zlib.crc32(kind + body))


def png(data: bytes) -> Said:
    """Wrap the header's kind, a palette and the rows' bytes to a PNG, or a whole PNG."""
    head = _Head(data)
    body = head.body
    if not head.options & 128:
        depth, colour, palette, interlaced = body[:4].ljust(4, b"\0")
        depth = (1, 2, 4, 8, 16, depth)[depth % 6]
        size = words(0, head.width, 0, head.height)
        header = struct.pack(">8sBBBBB", size, depth, colour % 8, 0, 0, interlaced & 64)
        colours, rows = body[4 : 4 + palette], body[4 + palette :]
        row = (head.width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour % 8, 1) * depth + 7) // 8
        if not head.options & 64:
            need = (1 + row) * head.height
            rows = (rows * (need // max(1, len(rows)) + 1))[:need]
        body = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"PLTE", colours)
        body += _chunk(b"IDAT", head.deflated(rows)) + _chunk(b"IEND", b"")
    return head.said(head.rectangle(-260, b"\xa0" + compact(len(body)) + body))


PSEUDO = tuple(number for number, encoding in ENCODINGS.items() if not encoding.draws)


def pseudo(data: bytes) -> Said:
    """Wrap bodies of pseudo-encodings, each with its length before it, to one update."""
    form, data = data[:1] or b"\0", data[1:]
    rectangles: list[bytes] = []
    while data and len(rectangles) < 16:
        number, x, y, width, height, length = data[:6].ljust(6, b"\0")
        body, data = data[6 : 6 + length], data[6 + length :]
        chosen = PSEUDO[number % len(PSEUDO)]
        rectangles.append(rectangle(x, y, width, height, chosen, body))
    return Said(update(*rectangles), form[0] & 15)


def clipboard(data: bytes) -> Said:
    """Wrap flags and texts to extended clipboard messages."""
    said = b""
    while data:
        flags, option, length = data[:3].ljust(3, b"\0")
        body, data = data[3 : 3 + length], data[3 + length :]
        if option & 1:
            body = long(max(0, len(body) + (option >> 1 & 3) - 1)) + body
        if option & 8:
            body = zlib.compress(body, 1)
        body = struct.pack(">BxxB", flags & 31, option >> 4) + body
        said += struct.pack(">Bxxxi", 3, -len(body)) + body
    return Said(said)


def stream(data: bytes) -> Said:
    """Take all as it comes."""
    return Said(data[1:], data[0] & 15 if data else 0)


WRAPS: dict[str, Wrap] = {
    "raw": plain(0),
    "copyrect": plain(1),
    "rre": plain(2),
    "corre": plain(4),
    "hextile": plain(5),
    "trle": plain(15),
    "zlib": compressed(6),
    "zrle": compressed(16),
    "zywrle": compressed(17),
    "zlib-large": large(6),
    "zrle-large": large(16),
    "tight": tight,
    "tight-any": plain(7),
    "jpeg": jpeg,
    "jpeg-21": jpeg_21,
    "h264": h264,
    "png": png,
    "pseudo": pseudo,
    "clipboard": clipboard,
    "stream": stream,
}
"""What to do with bytes, by the target's name."""

QUICK: dict[str, Wrap] = {name: WRAPS[name] for name in WRAPS if not name.endswith("-large")}
"""Those of which every execution can be compared."""
