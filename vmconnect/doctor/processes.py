"""Which process listens at a UNIX socket, and which others hold connections to it.

The kernel tells which sockets there are, and which are connected, by sock_diag(7); whose they are
stands in /proc, as far as one may look there. Who listens it also tells whoever connects
(SO_PEERCRED, unix(7)), if somebody still takes calls.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmconnect.errors import VmconnectError
from vmconnect.streams import Unix, dial_at_once

__all__ = ["Process", "clients_of", "listener_at"]

# sock_diag(7), linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_SHOW_NAME, _SHOW_PEER = 1, 4
_NAME, _PEER = 0, 2
_MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_QUESTION = struct.Struct("=BBHIIIII")  # family, protocol, pad, states, inode, show, cookie
_SOCKET = struct.Struct("=BBBBIII")  # family, type, state, pad, inode, cookie
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_INODE = struct.Struct("=I")
_LISTEN = 10  # TCP_LISTEN, which stands for all
_ANSWER_BYTES = 1 << 16
_ANSWER_SECONDS = 2.0

_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid

# Of /proc/PID/stat, in words (proc(5)); the others are the ordinary ones.
_STATES = {
    "T": "is stopped",
    "t": "is stopped by a debugger",
    "D": "waits for a disk or another device",
    "Z": "has ended",
}


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its id, its name, and what keeps it from working, if anything does."""

    pid: int
    name: str
    trouble: str | None = None

    @classmethod
    def of(cls, pid: int) -> Process:
        """Look at the process of that id; it is called ? where one may not."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return cls(pid, "?")
        # The name is in brackets, and may have others in it.
        name, _, rest = text.partition("(")[2].rpartition(")")
        return cls(pid, name, _STATES.get(rest.split()[0] if rest.split() else ""))

    @property
    def stopped(self) -> bool:
        """Whether a signal stops it."""
        return self.trouble == _STATES["T"]

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def listener_at(path: str) -> Process | None:
    """Return the process that listens at a socket; None where it cannot be told."""
    listening = {each.inode for each in _sockets() if each.name == path and each.listens}
    if owners := _owners(listening):
        return Process.of(min(owners))  # Its children may have it too.
    with contextlib.suppress(VmconnectError):
        stream = dial_at_once(Unix(path))
        if stream is not None:
            with contextlib.closing(stream), socket.socket(fileno=os.dup(stream.fileno())) as sock:
                data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, _, _ = _CREDENTIALS.unpack(data)
            return Process.of(pid) if pid > 0 else None
    return None


def clients_of(path: str) -> list[Process]:
    """Return the processes, other than this one, that hold connections to a socket."""
    peers = {each.peer for each in _sockets() if each.name == path and each.peer}
    processes = (Process.of(pid) for pid in _owners(peers) if pid != os.getpid())
    return sorted(processes, key=lambda process: process.pid)


@dataclass(frozen=True, slots=True)
class _Socket:
    """A UNIX socket: its inode, its name (of a server's end), its state, its peer's inode."""

    inode: int
    listens: bool
    name: str = ""
    peer: int = 0

    @classmethod
    def read(cls, message: bytes) -> _Socket:
        _, _, state, _, inode, _, _ = _SOCKET.unpack_from(message)
        name, peer = "", 0
        rest = message[_SOCKET.size :]
        while len(rest) >= _ATTRIBUTE.size:
            length, kind = _ATTRIBUTE.unpack_from(rest)
            value = rest[_ATTRIBUTE.size : length]
            if kind == _NAME:
                name = os.fsdecode(value.rstrip(b"\0"))
            elif kind == _PEER and len(value) == _INODE.size:
                (peer,) = _INODE.unpack(value)
            rest = rest[max(_ATTRIBUTE.size, (length + 3) & ~3) :]
        return cls(inode, state == _LISTEN, name, peer)


def _sockets() -> list[_Socket]:
    """Return the UNIX sockets that there are; none where the kernel tells nothing."""
    try:
        return list(_told_sockets())
    except (OSError, struct.error):
        return []


def _told_sockets() -> Iterator[_Socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diagnosis:
        diagnosis.settimeout(_ANSWER_SECONDS)
        show = _SHOW_NAME | _SHOW_PEER
        question = _QUESTION.pack(socket.AF_UNIX, 0, 0, 0xFFFF_FFFF, 0, show, 0, 0)
        length = _MESSAGE.size + len(question)
        diagnosis.send(_MESSAGE.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + question)
        while True:
            data = diagnosis.recv(_ANSWER_BYTES)
            while data:
                length, kind, *_ = _MESSAGE.unpack_from(data)
                if kind in {_NLMSG_DONE, _NLMSG_ERROR} or length < _MESSAGE.size:
                    return
                yield _Socket.read(data[_MESSAGE.size : length])
                data = data[(length + 3) & ~3 :]


def _owners(inodes: set[int]) -> set[int]:
    """Return the processes that have one of these sockets open."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError), os.scandir(path / "fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if os.readlink(entry.path) in wanted:  # noqa: PTH115 (a DirEntry's)
                        found.add(int(path.name))
                        break
    return found
