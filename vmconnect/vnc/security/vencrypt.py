"""Security type VeNCrypt: TLS, then one of the other logins (rfbproto, "VeNCrypt")."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

from vmconnect.errors import ConnectError
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security import none, plain, sasl, vncauth
from vmconnect.vnc.security.base import Asks, Login, log_in
from vmconnect.vnc.security.choice import choose
from vmconnect.vnc.security.none import NONE
from vmconnect.vnc.security.plain import PLAIN
from vmconnect.vnc.security.ra2 import RA2, RA2_256, RA2NE, RA2NE_256
from vmconnect.vnc.security.sasl import SASL
from vmconnect.vnc.security.vncauth import VNC_AUTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmconnect.vnc.engine import Engine

__all__ = ["SUBTYPES", "VENCRYPT"]

_VERSION = bytes((0, 2))
_U32 = struct.Struct(">I")


def _within_tls(
    anonymous: bool, speak: Callable[[Engine], Reading[None]], engine: Engine
) -> Reading[None]:
    from vmconnect.vnc.security.tls import secure  # With Python's ssl: 10 ms.

    (accepted,) = yield from engine.inbox.read(1)
    if accepted != 1:
        raise ConnectError(
            "the VNC server cannot do what it offers: TLS", hint="see its log for the reason"
        )
    name = engine.message
    yield from secure(engine, anonymous=anonymous)
    engine.message = name
    yield from speak(engine)


def _tls(number: int, name: str, speak: Callable[[Engine], Reading[None]], asks: Asks) -> Login:
    within = functools.partial(_within_tls, True, speak)
    return Login(number, name, within, asks, encrypts=True)


def _x509(number: int, name: str, speak: Callable[[Engine], Reading[None]], asks: Asks) -> Login:
    within = functools.partial(_within_tls, False, speak)
    return Login(number, name, within, asks, encrypts=True, proves=True)


SUBTYPES: tuple[Login, ...] = (
    _x509(264, "X509SASL", sasl.speak, Asks.USER),
    _x509(262, "X509Plain", plain.speak, Asks.USER),
    _x509(261, "X509Vnc", vncauth.speak, Asks.PASSWORD),
    _x509(260, "X509None", none.speak, Asks.NOTHING),
    RA2_256,
    RA2,
    _tls(263, "TLSSASL", sasl.speak, Asks.USER),
    _tls(259, "TLSPlain", plain.speak, Asks.USER),
    _tls(258, "TLSVnc", vncauth.speak, Asks.PASSWORD),
    _tls(257, "TLSNone", none.speak, Asks.NOTHING),
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
