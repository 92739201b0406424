"""CopyRect, 1: another part of the screen (RFC 6143, section 7.7.2)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle, Source
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import DrawError, Fault, Kind

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["COPYRECT", "draw_copy"]

_SOURCE = struct.Struct(">HH")


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    yield from engine.inbox.need(_SOURCE.size)
    engine.walk.one(rectangle.job(Kind.COPY, _SOURCE.size))


def draw_copy(area: Pixels, source: Source, pixels: Pixels) -> None:
    """Draw a part of ``pixels``, the whole screen, which may overlap the area."""
    x, y = _SOURCE.unpack(source.take(_SOURCE.size))
    height, width = area.shape
    if x + width > pixels.shape[1] or y + height > pixels.shape[0]:
        raise DrawError(Fault.OUTSIDE)
    # numpy minds the overlap.
    area[:] = pixels[y : y + height, x : x + width]


COPYRECT = Encoding(1, "CopyRect", _decode, draws=True)
