"""The handshake, from the server's version to ServerInit (RFC 6143, sections 7.1 to 7.3)."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from vmconnect.errors import AuthenticationError, ConnectError, RfbError
from vmconnect.vnc.events import Connected
from vmconnect.vnc.inbox import EndOfStreamError, Reading
from vmconnect.vnc.pixel_format import OURS, PIXEL_FORMAT_BYTES, PixelFormat
from vmconnect.vnc.security import LOGINS, NONE, Asks, Login, choose, log_in
from vmconnect.vnc.security.tight import skip_capabilities
from vmconnect.vnc.states import State
from vmconnect.vnc.text import printable

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["handshake"]

_VERSION_BYTES = 12
_VERSION = re.compile(rb"RFB (\d{3})\.(\d{3})\n")

# How much of a foreign greeting, and of a server's reason, is worth showing.
_GREETING_BYTES = 64
_REASON_BYTES = 1024

_HINTS = {
    Asks.NOTHING: None,
    Asks.PASSWORD: "is the password right, and not expired?",
    Asks.USER: "are the user and the password right?",
    Asks.DEPENDS: "are the user and the password right?",
}

_U32 = struct.Struct(">I")
_SIZE = struct.Struct(">HH")


def handshake(engine: Engine) -> Reading[None]:
    """Speak the handshake; the engine is then in NORMAL and has emitted Connected."""
    try:
        yield from _handshake(engine)
    except AuthenticationError as error:
        error.offered = tuple(engine.offered)
        raise


def _handshake(engine: Engine) -> Reading[None]:
    minor = yield from _version(engine)
    engine.enter(State.SECURITY, "Security")
    login = yield from (_given_login(engine) if minor < 7 else _offered_login(engine))
    engine.enter(State.LOGIN, login.name)
    yield from log_in(engine, login)
    if engine.login is not NONE or minor >= 8:
        engine.enter(State.SECURITY_RESULT, "SecurityResult")
        yield from _security_result(engine, minor)
    if engine.layer is not None:
        engine.enter_tunnel(engine.layer)
    engine.enter(State.INIT, "ServerInit")
    yield from _init(engine)


def _version(engine: Engine) -> Reading[int]:
    """Agree on 3.3, 3.7 or 3.8 and return the minor number."""
    inbox = engine.inbox
    engine.message = "ProtocolVersion"
    try:
        yield from inbox.need(4)
        if bytes(inbox.peek(4)) == b"RFB ":
            yield from inbox.need(_VERSION_BYTES)
    except EndOfStreamError:
        if inbox.available:
            raise _not_rfb(engine) from None
        raise
    match = _VERSION.match(bytes(inbox.peek(_VERSION_BYTES)))
    if match is None:
        raise _not_rfb(engine)
    inbox.consume(_VERSION_BYTES)
    major, minor = int(match[1]), int(match[2])
    if major < 3:
        raise RfbError(
            f"the server speaks RFB {major}.{minor}",
            offset=0,
            hint="is it a repeater? RFB 3.3 or later is needed",
        )
    # 3.889 is Apple's, 4 and 5 are RealVNC's, 3.4 to 3.6 are UltraVNC's: RFC 6143 reads all
    # but 3.7 and 3.8 as 3.3; those numbered higher take 3.8.
    agreed = 8 if major > 3 or minor >= 8 else 7 if minor == 7 else 3
    engine.send(b"RFB 003.%03d\n" % agreed)
    return agreed


def _not_rfb(engine: Engine) -> RfbError:
    greeting = printable(engine.inbox.peek(_GREETING_BYTES))
    return RfbError(
        f"this is no VNC server: it says {greeting!r}", offset=0, hint="is the port right?"
    )


def _given_login(engine: Engine) -> Reading[Login]:
    """Read the security type that a 3.3 server has decided on."""
    (number,) = _U32.unpack((yield from engine.inbox.read(_U32.size)))
    if number == 0:
        raise (yield from _refusal(engine))
    return choose((number,), LOGINS, engine)


def _offered_login(engine: Engine) -> Reading[Login]:
    """Read the security types that a server offers, and say which we take."""
    (count,) = yield from engine.inbox.read(1)
    if count == 0:
        raise (yield from _refusal(engine))
    offered = tuple((yield from engine.inbox.read(count)))
    login = choose(offered, LOGINS, engine)
    engine.send(bytes((login.number,)))
    return login


def _refusal(engine: Engine) -> Reading[ConnectError]:
    reason = yield from _reason(engine)
    return ConnectError(
        f"the VNC server refuses the connection: {reason or 'it gives no reason'}",
        hint="too many wrong passwords, or too many clients?",
    )


def _security_result(engine: Engine, minor: int) -> Reading[None]:
    asked = engine.login.asks is not Asks.NOTHING
    try:
        (result,) = _U32.unpack((yield from engine.inbox.read(_U32.size)))
    except EndOfStreamError:
        # Some are gone before they have said so.
        if not asked or engine.inbox.available:
            raise
        result = -1
    if result == 0:
        return
    if result == -1:
        reason = "it hangs up"
    elif result == 2:
        reason = "too many attempts"
    else:
        reason = (yield from _reason(engine)) if minor >= 8 else ""
    name = engine.login.name
    raise AuthenticationError(
        f"the VNC server refuses the login with {name}" + (f": {reason}" if reason else ""),
        hint=_HINTS[engine.login.asks],
    )


def _reason(engine: Engine) -> Reading[str]:
    """Read why a server refuses: as much as is worth showing, and no more than came."""
    inbox = engine.inbox
    try:
        (length,) = _U32.unpack((yield from inbox.read(_U32.size)))
        yield from inbox.need(min(length, _REASON_BYTES))
    except EndOfStreamError:
        return printable(inbox.peek(_REASON_BYTES))
    return printable(inbox.take(min(length, _REASON_BYTES)))


def _init(engine: Engine) -> Reading[None]:
    engine.send(bytes((engine.shared,)))
    inbox = engine.inbox
    width, height = _SIZE.unpack((yield from inbox.read(_SIZE.size)))
    theirs = PixelFormat.unpack((yield from inbox.read(PIXEL_FORMAT_BYTES)))
    engine.name = yield from engine.read_name()
    if engine.capabilities_follow:
        yield from skip_capabilities(engine)
    engine.resize(width, height)
    engine.enter(State.NORMAL, "message type")
    engine.begin(set_format=theirs != OURS)
    engine.emit(Connected(width, height, engine.name))
