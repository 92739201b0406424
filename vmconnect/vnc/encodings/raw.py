"""Raw, 0: the pixels, row by row (RFC 6143, section 7.7.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle, Source
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["RAW", "draw_pixels"]


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    x, y, width, height = rectangle.x, rectangle.y, rectangle.width, rectangle.height
    if not width or not height:
        return
    area = engine.framebuffer.pixels[y : y + height, x : x + width]
    layout = engine.layout
    if area.flags.c_contiguous and layout.native:
        # The network writes into the framebuffer itself.
        yield from engine.inbox.fill(area.data.cast("B"))
        engine.damage.add(x, y, width, height)
        return
    row_bytes = width * layout.pixel_bytes
    done = 0
    while done < height:
        if engine.inbox.available < row_bytes:
            yield from engine.inbox.need(row_bytes)
        rows = min(engine.inbox.available // row_bytes, height - done)
        came = engine.inbox.take(rows * row_bytes)
        area[done : done + rows] = layout.pixels(came).reshape(rows, width)
        done += rows
    engine.damage.add(x, y, width, height)


def draw_pixels(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw pixels, as they also come inflated."""
    data = source.take(area.size * layout.pixel_bytes)
    area[:] = layout.pixels(data).reshape(area.shape)


RAW = Encoding(0, "Raw", _decode, draws=True)
