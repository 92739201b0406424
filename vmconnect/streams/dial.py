"""The one dialler: from an endpoint to a stream, within a deadline."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.streams.endpoint import Endpoint, HybridVsock, Tcp, Unix, Vsock
from vmconnect.streams.sockets import SocketStream

__all__ = ["dial", "dial_at_once"]

DEFAULT_TIMEOUT = 10.0

# sockaddr_un.sun_path holds 108 bytes with the terminating zero (unix(7)).
_SUN_PATH_BYTES = 107

# A UNIX socket whose backlog is full refuses whoever will not wait, for a moment or for good: it is
# tried again after this long.
_KNOCK_SECONDS = 0.02

# "OK 4294967295\n" is the longest answer a hybrid vsock device has to give.
_HYBRID_ANSWER_BYTES = 32

_HINTS = {
    errno.ENOENT: "is the machine running, and is this its socket?",
    errno.ECONNREFUSED: "is the machine running, and does anything listen there?",
    errno.EAGAIN: "others wait there already: the program behind it may be stuck, or busy",
    errno.ENODEV: "no guest has this CID, or the vhost_vsock module is not loaded",
    errno.EHOSTUNREACH: "is the host up?",
    errno.ENETUNREACH: "is the network up?",
}


def dial(endpoint: Endpoint, timeout: Deadline | float | None = DEFAULT_TIMEOUT) -> SocketStream:
    """Connect to ``endpoint`` and return the stream, with no timeout set on it.

    Raises ConnectError when nobody answers there, DeadlineError when the answer does not come
    in time, UnsupportedError when this system has no such kind of socket.
    """
    deadline = Deadline.of(timeout)
    match endpoint:
        case Tcp():
            sock = _connect_tcp(endpoint, deadline)
        case Unix(path):
            sock = _connect_unix(path, endpoint, deadline)
        case Vsock():
            sock = _connect_vsock(endpoint, deadline)
        case HybridVsock(path):
            sock = _connect_unix(path, endpoint, deadline)
    stream = SocketStream(sock, str(endpoint))
    try:
        if isinstance(endpoint, HybridVsock):
            _ask_hybrid(stream, endpoint, deadline)
        stream.settimeout(None)
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
    """Translate what connecting may raise; the one place that knows errno's hints."""
    try:
        yield
    except VmconnectError:
        raise
    except TimeoutError as error:
        raise DeadlineError(f"no answer from {endpoint} in time") from error
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        if isinstance(error, PermissionError) and isinstance(endpoint, Unix | HybridVsock):
            from vmconnect.streams.permission import permission_hint

            hint = permission_hint(Path(endpoint.path))
        reason = error.strerror or str(error)
        raise ConnectError(f"cannot connect to {endpoint}: {reason}", hint=hint) from error


def _connect_tcp(endpoint: Tcp, deadline: Deadline) -> socket.socket:
    with _connecting(endpoint):
        deadline.check(f"connecting to {endpoint}")
        sock = socket.create_connection((endpoint.host, endpoint.port), deadline.remaining())
        # Key presses are small writes that must not wait for more.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


def _connect_unix(path: str, endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _connecting(endpoint):
            deadline.check(f"connecting to {endpoint}")
            while True:
                sock.settimeout(deadline.remaining())
                try:
                    _call(sock, path)
                except BlockingIOError:
                    if deadline.passed:
                        raise DeadlineError(
                            f"{endpoint} took no call in time", hint=_HINTS[errno.EAGAIN]
                        ) from None
                    time.sleep(deadline.remaining(at_most=_KNOCK_SECONDS) or 0)
                else:
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
    try:
        with _connecting(endpoint):
            deadline.check(f"connecting to {endpoint}")
            sock.settimeout(deadline.remaining())
            sock.connect((endpoint.cid, endpoint.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _ask_hybrid(stream: SocketStream, endpoint: HybridVsock, deadline: Deadline) -> None:
    """Make the CONNECT handshake; the stream is then at the guest's first byte."""
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
