"""Fence, -312: the server asks us to answer when we have come so far (rfbproto, "Fence").

Servers measure the link with it. All that comes before a fence is done when we answer it, and
nothing after it is begun: messages are read one after the other, so every way of blocking that a
fence can ask for is kept without more ado.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.extensions.base import ServerMessage
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["FENCE", "FENCE_MESSAGE", "fence"]

FENCE = -312

_MESSAGE = 248
_FENCE = struct.Struct(">xxxIB")
_MAX_PAYLOAD = 64
_REQUEST = 1 << 31
# BlockBefore and BlockAfter; SyncNext is about what follows our own fences, which we send none of.
_KEPT = 1 | 2


def fence(flags: int, payload: bytes) -> bytes:
    """Return the message of a fence."""
    return struct.pack(">BxxxIB", _MESSAGE, flags, len(payload)) + payload


def _read(engine: Engine) -> Reading[None]:
    flags, length = _FENCE.unpack((yield from engine.inbox.read(_FENCE.size)))
    if length > _MAX_PAYLOAD:
        raise engine.error(f"a payload of {length} bytes, at most {_MAX_PAYLOAD} may come")
    payload = bytes((yield from engine.inbox.read(length)))
    # An answer is to none of our questions. And a request is answered once: no recursion.
    if flags & _REQUEST:
        engine.send(fence(flags & _KEPT, payload))


FENCE_MESSAGE = ServerMessage(_MESSAGE, "Fence", _read)
