"""Large rectangles of zlib data, drawn as they come.

A server may send its whole screen as one rectangle. To wait for its end would take memory for all
that is compressed and all that is inflated, and time in which nothing is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vmconnect.vnc.encodings.base import HEADER_BYTES, LENGTH_BYTES, Rectangle
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.inflate import InflateError
from vmconnect.vnc.jobs import FAULTS, DrawError, Fault, Kind

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["LARGE_BYTES", "Drawing", "draw_as_it_comes"]

LARGE_BYTES = 64 * 1024
"""Compressed data of less are waited for, and are drawn with others; as much is read at a time."""


class Drawing(Protocol):
    """A rectangle that is being drawn."""

    @property
    def whole(self) -> bool:
        """Whether nothing is left to be drawn."""

    def draw(self, data: memoryview) -> int:
        """Draw what is whole in ``data``, and return how many bytes that was.

        Raises DrawError.
        """


def draw_as_it_comes(  # noqa: PLR0917
    engine: Engine, rectangle: Rectangle, kind: Kind, stream: int, size: int, drawing: Drawing
) -> Reading[None]:
    """Read a length and as many bytes of ``stream``, which inflate to at most ``size``.

    The length is in the inbox, and was compared with ``size``.
    """
    inbox = engine.inbox
    header = inbox.offset - HEADER_BYTES
    left = int.from_bytes(inbox.take(LENGTH_BYTES), "big")
    pieces = engine.walk.stream(stream).pieces(left, size)
    rest = b""
    try:
        while left:
            yield from inbox.need(min(left, LARGE_BYTES))
            data = inbox.take(min(left, LARGE_BYTES))
            left -= len(data)
            for piece in pieces.inflate(data):
                inflated = rest + piece if rest else piece
                rest = inflated[drawing.draw(memoryview(inflated)) :]
            engine.check_cancelled()
        if not drawing.whole:
            raise DrawError(Fault.SHORT)
        if rest:
            raise DrawError(Fault.LEFT_OVER)
    except InflateError as error:
        raise engine.walk.error(rectangle, kind, str(error), header) from error.__cause__
    except DrawError as error:
        raise engine.walk.error(rectangle, kind, FAULTS[error.fault], header) from None
    engine.damage.add(rectangle.x, rectangle.y, rectangle.width, rectangle.height)
