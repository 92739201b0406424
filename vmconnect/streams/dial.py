"""The one dialler: from an endpoint to a stream, within a deadline."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

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

__all__ = ["dial"]

DEFAULT_TIMEOUT = 10.0

# sockaddr_un.sun_path holds 108 bytes with the terminating zero (unix(7)).
_SUN_PATH_BYTES = 107

# "OK 4294967295\n" is the longest answer a hybrid vsock device has to give.
_HYBRID_ANSWER_BYTES = 32

_HINTS = {
    errno.ENOENT: "is the machine running, and is this its socket?",
    errno.ECONNREFUSED: "is the machine running, and does anything listen there?",
    errno.EACCES: "you have no permission for this socket; try the user who started the machine",
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
        reason = error.strerror or str(error)
        raise ConnectError(f"cannot connect to {endpoint}: {reason}", hint=hint) from error


def _finish(
    sock: socket.socket, address: str | tuple[Any, ...], endpoint: Endpoint, deadline: Deadline
) -> socket.socket:
    try:
        with _connecting(endpoint):
            deadline.check(f"connecting to {endpoint}")
            sock.settimeout(deadline.remaining())
            with deadline.waking(lambda: _wake(sock)):
                sock.connect(address)
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
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
        return _finish(sock, path, endpoint, deadline)
    # A longer path is reached through a descriptor of its directory.
    directory, name = os.path.split(path)
    try:
        with _connecting(endpoint):
            handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except BaseException:
        sock.close()
        raise
    try:
        return _finish(sock, f"/proc/self/fd/{handle}/{name}", endpoint, deadline)
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
