"""CopyRect, 1: another part of the screen (RFC 6143, section 7.7.2)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["COPYRECT"]

_SOURCE = struct.Struct(">HH")


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    x, y, width, height = rectangle.x, rectangle.y, rectangle.width, rectangle.height
    from_x, from_y = _SOURCE.unpack((yield from engine.inbox.read(_SOURCE.size)))
    if from_x + width > engine.framebuffer.width or from_y + height > engine.framebuffer.height:
        raise engine.error(f"CopyRect {rectangle} from {from_x},{from_y}, outside the screen")
    pixels = engine.framebuffer.pixels
    # numpy minds the overlap of source and destination.
    pixels[y : y + height, x : x + width] = pixels[
        from_y : from_y + height, from_x : from_x + width
    ]


COPYRECT = Encoding(1, "CopyRect", _decode, draws=True)
