"""QEMU LED state, -261: the lights of the machine's keyboard (rfbproto, of that name)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import LedState
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["LED_STATE"]


def _decode(engine: Engine, _rectangle: Rectangle) -> Reading[None]:
    (state,) = yield from engine.inbox.read(1)
    engine.leds = LedState(bool(state & 1), bool(state & 2), bool(state & 4))
    engine.emit(engine.leds)


LED_STATE = Encoding(-261, "QEMU LED state", _decode)
