"""Security type VeNCrypt: TLS, then one of the other logins (rfbproto, "VeNCrypt")."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

from vmconnect.errors import ConnectError
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security.base import Asks, Login, log_in
from vmconnect.vnc.security.choice import choose
from vmconnect.vnc.security.none import NONE
from vmconnect.vnc.security.plain import PLAIN
from vmconnect.vnc.security.ra2 import RA2, RA2_256, RA2NE, RA2NE_256
from vmconnect.vnc.security.sasl import SASL
from vmconnect.vnc.security.vncauth import VNC_AUTH

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["SUBTYPES", "VENCRYPT"]

_VERSION = bytes((0, 2))
_U32 = struct.Struct(">I")


def _handshake(engine: Engine, proof: str) -> Reading[None]:
    from vmconnect.vnc.security.tls import Proof, secure  # With Python's ssl: 10 ms.

    (accepted,) = yield from engine.inbox.read(1)
    if accepted != 1:
        raise ConnectError(
            "the VNC server cannot do what it offers: TLS", hint="see its log for the reason"
        )
    yield from secure(engine, Proof[proof])


def _within(proof: str, inner: Login, engine: Engine) -> Reading[None]:
    yield from _handshake(engine, proof)
    engine.message = engine.login.name
    yield from inner.speak(engine)


def _sasl(engine: Engine) -> Reading[None]:
    yield from _handshake(engine, "EITHER")
    engine.login = X509_SASL if engine.proved else TLS_SASL
    engine.message = engine.login.name
    yield from SASL.speak(engine)


def _tls(number: int, inner: Login) -> Login:
    speak = functools.partial(_within, "NONE", inner)
    return Login(number, f"TLS{_SUFFIXES[inner]}", speak, inner.asks, encrypts=True)


def _x509(number: int, inner: Login) -> Login:
    speak = functools.partial(_within, "CERTIFICATE", inner)
    name = f"X509{_SUFFIXES[inner]}"
    return Login(number, name, speak, inner.asks, encrypts=True, proves=True)


_SUFFIXES = {PLAIN: "Plain", VNC_AUTH: "Vnc", NONE: "None"}

# rfbproto says 263 for TLSSASL and 264 for X509SASL, QEMU (ui/vnc.h) and gtk-vnc have them the
# other way round. What the server shows tells.
X509_SASL = Login(264, "X509SASL", _sasl, Asks.USER, encrypts=True, proves=True)
TLS_SASL = Login(263, "TLSSASL", _sasl, Asks.USER, encrypts=True, proves=True)

SUBTYPES: tuple[Login, ...] = (
    X509_SASL,
    _x509(262, PLAIN),
    _x509(261, VNC_AUTH),
    _x509(260, NONE),
    RA2_256,
    RA2,
    TLS_SASL,
    _tls(259, PLAIN),
    _tls(258, VNC_AUTH),
    _tls(257, NONE),
    RA2NE_256,
    RA2NE,
    SASL,
    VNC_AUTH,
    NONE,
    PLAIN,
)
"""The logins within VeNCrypt, the safest first."""


def _speak(engine: Engine) -> Reading[None]:
    inbox = engine.inbox
    version = bytes((yield from inbox.read(len(_VERSION))))
    if version < _VERSION:
        raise engine.error(f"version {version[0]}.{version[1]} of VeNCrypt, not 0.2")
    engine.send(_VERSION)
    (refused,) = yield from inbox.read(1)
    if refused:
        raise engine.error("the server refuses version 0.2 of VeNCrypt")
    (count,) = yield from inbox.read(1)
    words = yield from inbox.read(count * _U32.size)
    login = choose((number for (number,) in _U32.iter_unpack(words)), SUBTYPES, engine)
    engine.send(_U32.pack(login.number))
    yield from log_in(engine, login)


VENCRYPT = Login(19, "VeNCrypt", _speak, Asks.DEPENDS, encrypts=True, proves=True)
