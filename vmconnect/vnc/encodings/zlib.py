"""Zlib, 6: Raw through a zlib stream of its own (rfbproto, "Zlib Encoding")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import LENGTH_BYTES, Encoding, Rectangle, await_length
from vmconnect.vnc.encodings.inflow import LARGE_BYTES, draw_as_it_comes
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import LARGE_INFLATED, ZLIB_STREAM, DrawError, Fault, Kind
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["ZLIB"]


class _Rows:
    """Draws row by row."""

    def __init__(self, area: Pixels, layout: Layout):
        self._area, self._layout = area, layout
        self._done = 0

    @property
    def whole(self) -> bool:
        return self._done == len(self._area)

    def draw(self, data: memoryview) -> int:
        if self.whole:
            raise DrawError(Fault.LEFT_OVER)
        row_bytes = self._area.shape[1] * self._layout.pixel_bytes
        rows = self._area[self._done : self._done + len(data) // row_bytes]
        used: int = len(rows) * row_bytes
        rows[:] = self._layout.pixels(data[:used]).reshape(rows.shape)
        self._done += len(rows)
        return used


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    size = rectangle.pixels * engine.layout.pixel_bytes
    length = yield from await_length(engine, "Zlib", size)
    if length >= LARGE_BYTES or size > LARGE_INFLATED:
        rows = _Rows(engine.area(rectangle), engine.layout)
        yield from draw_as_it_comes(engine, rectangle, Kind.PIXELS, ZLIB_STREAM, size, rows)
        return
    yield from engine.inbox.need(LENGTH_BYTES + length)
    engine.walk.one(rectangle.job(Kind.PIXELS, length, ZLIB_STREAM, size, LENGTH_BYTES))


ZLIB = Encoding(6, "Zlib", _decode, draws=True)
