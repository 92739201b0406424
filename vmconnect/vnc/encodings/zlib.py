"""Zlib, 6: Raw through a zlib stream of its own (rfbproto, "Zlib Encoding")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import LENGTH_BYTES, Encoding, Rectangle, read_compressed
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import ZLIB_STREAM, Kind

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["ZLIB"]


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    size = rectangle.pixels * engine.layout.pixel_bytes
    length = yield from read_compressed(engine, "Zlib", size)
    job = rectangle.job(Kind.PIXELS, length, ZLIB_STREAM, size, LENGTH_BYTES)
    engine.walk.one(job)


ZLIB = Encoding(6, "Zlib", _decode, draws=True)
