"""The stream to an endpoint of another host."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import termios
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    MissingDependencyError,
    ResourceError,
    UnsupportedError,
)
from vmconnect.streams.endpoint import Tcp, Unix
from vmconnect.streams.sockets import SocketStream
from vmconnect.streams.ssh import client, relay
from vmconnect.streams.ssh.master import attach, is_alive
from vmconnect.streams.ssh.mux import STREAMLOCAL, ChannelRefusedError, MuxClient
from vmconnect.streams.ssh.through import ThroughSsh

__all__ = ["SshStream", "open_through"]

# The first OpenSSH whose forwarding without a listening socket takes paths.
_STREAMLOCAL_SINCE = (9, 4)
# What a far user's start-up files may say before the relay does.
_MOST_NOISE = 1 << 16
_REASON_BYTES = 1 << 12
# How long a stream that is closed waits for ssh to take what was sent (seconds), and how often it
# looks.
_FAREWELL = 1.0
_POLL_SECONDS = 0.001


class SshStream(SocketStream):
    """Two sockets whose other ends ssh holds, one for each direction.

    ``mux`` is the client of the master at ``path`` that handed them over; the stream owns it.
    """

    def __init__(
        self,
        receiving: socket.socket,
        sending: socket.socket,
        name: str,
        mux: MuxClient,
        path: str,
    ):
        super().__init__(receiving, name, sending=sending)
        self.mux = mux
        self._path = path

    def send_descriptor(self, data: bytes, descriptor: int) -> None:
        """Raise UnsupportedError: no descriptor goes to another host."""
        raise UnsupportedError(f"{self.name} takes no file descriptors: it is on another host")

    def _release(self) -> None:
        # ssh forgets what it has not read yet as soon as its client leaves.
        deadline = Deadline(_FAREWELL)
        while self._unread() and not deadline.passed:
            time.sleep(_POLL_SECONDS)
        super()._release()
        self.mux.close()

    def _unread(self) -> int:
        """Return how many bytes, by the kernel's reckoning, ssh has not taken (unix(7))."""
        try:
            answer = fcntl.ioctl(self._sending, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def _ended(self) -> int:
        # An ssh that has lost its host closes everything as if the far end had.
        if not self._closed and not is_alive(self._path):
            raise ConnectionLostError(f"ssh has lost the host of {self.name}")
        return super()._ended()


def open_through(endpoint: ThroughSsh, deadline: Deadline) -> SshStream:
    """Return a stream to a TCP port, UNIX socket or vsock port of another host.

    Raises ConnectError when nobody answers there, TrustError and AuthenticationError when ssh
    does not get there, MissingDependencyError where the far host lacks what it takes,
    DeadlineError.
    """
    direct: tuple[str, int] | None = None
    match endpoint.inner:
        case Tcp(host, port):
            direct = host, port
        case Unix(path) if client.version(deadline) >= _STREAMLOCAL_SINCE:
            direct = path, STREAMLOCAL
    if direct:
        try:
            return _twice(lambda: _forwarded(endpoint, *direct, deadline))
        except ChannelRefusedError:
            pass  # ssh does not say why. The relay does, and may be let through.
    try:
        return _twice(lambda: _relayed(endpoint, deadline))
    except (ChannelRefusedError, MissingDependencyError) as error:
        if direct:
            hint = "does anything listen there, and does its sshd permit forwarding?"
        elif isinstance(error, ChannelRefusedError):
            hint = "does its sshd permit commands, and so many at a time (MaxSessions)?"
        else:
            raise
        raise ConnectError(
            f"{endpoint.host} does not connect us to {endpoint.inner}", hint=hint
        ) from error


def _twice(way: Callable[[], SshStream]) -> SshStream:
    """Try again if the shared connection ends just now, as it does when long unused."""
    try:
        return way()
    except ConnectionLostError:
        try:
            return way()
        except ConnectionLostError as error:
            raise ConnectError(f"ssh does not keep its connection: {error}") from error


def _forwarded(endpoint: ThroughSsh, host: str, port: int, deadline: Deadline) -> SshStream:
    """Let ssh itself connect."""
    with _Channel(endpoint, deadline) as channel, deadline.waking(channel.stream.close):
        channel.mux.forward(host, port, channel.descriptors[:2], deadline)
    return channel.stream


def _relayed(endpoint: ThroughSsh, deadline: Deadline) -> SshStream:
    """Let the relay connect."""
    command = relay.command(endpoint.inner)
    with _Channel(endpoint, deadline) as channel, deadline.waking(channel.stream.close):
        channel.mux.run(command, channel.descriptors, deadline)
        channel.close_theirs()
        if not _is_connected(channel.stream, deadline):
            status = channel.mux.exit_status(deadline)
            raise relay.refused(endpoint, status, channel.said())
    return channel.stream


def _is_connected(stream: SshStream, deadline: Deadline) -> bool:
    """Wait until the relay says that it is connected; return False if it ends instead."""
    said = bytearray()
    while not said.endswith(relay.CONNECTED):
        deadline.check(f"connecting to {stream.name}")
        stream.settimeout(deadline.remaining())
        # One byte at a time: what follows is the connection's.
        byte = stream.recv(1)
        if not byte:
            return False
        said += byte
        if len(said) > _MOST_NOISE:
            raise ConnectError(
                f"cannot connect to {stream.name}: a shell there talks without an end"
            )
    return True


class _Channel:
    """A stream that ssh is to connect, and what it takes for that.

    Left with an error, the stream is closed.
    """

    def __init__(self, endpoint: ThroughSsh, deadline: Deadline):
        self.mux, path = attach(endpoint.host, deadline)
        try:
            receiving, output = socket.socketpair()
            sending, given = socket.socketpair()
            self._errors, errors = os.pipe()
        except OSError as error:
            self.mux.close()
            raise ResourceError(f"no descriptors for a stream: {error.strerror}") from error
        self.stream = SshStream(receiving, sending, str(endpoint), self.mux, path)
        self.descriptors = (given.detach(), output.detach(), errors)
        """For ssh: what it reads from, what it writes to, and what it writes errors to."""
        self._open = True

    def close_theirs(self) -> None:
        """Close what ssh has been given: nobody else must hold it, or its end is not seen."""
        if self._open:
            self._open = False
            for each in self.descriptors:
                os.close(each)

    def said(self) -> str:
        """Return what is here of the errors."""
        os.set_blocking(self._errors, False)
        try:
            return os.read(self._errors, _REASON_BYTES).decode(errors="replace")
        except BlockingIOError:
            return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close_theirs()
        os.close(self._errors)
        if error is not None:
            self.stream.close()
