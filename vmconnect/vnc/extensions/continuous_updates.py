"""ContinuousUpdates, -313: updates come without being asked for one by one (rfbproto).

The server says that it can by EndOfContinuousUpdates, which it sends first of all. From then on
a slow link costs its bandwidth and no longer its round trips. The server paces itself by fences.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.extensions.base import ServerMessage
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["CONTINUOUS_UPDATES", "END_OF_UPDATES", "enable_continuous_updates"]

CONTINUOUS_UPDATES = -313

_MESSAGE = 150


def enable_continuous_updates(enable: bool, width: int, height: int) -> bytes:
    """Return the message that asks for all changes of the screen, or for no more."""
    return struct.pack(">BBHHHH", _MESSAGE, enable, 0, 0, width, height)


def _read(engine: Engine) -> Reading[None]:
    if engine.pull and not engine.continuous:
        engine.continuous = True
        size = engine.framebuffer.width, engine.framebuffer.height
        engine.send(enable_continuous_updates(True, *size))
    yield from ()


END_OF_UPDATES = ServerMessage(_MESSAGE, "EndOfContinuousUpdates", _read)
