"""Plain: a user's name and a password as they are (rfbproto, VeNCrypt's Plain subtype)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security.base import Asks, Login

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["PLAIN", "UNIX_LOGIN", "speak"]

_LENGTHS = struct.Struct(">II")


def speak(engine: Engine) -> Reading[None]:
    """Send the name and the password."""
    user = engine.credentials.user().encode()
    password = engine.credentials.password().encode()
    engine.send(_LENGTHS.pack(len(user), len(password)) + user + password)
    yield from ()


PLAIN = Login(256, "Plain", speak, Asks.USER, hides=False)
# Its number is one of Tight's, not a security type.
UNIX_LOGIN = Login(129, "Unix login", speak, Asks.USER, hides=False)
