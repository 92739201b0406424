"""ExtendedMouseButtons, -316: the server takes buttons past the seventh (rfbproto)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["EXTENDED_BUTTONS"]


def _decode(engine: Engine, _rectangle: Rectangle) -> Reading[None]:
    engine.extended_buttons = True
    yield from ()


EXTENDED_BUTTONS = Encoding(-316, "ExtendedMouseButtons", _decode)
