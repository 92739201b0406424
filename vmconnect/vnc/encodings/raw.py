"""Raw, 0: the pixels, row by row (RFC 6143, section 7.7.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle, Source
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.inbox import EndOfStreamError, Reading
from vmconnect.vnc.jobs import Kind
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["RAW", "draw_pixels"]

_LITTLE_BYTES = 32 * 1024
_CHUNK_BYTES = 128 * 1024


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    x, y, width, height = rectangle.x, rectangle.y, rectangle.width, rectangle.height
    if not width or not height:
        return
    layout = engine.layout
    row_bytes = width * layout.pixel_bytes
    if height * row_bytes <= _LITTLE_BYTES:
        # More than these bytes may come at once.
        try:
            yield from engine.inbox.need(height * row_bytes)
        except EndOfStreamError:
            whole = engine.inbox.available // row_bytes
            part = Rectangle(x, y, width, whole)
            engine.walk.one(part.job(Kind.PIXELS, whole * row_bytes))
            raise
        engine.walk.one(rectangle.job(Kind.PIXELS, height * row_bytes))
        return
    area = engine.area(rectangle)
    if area.flags.c_contiguous and layout.native:
        # The network writes into the framebuffer itself.
        yield from engine.inbox.fill(area.data.cast("B"))
        engine.damage.add(x, y, width, height)
        return
    # Some rows at a time, which are still in the processor's cache when they are drawn.
    most = min(height, max(1, _CHUNK_BYTES // row_bytes))
    chunk = memoryview(bytearray(most * row_bytes))
    for top in range(0, height, most):
        rows = area[top : top + most]
        came = chunk[: len(rows) * row_bytes]
        yield from engine.inbox.fill(came)
        rows[:] = layout.pixels(came).reshape(rows.shape)
    engine.damage.add(x, y, width, height)


def draw_pixels(area: Pixels, source: Source, layout: Layout) -> None:
    """Draw pixels, as they also come inflated."""
    data = source.take(area.size * layout.pixel_bytes)
    area[:] = layout.pixels(data).reshape(area.shape)


RAW = Encoding(0, "Raw", _decode, draws=True)
