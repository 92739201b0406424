"""Security type SASL: one of the mechanisms that a server lists (rfbproto, "SASL").

Which one follows from who may listen. Where anybody may, those come first that encrypt what
follows, and none is made that shows the password: PLAIN is for TLS, SSH and UNIX sockets.
Kerberos (GSSAPI) needs a ticket and no password; where there is none, the next is tried.
"""

from __future__ import annotations

import functools
import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmconnect.errors import AuthenticationError, RfbError
from vmconnect.vnc.inbox import EndOfStreamError, Reading
from vmconnect.vnc.security import cyrus
from vmconnect.vnc.security.base import Asks, Login
from vmconnect.vnc.security.mechanisms import OWN, Mechanism, MechanismUnavailableError
from vmconnect.vnc.text import printable

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["SASL", "speak"]

_U32 = struct.Struct(">I")

_MOST_LIST_BYTES = 8 * 1024
_MOST_DATA_BYTES = 64 * 1024
_MOST_STEPS = 16


@dataclass(frozen=True, slots=True)
class _Kind:
    """A mechanism: whether it hides the password, wants one, and can encrypt what follows."""

    name: str
    hides: bool = True
    wants: bool = True
    encrypts: bool = False


_KINDS = (
    _Kind("GSSAPI", wants=False, encrypts=True),
    _Kind("SCRAM-SHA-512"),
    _Kind("SCRAM-SHA-256"),
    _Kind("SCRAM-SHA-1"),
    _Kind("DIGEST-MD5", encrypts=True),
    _Kind("CRAM-MD5"),
    _Kind("PLAIN", hides=False),
    _Kind("ANONYMOUS", wants=False),
)
"""What is made, the best first, where nobody listens."""


def _data(engine: Engine) -> Reading[tuple[bytes, bool]]:
    """Read what the server says, and whether that was all.

    QEMU refuses by hanging up.
    """
    inbox = engine.inbox
    try:
        (length,) = _U32.unpack((yield from inbox.read(_U32.size)))
    except EndOfStreamError:
        raise AuthenticationError(
            f"the VNC server hangs up in the login with {engine.login.name}",
            hint="are the user and the password right?",
        ) from None
    if length > _MOST_DATA_BYTES:
        raise engine.error(f"{length} bytes of one message")
    # A NUL at the end tells an empty text from none.
    data = bytes((yield from inbox.read(length)))[:-1]
    (complete,) = yield from inbox.read(1)
    return data, complete != 0


def _framed(data: bytes | None) -> bytes:
    return _U32.pack(0) if data is None else _U32.pack(len(data) + 1) + data + b"\0"


def _kinds(engine: Engine, offered: list[str]) -> list[_Kind]:
    """Return what can be made of ``offered``, the best first."""
    private = engine.policy.private or engine.tunnelled
    kinds = [kind for kind in _KINDS if kind.name in offered and (kind.hides or private)]
    if not private:
        kinds.sort(key=lambda kind: not kind.encrypts)
    if engine.credentials.has_password:
        # Whoever brings a password wants to be who it is for, not whose ticket is here.
        kinds.sort(key=lambda kind: not kind.wants)
    return kinds


def _makers(engine: Engine, kind: _Kind) -> Iterator[Callable[[], Mechanism]]:
    """Give the ways in which we can make our half of a mechanism."""
    credentials = engine.credentials
    hidden = not (engine.policy.private or engine.tunnelled)
    if cyrus.available():
        host = engine.policy.server_name or socket.gethostname()
        yield functools.partial(cyrus.CyrusClient, kind.name, credentials, host, hidden=hidden)
    if kind.name in OWN:
        yield functools.partial(OWN[kind.name], kind.name, credentials)


def _begin(engine: Engine, offered: list[str]) -> tuple[Mechanism, bytes | None]:
    """Begin the best mechanism that can be made; return it and what it says first."""
    reason = ""
    kinds = _kinds(engine, offered)
    for kind in kinds:
        for make in _makers(engine, kind):
            try:
                mechanism = make()
                return mechanism, mechanism.start()
            except MechanismUnavailableError as error:
                reason = f"; {error.message}"
    names = ", ".join(printable(name.encode()) for name in offered) or "none"
    private = engine.policy.private or engine.tunnelled
    if not kinds:
        hint = "let it offer SCRAM-SHA-256" + ("" if private else " within TLS")
    elif kinds[-1].wants:
        hint = "install Cyrus SASL and its modules (apt install libsasl2-modules)"
    else:
        hint = "have a ticket (kinit), and apt install libsasl2-modules-gssapi-mit"
    raise AuthenticationError(
        f"the VNC server offers no SASL mechanism that we make here: {names}{reason}", hint=hint
    )


def speak(engine: Engine) -> Reading[None]:
    """Choose a mechanism, and answer until the server has heard enough.

    What the mechanism encrypts is all that follows the SecurityResult.
    """
    inbox = engine.inbox
    (length,) = _U32.unpack((yield from inbox.read(_U32.size)))
    if length > _MOST_LIST_BYTES:
        raise engine.error(f"a list of mechanisms of {length} bytes")
    offered = bytes((yield from inbox.read(length))).decode("ascii", "replace")
    mechanism, out = _begin(engine, [word for word in re.split("[, ]", offered) if word])
    name = mechanism.name.encode()
    engine.send(_U32.pack(len(name)) + name + _framed(out))
    for _ in range(_MOST_STEPS):
        data, complete = yield from _data(engine)
        if not mechanism.done:
            out = _step(engine, mechanism, data)
        elif data:
            raise engine.error(f"more of {mechanism.name} than there is")
        else:
            out = None
        if complete:
            _end(engine, mechanism)
            return
        engine.send(_framed(out))
    raise engine.error("a login without end")


def _step(engine: Engine, mechanism: Mechanism, data: bytes) -> bytes | None:
    try:
        return mechanism.step(data)
    except RfbError as error:
        raise engine.error(error.message) from error


def _end(engine: Engine, mechanism: Mechanism) -> None:
    if not mechanism.done:
        raise engine.error(f"the end of {mechanism.name} before the server has proved who it is")
    if isinstance(mechanism, cyrus.CyrusClient) and mechanism.strength:
        from vmconnect.vnc.security.sasl_tunnel import SaslTunnel

        engine.layer = SaslTunnel(mechanism)


SASL = Login(20, "SASL", speak, Asks.USER)
