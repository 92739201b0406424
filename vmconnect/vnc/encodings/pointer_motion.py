"""QEMU pointer motion change, -257: absolute positions or relative motion (rfbproto)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import PointerMode
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["POINTER_MOTION"]


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    engine.absolute = rectangle.x != 0
    engine.emit(PointerMode(engine.absolute))
    yield from ()


POINTER_MOTION = Encoding(-257, "QEMU pointer motion change", _decode)
