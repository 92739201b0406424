"""Raw, 0: the pixels, row by row (RFC 6143, section 7.7.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.pixel_format import BYTES_PER_PIXEL

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["RAW"]


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    x, y, width, height = rectangle.x, rectangle.y, rectangle.width, rectangle.height
    if not width or not height:
        return
    area = engine.framebuffer.pixels[y : y + height, x : x + width]
    if area.flags.c_contiguous:
        # The network writes into the framebuffer itself.
        yield from engine.inbox.fill(area.data.cast("B"))
        return
    row_bytes = width * BYTES_PER_PIXEL
    done = 0
    while done < height:
        if engine.inbox.available < row_bytes:
            yield from engine.inbox.need(row_bytes)
        rows = min(engine.inbox.available // row_bytes, height - done)
        came = engine.inbox.take(rows * row_bytes)
        area[done : done + rows] = np.frombuffer(came, "<u4").reshape(rows, width)
        done += rows


RAW = Encoding(0, "Raw", _decode, draws=True)
