"""ZRLE, 16: TRLE with tiles of 64x64, through a zlib stream (RFC 6143, section 7.7.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import LENGTH_BYTES, Encoding, Rectangle, Source, read_compressed
from vmconnect.vnc.encodings.tiles import draw_tiles
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import ZRLE_STREAM, Kind
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["ZRLE", "at_most", "draw_zrle"]

_SIDE = 64


def at_most(rectangle: Rectangle, cpixel_bytes: int) -> int:
    """Return how many bytes a rectangle can be when inflated.

    Worst is a run for each pixel, and the largest palette in each tile; a byte of ZYWRLE's more.
    """
    tiles = -(-rectangle.width // _SIDE) * -(-rectangle.height // _SIDE)
    return rectangle.pixels * (cpixel_bytes + 1) + tiles * (2 + 127 * cpixel_bytes)


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    size = at_most(rectangle, engine.layout.cpixel_bytes)
    length = yield from read_compressed(engine, "ZRLE", size)
    job = rectangle.job(Kind.ZRLE, length, ZRLE_STREAM, size, LENGTH_BYTES)
    engine.walk.one(job)


def draw_zrle(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw a rectangle's tiles."""
    draw_tiles(area, source, layout, _SIDE)


ZRLE = Encoding(16, "ZRLE", _decode, draws=True)
