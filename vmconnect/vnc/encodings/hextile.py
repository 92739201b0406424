"""Hextile, 5: tiles of 16x16, each Raw or a background and subrectangles.

Source: RFC 6143, section 7.7.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle, Source
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import DrawError, Fault, Kind
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["HEXTILE", "draw_hextile", "measure_hextile"]

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


def measure_hextile(  # noqa: PLR0917 (as compiled)
    data: memoryview,
    start: int,
    stop: int,
    pixel_bytes: int,
    width: int,
    height: int,
    tile: int,
) -> tuple[int, int]:
    """Go past the tiles of a rectangle, from number ``tile``, which begins at ``start``.

    Returns the number of the first that is not whole, and where it begins.
    """
    columns, rows = -(-width // _SIDE), -(-height // _SIDE)
    while tile < columns * rows and start < stop:
        row, column = divmod(tile, columns)
        pixels = min(_SIDE, width - _SIDE * column) * min(_SIDE, height - _SIDE * row)
        length = _tile_bytes(data, start, stop, pixel_bytes, pixels)
        if start + length > stop:
            break
        start += length
        tile += 1
    return tile, start


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    inbox = engine.inbox
    pixel_bytes, width, height = engine.layout.pixel_bytes, rectangle.width, rectangle.height
    tiles = -(-width // _SIDE) * -(-height // _SIDE)
    tile = length = 0
    while True:
        data, start, stop = inbox.window()
        tile, end = engine.kernel.measure_hextile(
            data, start + length, stop, pixel_bytes, width, height, tile
        )
        length = end - start
        if tile == tiles:
            break
        yield from inbox.need_more()
    engine.walk.one(rectangle.job(Kind.HEXTILE, length))


def draw_hextile(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw a rectangle's tiles."""
    pixel_bytes = layout.pixel_bytes
    height, width = area.shape
    background = foreground = layout.pixels(memoryview(bytes(pixel_bytes)))[0] * 0
    for y in range(0, height, _SIDE):
        for x in range(0, width, _SIDE):
            tile = area[y : y + _SIDE, x : x + _SIDE]
            mask = source.byte()
            if mask & _RAW:
                data = source.take(tile.size * pixel_bytes)
                tile[:] = layout.pixels(data).reshape(tile.shape)
                continue
            if mask & _BACKGROUND:
                background = layout.pixels(source.take(pixel_bytes))[0]
            if mask & _FOREGROUND:
                foreground = layout.pixels(source.take(pixel_bytes))[0]
            tile[:] = background
            for _ in range(source.byte() if mask & _SUBRECTANGLES else 0):
                colour = foreground
                if mask & _COLOURED:
                    colour = layout.pixels(source.take(pixel_bytes))[0]
                place, size = source.take(2)
                left, top = place >> 4, place & 15
                right, bottom = left + (size >> 4) + 1, top + (size & 15) + 1
                if right > tile.shape[1] or bottom > tile.shape[0]:
                    raise DrawError(Fault.OUTSIDE)
                tile[top:bottom, left:right] = colour


HEXTILE = Encoding(5, "Hextile", _decode, draws=True)
