"""The tiles that TRLE and ZRLE are made of (RFC 6143, section 7.7.5)."""

from __future__ import annotations

import numpy as np

from vmconnect.vnc.encodings.base import Source
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.jobs import DrawError, Fault
from vmconnect.vnc.layout import Layout

__all__ = [
    "PACKED_MOST",
    "PLAIN_RUNS",
    "RAW_TILE",
    "REUSED_PACKED",
    "REUSED_RUNS",
    "SOLID",
    "draw_tile",
    "draw_tiles",
    "index_bits",
]

RAW_TILE = 0
SOLID = 1
PACKED_MOST = 16
REUSED_PACKED = 127
PLAIN_RUNS = 128
REUSED_RUNS = 129

_NO_COLOURS: Pixels = np.zeros(0, np.uint32)


def index_bits(colours: int) -> int:
    """Return how many bits an index into a palette of so many colours has."""
    return 1 if colours == 2 else 2 if colours <= 4 else 4


def _draw_packed(tile: Pixels, source: Source, palette: Pixels) -> None:
    height, width = tile.shape
    bits = index_bits(len(palette))
    row_bytes = -(-width * bits // 8)
    data = np.frombuffer(source.take(row_bytes * height), np.uint8).reshape(height, row_bytes)
    ones = np.unpackbits(data, axis=1)[:, : width * bits].reshape(height, width, bits)
    indices = np.packbits(ones, axis=2)[:, :, 0] >> np.uint8(8 - bits)
    if int(indices.max()) >= len(palette):
        raise DrawError(Fault.BAD_INDEX)
    tile[:] = palette[indices]


def _run_length(source: Source, most: int) -> int:
    """Read a length, or as much of it as tells that it is more than ``most``."""
    length, byte = 1, 255
    while byte == 255 and length <= most:
        byte = source.byte()
        length += byte
    return length


def _draw_runs(tile: Pixels, source: Source, layout: Layout, palette: Pixels | None) -> None:
    colours: list[int] = []
    lengths: list[int] = []
    left = tile.size
    while left > 0:
        if palette is None:
            colours.append(int(layout.cpixels(source.take(layout.cpixel_bytes))[0]))
            lengths.append(_run_length(source, left))
        else:
            index = source.byte()
            if index & 127 >= len(palette):
                raise DrawError(Fault.BAD_INDEX)
            colours.append(int(palette[index & 127]))
            lengths.append(_run_length(source, left) if index & 128 else 1)
        left -= lengths[-1]
    if left < 0:
        raise DrawError(Fault.BAD_RUN)
    tile[:] = np.repeat(np.array(colours, np.uint32), lengths).reshape(tile.shape)


def draw_tile(tile: Pixels, source: Source, layout: Layout, palette: Pixels, trle: bool) -> Pixels:
    """Draw a tile and return its palette; ``palette`` is the one before."""
    kind = source.byte()
    if kind == RAW_TILE:
        data = source.take(tile.size * layout.cpixel_bytes)
        tile[:] = layout.cpixels(data).reshape(tile.shape)
    elif kind == SOLID:
        tile[:] = layout.cpixels(source.take(layout.cpixel_bytes))[0]
    elif kind <= PACKED_MOST:
        palette = layout.cpixels(source.take(kind * layout.cpixel_bytes))
        _draw_packed(tile, source, palette)
    elif kind == PLAIN_RUNS:
        _draw_runs(tile, source, layout, None)
    elif kind > REUSED_RUNS:
        palette = layout.cpixels(source.take((kind - PLAIN_RUNS) * layout.cpixel_bytes))
        _draw_runs(tile, source, layout, palette)
    elif trle and kind == REUSED_RUNS and len(palette):
        _draw_runs(tile, source, layout, palette)
    elif trle and kind == REUSED_PACKED and 0 < len(palette) <= PACKED_MOST:
        _draw_packed(tile, source, palette)
    else:
        raise DrawError(Fault.BAD_KIND)
    return palette


def draw_tiles(area: Pixels, source: Source, layout: Layout, side: int) -> None:
    """Draw a rectangle's tiles, ``side`` pixels wide and high: 16 for TRLE, 64 for ZRLE."""
    palette = _NO_COLOURS
    for y in range(0, area.shape[0], side):
        for x in range(0, area.shape[1], side):
            tile = area[y : y + side, x : x + side]
            palette = draw_tile(tile, source, layout, palette, side == 16)
