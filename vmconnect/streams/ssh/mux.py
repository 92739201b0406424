"""What is said to an ssh that shares its connection (OpenSSH, PROTOCOL.mux, version 4).

A client of the control socket hands over descriptors, and the master connects them to a channel:
so a stream costs no process, and is told whether its channel was opened. The channel is over when
the client's connection is closed, and the other way round.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Sequence

from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError, ConnectionLostError, SshError
from vmconnect.streams.sockets import SocketStream

__all__ = ["STREAMLOCAL", "ChannelRefusedError", "MuxClient"]

_HELLO = 0x00000001
_NEW_SESSION = 0x10000002
_NEW_STDIO_FORWARD = 0x10000008
_PERMISSION_DENIED = 0x80000002
_FAILURE = 0x80000003
_EXIT_MESSAGE = 0x80000004
_SESSION_OPENED = 0x80000006

_VERSION = 4
_MOST_BYTES = 1 << 16
_NO_ESCAPE = 0xFFFFFFFF
_REASON_CHARACTERS = 200

STREAMLOCAL = 0xFFFFFFFE
"""The port that makes the host a path (OpenSSH 9.4 and later)."""


class ChannelRefusedError(ConnectError):
    """The far end opens no channel, and ssh does not say why."""


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class MuxClient:
    """One client of a master, for one channel; owns its connection, ``stream``."""

    def __init__(self, stream: SocketStream, deadline: Deadline):
        """Greet; raises ConnectError if this is no master's socket."""
        self._stream = stream
        self._ids = itertools.count(1)
        try:
            self._send(struct.pack(">II", _HELLO, _VERSION))
            kind, body = self._receive(deadline)
            if kind != _HELLO or body[:4] != struct.pack(">I", _VERSION):
                raise ConnectError(f"{stream.name} is no control socket of ssh's")
        except ConnectionLostError as error:
            stream.close()
            raise ConnectError(f"the ssh at {stream.name} is ending") from error
        except BaseException:
            stream.close()
            raise

    def forward(self, host: str, port: int, descriptors: Sequence[int], deadline: Deadline) -> None:
        """Connect two descriptors, in and out, to a port that the far end can reach.

        Raises ChannelRefusedError if the far end does not connect us, DeadlineError.
        """
        self._request(_NEW_STDIO_FORWARD, _string(os.fsencode(host)) + struct.pack(">I", port))
        self._hand_over(descriptors, deadline)

    def run(self, command: str, descriptors: Sequence[int], deadline: Deadline) -> None:
        """Run ``command`` in the far user's shell, with three descriptors for its own.

        Raises ChannelRefusedError if the far end opens no session, DeadlineError.
        """
        flags = struct.pack(">IIII", False, False, False, False)  # terminal, X11, agent, subsystem
        escape = struct.pack(">I", _NO_ESCAPE)
        self._request(_NEW_SESSION, flags + escape + _string(b"") + _string(command.encode()))
        self._hand_over(descriptors, deadline)

    def exit_status(self, deadline: Deadline) -> int | None:
        """Wait for the end of what `run` started; None if it was killed or the host is gone."""
        while True:
            try:
                kind, body = self._receive(deadline)
            except ConnectionLostError:
                return None
            if kind == _EXIT_MESSAGE and len(body) == 8:
                return int.from_bytes(body[4:])

    def close(self) -> None:
        """Leave; the channel is closed."""
        self._stream.close()

    def _request(self, kind: int, body: bytes) -> None:
        self._id = next(self._ids)
        self._send(struct.pack(">II", kind, self._id) + _string(b"") + body)

    def _hand_over(self, descriptors: Sequence[int], deadline: Deadline) -> None:
        for each in descriptors:
            self._stream.send_descriptor(b"\0", each)
        while True:
            kind, body = self._receive(deadline)
            if body[:4] != struct.pack(">I", self._id):
                continue
            if kind == _SESSION_OPENED:
                return
            if kind in {_FAILURE, _PERMISSION_DENIED}:
                reason = body[8:].decode(errors="replace")[:_REASON_CHARACTERS]
                shown = "".join(c if c.isprintable() else "?" for c in reason)
                raise ChannelRefusedError(f"the far end opens no channel: {shown}")

    def _send(self, message: bytes) -> None:
        self._stream.sendall(_string(message))

    def _receive(self, deadline: Deadline) -> tuple[int, bytes]:
        """Return a message's kind and body."""
        (size,) = struct.unpack(">I", self._read(4, deadline))
        if not 4 <= size <= _MOST_BYTES:
            raise SshError(f"a message of {size} bytes from the ssh at {self._stream.name}")
        message = self._read(size, deadline)
        return int.from_bytes(message[:4]), message[4:]

    def _read(self, count: int, deadline: Deadline) -> bytes:
        deadline.check(f"waiting for ssh at {self._stream.name}")
        self._stream.settimeout(deadline.remaining())
        buffer = bytearray(count)
        if self._stream.fill(memoryview(buffer)) < count:
            raise ConnectionLostError(f"the ssh at {self._stream.name} has ended")
        return bytes(buffer)
