"""JPEG, 21: a JPEG without its length before it (rfbproto, "JPEG Encoding").

It ends where its end-of-image marker is. One that has no tables of its own uses those of the one
before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.pictures import PictureError, decode_jpeg

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["JPEG", "MAX_JPEG_BYTES", "MAX_TABLE_BYTES"]

MAX_JPEG_BYTES = 16 * 1024 * 1024
"""What one picture may have at most."""

MAX_TABLE_BYTES = 128 * 1024
"""What its tables of a kind may have; those of real pictures have hundreds of bytes."""

# How far it is looked for the end of a scan at first, and at most.
_SHORT_LOOK, _LONG_LOOK = 256, 64 * 1024

_START = b"\xff\xd8"
_END = 0xD9
_SCAN = 0xDA
_TABLES = {0xDB: "quantization", 0xC4: "Huffman"}
# Markers without a length: TEM, RST0 to RST7, SOI.
_ALONE = {0x01, *range(0xD0, 0xD9)}


class _Reader:
    """A place in a JPEG, of which more may come."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self.position = 0

    def _need(self, count: int) -> Reading[None]:
        if count > MAX_JPEG_BYTES:
            raise self._engine.error(f"a JPEG of more than {MAX_JPEG_BYTES} bytes")
        yield from self._engine.inbox.need(count)

    def past(self, count: int) -> Reading[bytes]:
        self.position += count
        yield from self._need(self.position)
        return bytes(self._engine.inbox.peek(self.position)[-count:])

    def past_scan(self) -> Reading[None]:
        """Go past entropy-coded bytes, to the next marker that is not among them."""
        inbox = self._engine.inbox
        look = _SHORT_LOOK
        while True:
            yield from self._need(self.position + 2)
            data = bytes(inbox.peek(self.position + look)[self.position :])
            look = min(2 * look, _LONG_LOOK)
            found = data.find(0xFF)
            while 0 <= found < len(data) - 1:
                if data[found + 1] and data[found + 1] not in _ALONE:
                    self.position += found
                    return
                found = data.find(0xFF, found + 2)
            # A last byte of 0xff may begin a marker: it is looked at again.
            yield from self.past(len(data) - (found >= 0))


def _measure(engine: Engine, rectangle: Rectangle) -> Reading[tuple[int, dict[int, bytes], bool]]:
    """Find the end of a JPEG; return it, its tables, and whether it lacks some."""
    reader = _Reader(engine)
    tables: dict[int, bytes] = {}
    if (yield from reader.past(2)) != _START:
        raise engine.error(f"no JPEG in a rectangle {rectangle}")
    while True:
        fill, marker = yield from reader.past(2)
        if fill != 0xFF:
            raise engine.error(f"a broken JPEG in a rectangle {rectangle}")
        if marker == _END:
            return reader.position, tables, len(tables) < len(_TABLES)
        if marker == 0xFF:
            reader.position -= 1
            continue
        if marker in _ALONE:
            continue
        length = int.from_bytes((yield from reader.past(2)), "big")
        if length < 2:
            raise engine.error(f"a broken JPEG in a rectangle {rectangle}")
        body = yield from reader.past(length - 2) if length > 2 else _nothing()
        if marker in _TABLES:
            segment = bytes((0xFF, marker)) + length.to_bytes(2, "big") + body
            tables[marker] = tables.get(marker, b"") + segment
            if len(tables[marker]) > MAX_TABLE_BYTES:
                what = f"{_TABLES[marker]} tables of more than {MAX_TABLE_BYTES} bytes"
                raise engine.error(f"a JPEG with {what} in a rectangle {rectangle}")
        if marker == _SCAN:
            yield from reader.past_scan()


def _nothing() -> Reading[bytes]:
    yield from ()
    return b""


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    length, tables, lacking = yield from _measure(engine, rectangle)
    data = bytes(engine.inbox.peek(length))
    if lacking:
        known = engine.jpeg_tables
        data = _START + b"".join(known[m] for m in known if m not in tables) + data[2:]
    engine.jpeg_tables = {**engine.jpeg_tables, **tables}
    x, y, width, height = rectangle.x, rectangle.y, rectangle.width, rectangle.height
    picture = np.empty((height, width), np.uint32)
    try:
        decode_jpeg(memoryview(data), picture, engine.layout)
    except PictureError as error:
        raise engine.error(f"a rectangle {rectangle} (JPEG): {error}") from error.__cause__
    engine.inbox.consume(length)
    engine.area(rectangle)[:] = picture
    engine.damage.add(x, y, width, height)


JPEG = Encoding(21, "JPEG", _decode, draws=True)
