"""Hextile, 5: tiles of 16x16, each Raw or a background and subrectangles.

Source: RFC 6143, section 7.7.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmconnect.vnc.encodings.base import HEADER_BYTES, Encoding, Rectangle, Source
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import FAULTS, DrawError, Fault, Kind
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["HEXTILE", "draw_hextile", "draw_whole_hextile"]

_SIDE = 16
_RAW = 1
_BACKGROUND = 2
_FOREGROUND = 4
_SUBRECTANGLES = 8
_COLOURED = 16


def _tile_bytes(data: memoryview, at: int, stop: int, pixel_bytes: int, pixels: int) -> int:
    """Return the length of the tile at ``at``, or at least one more than there is."""
    mask = data[at]
    if mask & _RAW:
        return 1 + pixels * pixel_bytes
    length = 1 + (mask & _BACKGROUND > 0) * pixel_bytes + (mask & _FOREGROUND > 0) * pixel_bytes
    if mask & _SUBRECTANGLES:
        if at + length >= stop:
            return length + 1
        length += 1 + data[at + length] * (2 + (mask & _COLOURED > 0) * pixel_bytes)
    return length


def _tiles(width: int, height: int) -> int:
    return -(-width // _SIDE) * -(-height // _SIDE)


def draw_hextile(  # noqa: PLR0917 (as compiled)
    data: memoryview,
    start: int,
    stop: int,
    layout: Layout,
    area: Pixels,
    tile: int,
    colours: Pixels,
) -> tuple[int, int, int]:
    """Draw a rectangle's tiles from number ``tile``, which begins at ``start``.

    ``colours`` are the words of background and foreground, which go on from tile to tile. Returns
    the number of the first tile that is not whole, where it begins, and the `Fault` if the cause
    is another.
    """
    height, width = area.shape
    columns = -(-width // _SIDE)
    while tile < _tiles(width, height) and start < stop:
        row, column = divmod(tile, columns)
        y, x = _SIDE * row, _SIDE * column
        part = area[y : y + _SIDE, x : x + _SIDE]
        length = _tile_bytes(data, start, stop, layout.pixel_bytes, part.size)
        if start + length > stop:
            break
        try:
            _draw_tile(part, Source(data[start : start + length]), layout, colours)
        except DrawError as error:
            return tile, start, error.fault
        start += length
        tile += 1
    return tile, start, Fault.FINE


def _draw_tile(tile: Pixels, source: Source, layout: Layout, colours: Pixels) -> None:
    pixel_bytes = layout.pixel_bytes
    mask = source.byte()
    if mask & _RAW:
        tile[:] = layout.pixels(source.take(tile.size * pixel_bytes)).reshape(tile.shape)
        return
    if mask & _BACKGROUND:
        colours[0] = layout.pixels(source.take(pixel_bytes))[0]
    if mask & _FOREGROUND:
        colours[1] = layout.pixels(source.take(pixel_bytes))[0]
    tile[:] = colours[0]
    for _ in range(source.byte() if mask & _SUBRECTANGLES else 0):
        colour = colours[1]
        if mask & _COLOURED:
            colour = layout.pixels(source.take(pixel_bytes))[0]
        place, size = source.take(2)
        left, top = place >> 4, place & 15
        right, bottom = left + (size >> 4) + 1, top + (size & 15) + 1
        if right > tile.shape[1] or bottom > tile.shape[0]:
            raise DrawError(Fault.OUTSIDE)
        tile[top:bottom, left:right] = colour


def draw_whole_hextile(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw all of a rectangle's tiles."""
    data = source.take(source.left)
    height, width = area.shape
    colours = np.zeros(2, np.uint32)
    tile, _, fault = draw_hextile(data, 0, len(data), layout, area, 0, colours)
    if tile < _tiles(width, height):
        raise DrawError(Fault(fault) or Fault.SHORT)


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    """Draw tiles as they come: a rectangle may be as large as the screen."""
    inbox = engine.inbox
    header = inbox.offset - HEADER_BYTES
    area = engine.area(rectangle)
    colours = np.zeros(2, np.uint32)
    tile, tiles = 0, _tiles(rectangle.width, rectangle.height)
    while tile < tiles:
        tile, fault = engine.walk.hextile(area, tile, colours)
        if fault:
            raise engine.walk.error(rectangle, Kind.HEXTILE, FAULTS[fault], header)
        if tile < tiles:
            yield from inbox.need_more()
    engine.damage.add(rectangle.x, rectangle.y, rectangle.width, rectangle.height)


HEXTILE = Encoding(5, "Hextile", _decode, draws=True)
