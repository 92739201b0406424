"""ZRLE, 16: TRLE with tiles of 64x64, through a zlib stream (RFC 6143, section 7.7.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmconnect.vnc.encodings.base import LENGTH_BYTES, Encoding, Rectangle, Source, await_length
from vmconnect.vnc.encodings.inflow import LARGE_BYTES, draw_as_it_comes
from vmconnect.vnc.encodings.tiles import draw_tile, draw_tiles
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import LARGE_INFLATED, ZRLE_STREAM, DrawError, Fault, Kind
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine
    from vmconnect.vnc.walk import Walk

__all__ = ["ZRLE", "at_most", "draw_zrle", "draw_zrle_from"]

_SIDE = 64

_NO_COLOURS: Pixels = np.zeros(0, np.uint32)


def _tiles(width: int, height: int) -> int:
    return -(-width // _SIDE) * -(-height // _SIDE)


def at_most(rectangle: Rectangle, cpixel_bytes: int) -> int:
    """Return how many bytes a rectangle can be when inflated.

    Worst is a run for each pixel, and the largest palette in each tile; a byte of ZYWRLE's more.
    """
    tiles = _tiles(rectangle.width, rectangle.height)
    return rectangle.pixels * (cpixel_bytes + 1) + tiles * (2 + 127 * cpixel_bytes)


class _Tiles:
    """Draws tile by tile."""

    def __init__(self, walk: Walk, area: Pixels):
        self._walk, self._area = walk, area
        self._tile = 0

    @property
    def whole(self) -> bool:
        height, width = self._area.shape
        return self._tile == _tiles(width, height)

    def draw(self, data: memoryview) -> int:
        if self.whole:
            raise DrawError(Fault.LEFT_OVER)
        self._tile, end, fault = self._walk.zrle(data, self._area, self._tile)
        if fault:
            raise DrawError(fault)
        return end


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    size = at_most(rectangle, engine.layout.cpixel_bytes)
    length = yield from await_length(engine, "ZRLE", size)
    if length >= LARGE_BYTES or size > LARGE_INFLATED:
        tiles = _Tiles(engine.walk, engine.area(rectangle))
        yield from draw_as_it_comes(engine, rectangle, Kind.ZRLE, ZRLE_STREAM, size, tiles)
        return
    yield from engine.inbox.need(LENGTH_BYTES + length)
    engine.walk.one(rectangle.job(Kind.ZRLE, length, ZRLE_STREAM, size, LENGTH_BYTES))


def draw_zrle(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw a rectangle's tiles."""
    draw_tiles(area, source, layout, _SIDE)


def draw_zrle_from(
    data: memoryview, layout: Layout, area: Pixels, tile: int
) -> tuple[int, int, int]:
    """Draw a rectangle's tiles from number ``tile`` on, as far as ``data`` reach.

    Returns the number of the first tile that is not whole, where it begins, and the `Fault` if
    the cause is another.
    """
    height, width = area.shape
    columns = -(-width // _SIDE)
    source, end = Source(data), 0
    while tile < _tiles(width, height):
        y, x = (_SIDE * place for place in divmod(tile, columns))
        part = area[y : y + _SIDE, x : x + _SIDE]
        try:
            draw_tile(part, source, layout, _NO_COLOURS, trle=False)
        except DrawError as error:
            return tile, end, Fault.FINE if error.fault is Fault.SHORT else error.fault
        end = len(data) - source.left
        tile += 1
    return tile, end, Fault.FINE


ZRLE = Encoding(16, "ZRLE", _decode, draws=True)
