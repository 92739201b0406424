"""QEMU extended key event, -258: the server takes scancodes (rfbproto, of that name)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import ScancodesAccepted
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["EXTENDED_KEY"]


def _decode(engine: Engine, _rectangle: Rectangle) -> Reading[None]:
    engine.scancodes = True
    engine.emit(ScancodesAccepted())
    yield from ()


EXTENDED_KEY = Encoding(-258, "QEMU extended key event", _decode)
