"""RRE, 2, and CoRRE, 4: a background, and rectangles of one colour on it.

Sources: RFC 6143, section 7.7.3; rfbproto, "CoRRE Encoding", which has a byte where RRE has two.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle, Source
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import MOST_COVERED, DrawError, Fault, Kind
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["CORRE", "RRE", "draw_corre", "draw_rre"]

_COUNT = struct.Struct(">I")
_PLACE = struct.Struct(">HHHH")
_SMALL_PLACE = struct.Struct(">BBBB")


def _decode(engine: Engine, rectangle: Rectangle, kind: Kind, place_bytes: int) -> Reading[None]:
    yield from engine.inbox.need(_COUNT.size)
    (count,) = _COUNT.unpack(engine.inbox.peek(_COUNT.size))
    if count > rectangle.pixels:
        raise engine.error(f"{count} subrectangles of a rectangle {rectangle}")
    pixel_bytes = engine.layout.pixel_bytes
    length = _COUNT.size + pixel_bytes + count * (pixel_bytes + place_bytes)
    yield from engine.inbox.need(length)
    engine.walk.one(rectangle.job(kind, length))


def _decode_rre(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    return _decode(engine, rectangle, Kind.RRE, _PLACE.size)


def _decode_corre(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    return _decode(engine, rectangle, Kind.CORRE, _SMALL_PLACE.size)


def _draw(area: Pixels, source: Source, layout: Layout, place: struct.Struct) -> None:
    (count,) = _COUNT.unpack(source.take(_COUNT.size))
    area[:] = layout.pixels(source.take(layout.pixel_bytes))[0]
    left = MOST_COVERED * area.size
    for _ in range(count):
        colour = layout.pixels(source.take(layout.pixel_bytes))[0]
        x, y, width, height = place.unpack(source.take(place.size))
        if x + width > area.shape[1] or y + height > area.shape[0]:
            raise DrawError(Fault.OUTSIDE)
        left -= width * height
        if left < 0:
            raise DrawError(Fault.TOO_MUCH)
        area[y : y + height, x : x + width] = colour


def draw_rre(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw RRE's subrectangles."""
    _draw(area, source, layout, _PLACE)


def draw_corre(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw CoRRE's subrectangles."""
    _draw(area, source, layout, _SMALL_PLACE)


RRE = Encoding(2, "RRE", _decode_rre, draws=True)
CORRE = Encoding(4, "CoRRE", _decode_corre, draws=True)
