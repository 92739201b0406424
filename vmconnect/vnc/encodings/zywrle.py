"""ZYWRLE, 17: ZRLE whose raw tiles hold wavelet coefficients.

rfbproto has its number and no more; this is what QEMU and libvncserver send (ui/vnc-enc-zywrle.h,
common/zywrletemplate.c). Where ZRLE has a raw tile there is, after its 0, a whole tile of ZRLE
more. Its pixels, row by row, are the coefficients: of each level, from the finest, those of the
diagonals, the rows, the columns, and last the coarse picture. What is left of the tile at the
right, at the bottom and in the corner when its sides are no multiple of 2 to the level follows
as plain pixels. A coefficient's bytes are V, Y and U where a pixel has red, green and blue.

The number of levels comes from the quality that the client asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmconnect.vnc.encodings.base import LENGTH_BYTES, Encoding, Rectangle, Source, await_compressed
from vmconnect.vnc.encodings.tiles import draw_tile
from vmconnect.vnc.encodings.zrle import at_most
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import ZRLE_STREAM, DrawError, Fault, Kind
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["ZYWRLE", "draw_zywrle", "wavelet_level"]

_SIDE = 64
_NO_COLOURS: Pixels = np.zeros(0, np.uint32)

Plane = NDArray[np.int32]


def wavelet_level(quality: int | None) -> int:
    """Return how many levels a server transforms for a coarse quality of 0 to 9.

    Where QEMU transforms nothing, for 9 and for none, it sends ZRLE; libvncserver transforms.
    """
    if quality is None or quality >= 6:
        return 1
    return 3 if quality < 3 else 2


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    size = at_most(rectangle, engine.layout.cpixel_bytes)
    length = yield from await_compressed(engine, "ZYWRLE", size)
    job = rectangle.job(Kind.ZYWRLE, length, ZRLE_STREAM, size, LENGTH_BYTES)
    engine.walk.one(job)


def _haar(low: Plane, high: Plane) -> None:
    """Undo the piecewise-linear Haar transform, in place: it is its own inverse."""
    a, b = low.copy(), high.copy()
    differ = (a ^ b) & 0x80 != 0
    total, rest = b + a, a - b
    high_where_differ = np.where((total ^ b) & 0x80 == 0, a - total, a)
    low_where_same = np.where((rest ^ a) & 0x80 == 0, b + rest, b)
    low[:] = np.where(differ, total, low_where_same).astype(np.int8)
    high[:] = np.where(differ, high_where_differ, rest).astype(np.int8)


def _synthesize(tile: Pixels, layout: Layout, level: int) -> None:
    """Turn the coefficients in a tile into pixels."""
    height, width = ((side >> level) << level for side in tile.shape)
    if not height or not width:
        return
    wire = tile.reshape(-1).copy()
    channels = [(wire >> np.uint32(shift)).astype(np.int8) for shift in layout.shifts]
    coefficients = np.stack(channels, -1).astype(np.int32)
    field = np.zeros((height, width, 3), np.int32)
    position = 0
    for i in range(level):
        half = 1 << i
        for band in (3, 2, 1, 0)[: 4 if i == level - 1 else 3]:
            part = field[half * (band >> 1) :: 2 * half, half * (band & 1) :: 2 * half]
            count = part.shape[0] * part.shape[1]
            part[:] = coefficients[position : position + count].reshape(part.shape)
            position += count
    for i in range(level - 1, -1, -1):
        half = 1 << i
        columns = field[:, ::half]
        _haar(columns[:: 2 * half], columns[half :: 2 * half])
        rows = field[::half]
        _haar(rows[:, :: 2 * half], rows[:, half :: 2 * half])
    v, luma, u = field[:, :, 0] * 2, field[:, :, 1] + 128, field[:, :, 2] * 2
    green = luma - ((u + v) >> 2)
    rgb = np.clip(np.stack([v + green, green, u + green], -1), 0, 255)
    tile[:height, :width] = layout.rgb_words(rgb.astype(np.uint8))
    for rest in (tile[:height, width:], tile[height:, :width], tile[height:, width:]):
        rest[:] = wire[position : position + rest.size].reshape(rest.shape)
        position += rest.size


def draw_zywrle(area: Pixels, source: Source, layout: Layout, level: int) -> None:
    """Draw a rectangle's tiles, transformed ``level`` times."""
    if not layout.native:
        raise DrawError(Fault.BAD_KIND)
    for y in range(0, area.shape[0], _SIDE):
        for x in range(0, area.shape[1], _SIDE):
            tile = area[y : y + _SIDE, x : x + _SIDE]
            transformed = level > 0 and source.peek() == 0
            if transformed:
                source.byte()
            draw_tile(tile, source, layout, _NO_COLOURS, trle=False)
            if transformed:
                _synthesize(tile, layout, level)


ZYWRLE = Encoding(17, "ZYWRLE", _decode, draws=True)
