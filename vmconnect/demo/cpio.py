"""A writer of newc cpio archives, the form of an initramfs.

The layout is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst: per entry
110 bytes of ASCII hexadecimal, the name, the data, each padded to four bytes. Device nodes need
no root here: they are only headers.
"""

from __future__ import annotations

import stat
from types import TracebackType
from typing import Protocol, Self

__all__ = ["CpioWriter"]

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
# Sizes are eight hexadecimal digits.
MAX_FILE_BYTES = 0xFFFF_FFFF


class Sink(Protocol):
    """Where the archive's bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""


class CpioWriter:
    """Writes entries one after the other; closing adds the trailer.

    Times are zero and inodes count up, so that the same entries give the same bytes. A directory
    must come before what is in it: the kernel makes no parents.
    """

    def __init__(self, sink: Sink):
        self._sink = sink
        self._inode = 0
        self._closed = False

    def directory(self, name: str, mode: int = 0o755, *, uid: int = 0, gid: int = 0) -> None:
        """Add a directory."""
        self._entry(name, stat.S_IFDIR | mode, b"", uid=uid, gid=gid, links=2)

    def file(
        self, name: str, data: bytes, mode: int = 0o644, *, uid: int = 0, gid: int = 0
    ) -> None:
        """Add a regular file."""
        self._entry(name, stat.S_IFREG | mode, data, uid=uid, gid=gid)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link to ``target``."""
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node."""
        self._entry(name, stat.S_IFCHR | mode, b"", device=(major, minor))

    def close(self) -> None:
        """Write the trailer; the sink stays open."""
        if not self._closed:
            self._entry(_TRAILER, 0, b"")
            self._closed = True

    def _entry(
        self,
        name: str,
        mode: int,
        data: bytes,
        *,
        uid: int = 0,
        gid: int = 0,
        links: int = 1,
        device: tuple[int, int] = (0, 0),
    ) -> None:
        encoded = name.encode() + b"\0"
        if name == _TRAILER:
            inode = 0
        else:
            self._inode += 1
            inode = self._inode
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize
        # check, the last for another format.
        fields = (inode, mode, uid, gid, links, 0, len(data), 0, 0, *device, len(encoded), 0)
        header = _MAGIC + b"".join(b"%08X" % field for field in fields)
        self._sink.write(_padded(header + encoded))
        if data:
            self._sink.write(_padded(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A half-written archive stays without a trailer, and so is seen to be one.
        if error is None:
            self.close()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
