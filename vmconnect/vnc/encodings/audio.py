"""QEMU audio, -259: the server can send what the machine plays (rfbproto, "QEMU Audio")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import AudioOffered
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["AUDIO"]


def _decode(engine: Engine, _rectangle: Rectangle) -> Reading[None]:
    engine.audible = True
    engine.emit(AudioOffered())
    yield from ()


AUDIO = Encoding(-259, "QEMU audio", _decode)
