"""SFTP servers at the other end of a socket: OpenSSH's own, and one that a test plays."""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

import paramiko
import pytest
from paramiko import sftp

from vmconnect.direct.copy.sftp import SftpTree

__all__ = ["Hostile", "attributes", "openssh", "packed", "played", "status", "string"]

_PROGRAMS = ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec")


class _Channel(socket.socket):
    """A socket with what paramiko asks of its own channels."""

    def get_name(self) -> str:
        return "0"

    def recv_ready(self) -> bool:
        return bool(select.select([self], [], [], 0)[0])


@contextlib.contextmanager
def _client(ours: socket.socket) -> Iterator[SftpTree]:
    with _Channel(fileno=ours.detach()) as channel:
        yield SftpTree(paramiko.SFTPClient(channel), "web01")  # type: ignore[arg-type]


@contextlib.contextmanager
def openssh() -> Iterator[SftpTree]:
    """Give what a real ``sftp-server`` shows of this host."""
    program = shutil.which("sftp-server", path=":".join(_PROGRAMS))
    if program is None:
        pytest.skip("needs sftp-server (apt install openssh-sftp-server)")
    ours, theirs = socket.socketpair()
    with subprocess.Popen([program], stdin=theirs.fileno(), stdout=theirs.fileno()):
        theirs.close()
        with _client(ours) as tree:
            yield tree


class Hostile:
    """A server with one file that says it has ``size`` bytes, and gives ``pieces`` of zeros.

    Each answer has ``excess`` bytes more than were asked for.
    """

    def __init__(self, size: int, pieces: int = 0, piece: int = 1 << 15, excess: int = 0):
        self.size = size
        self.pieces = pieces
        self.piece = piece
        self.excess = excess
        self.asked: list[tuple[int, int]] = []
        """Where reading was asked for, and how much."""

    def serve(self, wire: socket.socket) -> None:
        """Answer what comes, until nothing does."""
        with contextlib.suppress(ConnectionError), wire, wire.makefile("rb") as requests:
            self.answer(requests, wire.sendall)

    def answer(self, requests: BinaryIO, say: Callable[[bytes], object]) -> None:
        """Answer what can be read, until nothing can."""
        while head := requests.read(4):
            data = requests.read(struct.unpack(">I", head)[0])
            message = paramiko.Message(data[1:])
            number = message.get_int()
            kind, answer = self._answer(data[0], message)
            body = bytes([kind]) + (b"" if kind == sftp.CMD_VERSION else packed(number)) + answer
            say(packed(len(body)) + body)

    def _answer(self, kind: int, message: paramiko.Message) -> tuple[int, bytes]:
        match kind:
            case sftp.CMD_INIT:
                return sftp.CMD_VERSION, packed(3)
            case sftp.CMD_OPEN:
                return sftp.CMD_HANDLE, string(b"handle")
            case sftp.CMD_STAT | sftp.CMD_LSTAT | sftp.CMD_FSTAT:
                return sftp.CMD_ATTRS, attributes(stat.S_IFREG | 0o644, self.size)
            case sftp.CMD_READ:
                message.get_string()
                offset, length = message.get_int64(), message.get_int()
                self.asked.append((offset, length))
                if offset < self.pieces * self.piece:
                    return sftp.CMD_DATA, string(bytes(min(length, self.piece) + self.excess))
                return status(sftp.SFTP_EOF)
        return status(sftp.SFTP_OK)


@contextlib.contextmanager
def played(server: Hostile) -> Iterator[SftpTree]:
    """Give what such a server shows."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=server.serve, args=(theirs,))
    thread.start()
    try:
        with _client(ours) as tree:
            yield tree
    finally:
        thread.join()


def attributes(mode: int, size: int) -> bytes:
    """Return what is told of a file."""
    told = paramiko.SFTPAttributes()
    told.st_size, told.st_mode = size, mode
    message = paramiko.Message()
    told._pack(message)  # type: ignore[attr-defined]
    return message.asbytes()


def status(code: int) -> tuple[int, bytes]:
    """Return the answer that has nothing but a code."""
    return sftp.CMD_STATUS, packed(code) + string(b"") + string(b"")


def packed(number: int) -> bytes:
    """Return a number's wire form."""
    return struct.pack(">I", number)


def string(data: bytes) -> bytes:
    """Return a string's wire form."""
    return packed(len(data)) + data
