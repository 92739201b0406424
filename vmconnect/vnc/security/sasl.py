"""Security type SASL: one of the mechanisms that a server lists (rfbproto, "SASL").

SCRAM, by the library `scramp`, proves both sides to each other without showing the password.
PLAIN shows it, and is made only where nobody listens; ANONYMOUS shows nothing. DIGEST-MD5 and
CRAM-MD5 are retired (RFC 6331), Kerberos needs a realm: neither is spoken. No mechanism here
encrypts what follows, which is what VeNCrypt is for.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from vmconnect.errors import AuthenticationError
from vmconnect.vnc.inbox import EndOfStreamError, Reading
from vmconnect.vnc.security.base import Asks, Login
from vmconnect.vnc.text import printable

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["SASL", "speak"]

_U32 = struct.Struct(">I")

_MOST_LIST_BYTES = 8 * 1024
_MOST_DATA_BYTES = 64 * 1024
_MOST_STEPS = 16
# RFC 7677 asks for 4096 rounds at least. A server that asks for so many more wants our time.
_MOST_ROUNDS = 2_000_000

_ROUNDS = re.compile(r"(?:^|,)i=(\d{1,10})(?:,|$)")

_Exchange = Generator[bytes, bytes, None]
"""Gives what we send, and takes what the server answers; nothing, again and again, at the end."""


def _scram(engine: Engine, mechanism: str) -> _Exchange:
    from scramp import ScramClient, ScramException

    credentials = engine.credentials
    client = ScramClient([mechanism], credentials.user(), credentials.password())
    try:
        first = (yield client.get_client_first().encode()).decode()
        rounds = _ROUNDS.search(first)
        if rounds is None or int(rounds[1]) > _MOST_ROUNDS:
            raise engine.error(f"{rounds[1] if rounds else 'no'} rounds of {mechanism}")
        client.set_server_first(first)
        final = (yield client.get_client_final().encode()).decode()
        # This is where the server proves that it knows the password.
        client.set_server_final(final)
    except UnicodeDecodeError as error:
        raise engine.error(f"what is no text in {mechanism}") from error
    except ScramException as error:
        raise AuthenticationError(
            f"{mechanism} fails: {printable(str(error).encode())}",
            hint="are the user and the password right?",
        ) from error
    yield from _nothing()


def _plain(engine: Engine, _mechanism: str) -> _Exchange:
    user, password = engine.credentials.user(), engine.credentials.password()
    if "\0" in user + password:
        raise AuthenticationError("SASL takes no NUL in a name or a password")
    yield b"\0" + user.encode() + b"\0" + password.encode()
    yield from _nothing()


def _anonymous(_engine: Engine, _mechanism: str) -> _Exchange:
    yield b"vmconnect"
    yield from _nothing()


def _nothing() -> _Exchange:
    while True:
        yield b""


_MECHANISMS: dict[str, tuple[Callable[[Engine, str], _Exchange], bool]] = {
    "SCRAM-SHA-512": (_scram, True),
    "SCRAM-SHA-256": (_scram, True),
    "SCRAM-SHA-1": (_scram, True),
    "PLAIN": (_plain, False),
    "ANONYMOUS": (_anonymous, True),
}
"""What we speak, the safest first, and whether it hides the password."""


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


def _framed(data: bytes) -> bytes:
    return _U32.pack(len(data) + 1) + data + b"\0"


def _choose(engine: Engine, offered: list[str]) -> str:
    private = engine.policy.private or engine.tunnelled
    for name, (_, hides) in _MECHANISMS.items():
        if name in offered and (hides or private):
            return name
    names = ", ".join(printable(name.encode()) for name in offered) or "none"
    raise AuthenticationError(
        f"the VNC server offers no SASL mechanism that we make here: {names}",
        hint="let it offer SCRAM-SHA-256" + ("" if private else "; PLAIN is for TLS only"),
    )


def speak(engine: Engine) -> Reading[None]:
    """Choose a mechanism, and answer until the server has heard enough."""
    inbox = engine.inbox
    (length,) = _U32.unpack((yield from inbox.read(_U32.size)))
    if length > _MOST_LIST_BYTES:
        raise engine.error(f"a list of mechanisms of {length} bytes")
    offered = bytes((yield from inbox.read(length))).decode("ascii", "replace")
    name = _choose(engine, [word for word in re.split("[, ]", offered) if word])
    exchange = _MECHANISMS[name][0](engine, name)
    engine.send(_U32.pack(len(name)) + name.encode() + _framed(next(exchange)))
    for _ in range(_MOST_STEPS):
        answer, complete = yield from _data(engine)
        out = exchange.send(answer)
        if complete:
            if out:
                raise engine.error(f"the end of {name} before the server has proved who it is")
            return
        engine.send(_framed(out))
    raise engine.error("a login without end")


SASL = Login(20, "SASL", speak, Asks.USER)
