"""PointerPos, -232: where the machine has put the pointer (libvncserver's rfbproto.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import PointerMoved
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["POINTER_POSITION"]


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    engine.emit(PointerMoved(rectangle.x, rectangle.y))
    yield from ()


POINTER_POSITION = Encoding(-232, "PointerPos", _decode)
