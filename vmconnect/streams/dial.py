"""The one dialler: from an endpoint to a stream, within a deadline."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.streams.base import Stream, Wire
from vmconnect.streams.endpoint import Endpoint, HybridVsock, Tcp, Unix, Vsock
from vmconnect.streams.refusal import busy, refusal
from vmconnect.streams.sockets import SocketStream

if TYPE_CHECKING:
    from vmconnect.streams.layered import Layer, LayeredStream

__all__ = ["dial", "dial_at_once"]

DEFAULT_TIMEOUT = 10.0

# sockaddr_un.sun_path holds 108 bytes with the terminating zero (unix(7)).
_SUN_PATH_BYTES = 107

# A UNIX socket whose backlog is full refuses whoever will not wait, for a moment or for good: it is
# tried again after this long.
_KNOCK_SECONDS = 0.02

# "OK 4294967295\n" is the longest answer a hybrid vsock device has to give.
_HYBRID_ANSWER_BYTES = 32


def dial(endpoint: Endpoint, timeout: Deadline | float | None = DEFAULT_TIMEOUT) -> Wire:
    """Connect to ``endpoint`` and return the stream, with no timeout set on it.

    Raises ConnectError when nobody answers there, DeadlineError when the answer does not come
    in time, UnsupportedError when this system has no such kind of socket. TLS raises TrustError
    for a server that does not prove its name; ssh raises TrustError and AuthenticationError too.
    """
    deadline = Deadline.of(timeout)
    stream = _dial(endpoint, deadline)
    stream.settimeout(None)
    return stream


def _dial(endpoint: Endpoint, deadline: Deadline) -> Wire:
    match endpoint:
        case Tcp():
            return SocketStream(_connect_tcp(endpoint, deadline), str(endpoint))
        case Unix(path):
            return SocketStream(_connect_unix(path, endpoint, deadline), str(endpoint))
        case Vsock():
            return SocketStream(_connect_vsock(endpoint, deadline), str(endpoint))
        case HybridVsock(path):
            stream = SocketStream(_connect_unix(path, endpoint, deadline), str(endpoint))
            return _asked(stream, endpoint, deadline)
        case _:
            return _dial_other(endpoint, deadline)


def _dial_other(endpoint: Endpoint, deadline: Deadline) -> Wire:
    """Dial what is no socket of this host alone; seldom asked for, and so imported here."""
    from vmconnect.streams.overlay import Tls, WebSocket
    from vmconnect.streams.ssh.through import ThroughSsh

    match endpoint:
        case ThroughSsh(host, HybridVsock(path) as inner):
            return _asked(_dial(ThroughSsh(host, Unix(path)), deadline), inner, deadline)
        case ThroughSsh():
            from vmconnect.streams.ssh.stream import open_through

            return open_through(endpoint, deadline)
        case Tls(over):
            from vmconnect.streams.tls import TlsLayer

            return _over(_dial(over, deadline), TlsLayer(endpoint), endpoint, deadline)
        case WebSocket(over):
            from vmconnect.streams.websocket import WebSocketLayer

            return _over(_dial(over, deadline), WebSocketLayer(endpoint), endpoint, deadline)
        case _:
            raise UnsupportedError(f"{endpoint} is nothing that can be dialled")


def _over(wire: Wire, layer: Layer, endpoint: Endpoint, deadline: Deadline) -> LayeredStream:
    from vmconnect.streams.layered import LayeredStream

    stream = LayeredStream(wire, layer, str(endpoint))
    try:
        with deadline.waking(stream.close):
            stream.establish(deadline)
    except BaseException:
        stream.close()
        raise
    return stream


def dial_at_once(endpoint: Unix) -> SocketStream | None:
    """Connect to a UNIX socket without waiting; None where nobody takes calls at the moment.

    Raises ConnectError when nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _connecting(endpoint):
            try:
                _call(sock, endpoint.path)
            except BlockingIOError:
                sock.close()
                return None
        sock.setblocking(True)
    except BaseException:
        sock.close()
        raise
    return SocketStream(sock, str(endpoint))


@contextlib.contextmanager
def _connecting(endpoint: Endpoint) -> Iterator[None]:
    """Translate what connecting may raise."""
    try:
        yield
    except VmconnectError:
        raise
    except OSError as error:
        refused = refusal(endpoint, error)
        if isinstance(error, PermissionError) and isinstance(endpoint, Unix | HybridVsock):
            from vmconnect.streams.permission import permission_hint

            refused.hint = permission_hint(Path(endpoint.path))
        raise refused from error
    except ValueError as error:  # a name that no resolver takes
        raise ConnectError(f"cannot connect to {endpoint}: {error}") from error


def _finish(
    sock: socket.socket, address: tuple[Any, ...], endpoint: Endpoint, deadline: Deadline
) -> socket.socket:
    """Connect a socket, which is closed if that fails."""
    try:
        with _connecting(endpoint):
            deadline.check(f"connecting to {endpoint}")
            sock.settimeout(deadline.remaining())
            with deadline.waking(lambda: _wake(sock)):
                sock.connect(address)
            sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _wake(sock: socket.socket) -> None:
    """Let a connect() in another thread fail."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _connect_tcp(endpoint: Tcp, deadline: Deadline) -> socket.socket:
    """Connect to the first of the host's addresses that answers."""
    with _connecting(endpoint):
        deadline.check(f"connecting to {endpoint}")
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    for place, (family, kind, protocol, _name, address) in enumerate(found, 1):
        try:
            with _connecting(endpoint):
                sock = socket.socket(family, kind, protocol)
                # Key presses are small writes that must not wait for more.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _finish(sock, address, endpoint, deadline)
        except ConnectError:
            if place == len(found):
                raise
    raise ConnectError(f"cannot connect to {endpoint}: it has no address")


def _connect_unix(path: str, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    with _connecting(endpoint):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _connecting(endpoint):
            deadline.check(f"connecting to {endpoint}")
            while True:
                sock.settimeout(deadline.remaining())
                try:
                    with deadline.waking(lambda: _wake(sock)):
                        _call(sock, path)
                except BlockingIOError:
                    if deadline.cancelled:
                        deadline.check(f"connecting to {endpoint}")
                    if deadline.passed:
                        raise busy(endpoint) from None
                    time.sleep(deadline.remaining(at_most=_KNOCK_SECONDS) or 0)
                else:
                    sock.settimeout(None)
                    return sock
    except BaseException:
        sock.close()
        raise


def _call(sock: socket.socket, path: str) -> None:
    """Connect to a path, by a descriptor of its directory if it does not fit in an address."""
    if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
        sock.connect(path)
        return
    directory, name = os.path.split(path)
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{handle}/{name}")
    finally:
        os.close(handle)


def _connect_vsock(endpoint: Vsock, deadline: Deadline) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError as error:
        raise UnsupportedError(
            f"this system has no vsock: {error.strerror}", hint="modprobe vhost_vsock"
        ) from error
    return _finish(sock, (endpoint.cid, endpoint.port), endpoint, deadline)


def _asked(stream: Wire, endpoint: HybridVsock, deadline: Deadline) -> Wire:
    """Make the CONNECT handshake and return the stream, which is then at the guest's first byte."""
    try:
        _ask_hybrid(stream, endpoint, deadline)
    except BaseException:
        stream.close()
        raise
    return stream


def _ask_hybrid(stream: Stream, endpoint: HybridVsock, deadline: Deadline) -> None:
    refused = f"nothing listens on vsock port {endpoint.port} of the guest"
    hint = "is the guest up, and its server started?"
    try:
        stream.settimeout(deadline.remaining())
        stream.sendall(b"CONNECT %d\n" % endpoint.port)
        answer = bytearray()
        while not answer.endswith(b"\n"):
            deadline.check(f"waiting for vsock port {endpoint.port}")
            stream.settimeout(deadline.remaining())
            # One byte at a time: what follows the line is the guest's.
            with deadline.waking(stream.close):
                byte = stream.recv(1)
            if not byte:
                raise ConnectError(refused, machine=endpoint.path, hint=hint)
            answer += byte
            if len(answer) > _HYBRID_ANSWER_BYTES:
                raise ConnectError(f"{endpoint.path} does not speak hybrid vsock")
    except ConnectionLostError as error:
        raise ConnectError(refused, machine=endpoint.path, hint=hint) from error
    word, _, port = bytes(answer).strip().partition(b" ")
    if word != b"OK" or not port.isdigit():
        raise ConnectError(f"{endpoint.path} does not speak hybrid vsock")
