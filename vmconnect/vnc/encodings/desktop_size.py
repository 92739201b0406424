"""DesktopSize, -223: the screen has another size (RFC 6143, section 7.8.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import Resized
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["DESKTOP_SIZE"]


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    changed = engine.resize(rectangle.width, rectangle.height)
    engine.emit(Resized(rectangle.width, rectangle.height, changed))
    yield from ()


DESKTOP_SIZE = Encoding(-223, "DesktopSize", _decode)
