"""The far end of a copy, as it is seen from here: started over SSH, talked to by frames."""

from __future__ import annotations

import contextlib
import hmac
import marshal
import secrets
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from vmconnect.deadline import Deadline
from vmconnect.direct.copy.copied import shown
from vmconnect.direct.copy.far_end import GREETING, LENGTH, OVER_SSH, TOKEN_BYTES
from vmconnect.direct.copy.pipe import Pipe
from vmconnect.direct.copy.program import command, program
from vmconnect.direct.copy.reader import FrameReader
from vmconnect.direct.library import paramiko
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    GuestError,
    VmconnectError,
)
from vmconnect.streams import Stream

if TYPE_CHECKING:
    from vmconnect.direct.copy.frames import Bytes

__all__ = ["Connection", "FarEnd", "PortOpener"]

PortOpener = Callable[[int, Deadline], Stream]
"""Dials a vsock port of the guest's."""

_START_SECONDS = 60.0
_DIAL_SECONDS = 5.0
# What a login shell may say before our program does.
_CHATTER_BYTES = 1 << 16
_READ_BYTES = 1 << 15
_WORDS_BYTES = 1 << 12
AGAIN = "the same copy once more goes on where this one was cut"
"""What to do about a connection that was lost."""


class Connection(Protocol):
    """What a copy needs of an SSH connection (`vmconnect.direct.ssh.SshConnection`)."""

    machine: str

    def open(self, timeout: Deadline | float | None = 30.0) -> paramiko.Channel:
        """Return a channel on which nothing runs yet."""

    def execute(
        self, channel: paramiko.Channel, command: str, timeout: Deadline | float | None = 30.0
    ) -> None:
        """Start a command in the user's shell."""

    def sftp(self) -> contextlib.AbstractContextManager[paramiko.SFTPClient]:
        """Open an SFTP session for the time of a ``with`` block."""

    def lost(self, doing: str) -> ConnectionLostError:
        """Return the error for a connection that broke."""


class FarEnd:
    """A sender or a receiver in a guest. Close it when it has done its work, or sooner.

    ``way`` is ``vsock`` or ``SSH``; ``pipe`` raises ConnectionLostError when the guest goes away.
    """

    def __init__(
        self, machine: str, channel: paramiko.Channel, stream: Stream | None, connection: Connection
    ):
        self.machine = machine
        self.way = "vsock" if stream else "SSH"
        self._channel = channel
        self._stream = stream
        self._connection = connection
        if stream is not None:
            self.pipe = Pipe(FrameReader(stream.recv_into).take, self._send_raw)
        else:
            self.pipe = Pipe(FrameReader(self._receive_into).take, self._send)

    @classmethod
    def start(
        cls,
        connection: Connection,
        dial: PortOpener | None,
        request: dict[str, Any],
        timeout: Deadline | float | None = None,
    ) -> FarEnd | None:
        """Start the guest's Python with ``request`` (`vmconnect.direct.copy.far_end.serve`).

        ``dial`` reaches a vsock port of the guest's; without it all goes over SSH. Returns None
        when the guest has no Python that will do.

        Raises GuestError, ConnectionLostError, DeadlineError.
        """
        deadline = Deadline.of(timeout).sooner(_START_SECONDS)
        token, proof = secrets.token_bytes(TOKEN_BYTES), secrets.token_bytes(TOKEN_BYTES)
        asked = marshal.dumps(
            {**request, "listen": dial is not None, "token": token, "proof": proof}, 2
        )
        channel = connection.open(deadline)
        stream: Stream | None = None
        try:
            connection.execute(channel, shlex.join(command()), deadline)
            with _translated(connection):
                channel.settimeout(deadline.remaining())
                try:
                    channel.sendall(program() + LENGTH.pack(len(asked)) + asked)
                    port = _read_port(channel, deadline)
                except (EOFError, OSError, paramiko.SSHException) as error:
                    if isinstance(error, TimeoutError) or not _has_exited(channel):
                        raise
                    channel.close()
                    return None
                if dial is not None and port:
                    stream = _dialled(dial, port, token, proof, deadline)
                if stream is None:
                    channel.sendall(OVER_SSH)
                channel.settimeout(None)
        except BaseException:
            channel.close()
            raise
        return cls(connection.machine, channel, stream, connection)

    def ended(self) -> ConnectionLostError:
        """Return the error for a far end that has gone before its time, with its last words."""
        words = ""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if self._channel.recv_stderr_ready():
                words = self._channel.recv_stderr(_WORDS_BYTES).decode("utf-8", "replace")
        last = shown(words.strip().rpartition("\n")[2].encode())
        return ConnectionLostError(
            "the copy broke off" + (f": {last}" if last else ""), machine=self.machine
        )

    def close(self) -> None:
        """End it, whatever it does; what it has in hand that can be gone on with stays there."""
        if self._stream is not None:
            self._stream.close()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def _receive_into(self, view: memoryview) -> int:
        with _translated(self._connection):
            data = self._channel.recv(min(len(view), _READ_BYTES))
        view[: len(data)] = data
        return len(data)

    def _send(self, *buffers: Bytes) -> None:
        with _translated(self._connection):
            for each in buffers:
                self._channel.sendall(bytes(each))

    def _send_raw(self, *buffers: Bytes) -> None:
        assert self._stream is not None  # noqa: S101 (else it is not called)
        for each in buffers:
            self._stream.sendall(memoryview(each))


def _read_port(channel: paramiko.Channel, deadline: Deadline) -> int:
    """Return the port that the program listens on, 0 for none; EOFError if it does not start."""
    told = b""
    place = -1
    while place < 0 or len(told) < place + len(GREETING) + LENGTH.size:
        deadline.check("starting a copy")
        data = channel.recv(LENGTH.size if place >= 0 else 1 << 10)
        if not data or len(told) > _CHATTER_BYTES:
            raise EOFError
        told += data
        place = told.find(GREETING)
    port: int = LENGTH.unpack_from(told, place + len(GREETING))[0]
    return port


def _has_exited(channel: paramiko.Channel) -> bool:
    """Return whether the guest's shell has ended by itself: it found nothing to run."""
    return channel.status_event.wait(2.0) and channel.exit_status >= 0


def _dialled(
    dial: PortOpener, port: int, token: bytes, proof: bytes, deadline: Deadline
) -> Stream | None:
    """Return a stream to our program; None where vsock does not lead to it."""
    soon = deadline.sooner(_DIAL_SECONDS)
    try:
        stream = dial(port, soon)
    except (ConnectError, ConnectionLostError, DeadlineError, GuestError):
        return None
    try:
        stream.settimeout(soon.remaining())
        stream.sendall(token)
        told = bytearray(len(proof))
        if stream.fill(memoryview(told)) == len(proof) and hmac.compare_digest(told, proof):
            stream.settimeout(None)
            return stream
    except (ConnectionLostError, DeadlineError):
        pass  # Somebody in the guest is in the way.
    except BaseException:
        stream.close()
        raise
    stream.close()
    return None


@contextlib.contextmanager
def _translated(connection: Connection) -> Iterator[None]:
    """Turn what paramiko raises into our tree."""
    try:
        yield
    except VmconnectError:
        raise
    except TimeoutError as error:
        raise DeadlineError("timed out while copying", machine=connection.machine) from error
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise connection.lost("copying") from error
