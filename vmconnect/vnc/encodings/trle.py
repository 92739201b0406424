"""TRLE, 15: tiles of 16x16 with palettes and runs (RFC 6143, section 7.7.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle, Source
from vmconnect.vnc.encodings.tiles import (
    PACKED_MOST,
    PLAIN_RUNS,
    RAW_TILE,
    REUSED_PACKED,
    REUSED_RUNS,
    SOLID,
    draw_tiles,
    index_bits,
)
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import Kind
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["TRLE", "draw_trle"]

_SIDE = 16


class _Cursor:
    """A place in the body of a rectangle, of which more may come."""

    def __init__(self, engine: Engine):
        self._inbox = engine.inbox
        self.position = 0

    def past(self, count: int) -> Reading[None]:
        self.position += count
        yield from self._inbox.need(self.position)

    def byte(self) -> Reading[int]:
        yield from self.past(1)
        return self._inbox.peek(self.position)[-1]


def _past_length(cursor: _Cursor, most: int) -> Reading[int]:
    """Go past a length and return it; past what tells that it is more than ``most``."""
    length, byte = 1, 255
    while byte == 255 and length <= most:
        byte = yield from cursor.byte()
        length += byte
    return length


def _past_runs(cursor: _Cursor, pixels: int, cpixel_bytes: int, indexed: bool) -> Reading[None]:
    while pixels > 0:
        if not indexed:
            yield from cursor.past(cpixel_bytes)
            pixels -= yield from _past_length(cursor, pixels)
        elif (yield from cursor.byte()) & 128:
            pixels -= yield from _past_length(cursor, pixels)
        else:
            pixels -= 1


def _past_tile(
    cursor: _Cursor, width: int, height: int, cpixel_bytes: int, colours: int
) -> Reading[int]:
    """Go past a tile and return the size of its palette; ``colours`` is the one before.

    A tile of a kind that does not exist counts as one byte: drawing it will tell.
    """
    kind = yield from cursor.byte()
    if kind == RAW_TILE:
        yield from cursor.past(width * height * cpixel_bytes)
    elif kind == SOLID:
        yield from cursor.past(cpixel_bytes)
    elif kind <= PACKED_MOST or (kind == REUSED_PACKED and 0 < colours <= PACKED_MOST):
        if kind != REUSED_PACKED:
            colours = kind
            yield from cursor.past(colours * cpixel_bytes)
        yield from cursor.past(height * -(-width * index_bits(colours) // 8))
    elif kind == PLAIN_RUNS:
        yield from _past_runs(cursor, width * height, cpixel_bytes, indexed=False)
    elif kind > REUSED_RUNS or (kind == REUSED_RUNS and colours):
        if kind != REUSED_RUNS:
            colours = kind - PLAIN_RUNS
            yield from cursor.past(colours * cpixel_bytes)
        yield from _past_runs(cursor, width * height, cpixel_bytes, indexed=True)
    return colours


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    cursor = _Cursor(engine)
    cpixel_bytes = engine.layout.cpixel_bytes
    colours = 0
    for y in range(0, rectangle.height, _SIDE):
        height = min(_SIDE, rectangle.height - y)
        for x in range(0, rectangle.width, _SIDE):
            width = min(_SIDE, rectangle.width - x)
            colours = yield from _past_tile(cursor, width, height, cpixel_bytes, colours)
    engine.walk.one(rectangle.job(Kind.TRLE, cursor.position))


def draw_trle(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw a rectangle's tiles."""
    draw_tiles(area, source, layout, _SIDE)


TRLE = Encoding(15, "TRLE", _decode, draws=True)
