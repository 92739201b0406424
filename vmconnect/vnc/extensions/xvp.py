"""xvp, -309: shut down, reboot or reset the machine through its VNC server (rfbproto, "xvp")."""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.events import PowerOffered, PowerRefused
from vmconnect.vnc.extensions.base import ServerMessage
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["XVP", "XVP_MESSAGE", "PowerAction", "xvp"]

XVP = -309

_MESSAGE = 250
_VERSION = 1
_FAIL, _INIT = 0, 1


class PowerAction(enum.IntEnum):
    """What can be asked for."""

    SHUTDOWN = 2
    REBOOT = 3
    RESET = 4


def xvp(action: PowerAction) -> bytes:
    """Return the message that asks for an action."""
    return struct.pack(">BxBB", _MESSAGE, _VERSION, action)


def _read(engine: Engine) -> Reading[None]:
    _, version, code = yield from engine.inbox.read(3)
    if code == _INIT and version >= _VERSION:
        engine.powerable = True
        engine.emit(PowerOffered())
    elif code == _FAIL:
        engine.emit(PowerRefused())


XVP_MESSAGE = ServerMessage(_MESSAGE, "xvp", _read)
