"""Security type Tight: TightVNC's list of tunnels and logins (rfbproto, "Tight Security Type").

It also lengthens ServerInit by lists of what the server can do, which tell us nothing that the
encodings and messages themselves do not.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security.base import Asks, Login, log_in
from vmconnect.vnc.security.choice import choose
from vmconnect.vnc.security.none import NONE
from vmconnect.vnc.security.plain import UNIX_LOGIN
from vmconnect.vnc.security.sasl import SASL
from vmconnect.vnc.security.vencrypt import VENCRYPT
from vmconnect.vnc.security.vncauth import VNC_AUTH

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["TIGHT", "skip_capabilities"]

_COUNT = struct.Struct(">I")
_CODE = struct.Struct(">i")
_CAPABILITY = struct.Struct(">i4s8s")
_CAPABILITY_COUNTS = struct.Struct(">HHHxx")

_MOST_CAPABILITIES = 1024

_NO_TUNNEL = (0, b"TGHT", b"NOTUNNEL")

_LOGINS = (VENCRYPT, SASL, VNC_AUTH, NONE, UNIX_LOGIN)

_SIGNATURES = {
    1: (b"STDV", b"NOAUTH__"),
    2: (b"STDV", b"VNCAUTH_"),
    19: (b"VENC", b"VENCRYPT"),
    20: (b"GTKV", b"SASL____"),
    129: (b"TGHT", b"ULGNAUTH"),
}
"""Tight's logins: the numbers are its own, and mean something only with vendor and signature."""


def _capabilities(engine: Engine) -> Reading[list[tuple[int, bytes, bytes]]]:
    (count,) = _COUNT.unpack((yield from engine.inbox.read(_COUNT.size)))
    if count > _MOST_CAPABILITIES:
        raise engine.error(f"{count} capabilities")
    data = yield from engine.inbox.read(count * _CAPABILITY.size)
    return [*_CAPABILITY.iter_unpack(data)]


def _speak(engine: Engine) -> Reading[None]:
    tunnels = yield from _capabilities(engine)
    if tunnels:
        if _NO_TUNNEL not in tunnels:
            raise engine.error("no tunnel that is none")
        engine.send(_CODE.pack(_NO_TUNNEL[0]))
    offered = yield from _capabilities(engine)
    engine.capabilities_follow = True
    if not offered:
        yield from log_in(engine, choose((NONE.number,), _LOGINS, engine))
        return
    known = [code for code, *signature in offered if _SIGNATURES.get(code) == tuple(signature)]
    login = choose(known, _LOGINS, engine)
    engine.send(_CODE.pack(login.number))
    yield from log_in(engine, login)


def skip_capabilities(engine: Engine) -> Reading[None]:
    """Read the lists that follow ServerInit after this login."""
    inbox = engine.inbox
    counts = _CAPABILITY_COUNTS.unpack((yield from inbox.read(_CAPABILITY_COUNTS.size)))
    yield from inbox.skip(sum(counts) * _CAPABILITY.size)


TIGHT = Login(16, "Tight", _speak, Asks.DEPENDS, proves=True)
