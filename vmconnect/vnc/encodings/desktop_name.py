"""DesktopName, -307: the desktop has another name (rfbproto, "DesktopName")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import NameChanged
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["DESKTOP_NAME"]


def _decode(engine: Engine, _rectangle: Rectangle) -> Reading[None]:
    engine.name = yield from engine.read_name()
    engine.emit(NameChanged(engine.name))


DESKTOP_NAME = Encoding(-307, "DesktopName", _decode)
