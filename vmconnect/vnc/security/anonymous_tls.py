"""Security type 18, TLS: anonymous TLS, and a list of logins within (vino, gtk-vnc, x11vnc)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security.base import Asks, Login, log_in
from vmconnect.vnc.security.choice import choose
from vmconnect.vnc.security.none import NONE
from vmconnect.vnc.security.sasl import SASL
from vmconnect.vnc.security.vncauth import VNC_AUTH

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["ANONYMOUS_TLS"]

_LOGINS = (SASL, VNC_AUTH, NONE)


def _speak(engine: Engine) -> Reading[None]:
    from vmconnect.vnc.security.tls import Proof, secure  # With Python's ssl: 10 ms.

    yield from secure(engine, Proof.NONE)
    (count,) = yield from engine.inbox.read(1)
    offered = tuple((yield from engine.inbox.read(count)))
    login = choose(offered, _LOGINS, engine)
    engine.send(bytes((login.number,)))
    yield from log_in(engine, login)


ANONYMOUS_TLS = Login(18, "TLS", _speak, Asks.DEPENDS, encrypts=True)
