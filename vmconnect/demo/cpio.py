"""A writer of newc cpio archives, the form of an initramfs.

The layout is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst: per entry
110 bytes of ASCII hexadecimal, the name, the data, each padded to four bytes. Device nodes need
no root here: they are only headers.
"""

from __future__ import annotations

import os
import stat
from types import TracebackType
from typing import Protocol, Self

from vmconnect.errors import ResourceError

__all__ = ["CpioWriter"]

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
# Every number is eight hexadecimal digits.
_MAX_NUMBER = 0xFFFF_FFFF


class Sink(Protocol):
    """Where the archive's bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""


class CpioWriter:
    """Writes entries one after the other; closing adds the trailer.

    Times are zero and inodes count up, so that the same entries give the same bytes. A directory
    must come before what is in it: the kernel makes no parents. What the format cannot say (an
    empty name, a zero byte in one, 4 GiB of data) raises ResourceError and writes nothing.
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
        self._entry(name, stat.S_IFLNK | 0o777, os.fsencode(target))

    def character_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node."""
        self._entry(name, stat.S_IFCHR | mode, b"", device=(major, minor))

    def close(self) -> None:
        """Write the trailer; the sink stays open."""
        if not self._closed:
            self._write((0,) * 4 + (1,) + (0,) * 6, _TRAILER.encode(), b"")
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
        encoded = os.fsencode(name)
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor
        fields = (self._inode + 1, mode, uid, gid, links, 0, len(data), 0, 0, *device)
        if not encoded or b"\0" in encoded or name == _TRAILER or max(fields) > _MAX_NUMBER:
            raise ResourceError(f"{name[:200]!r} cannot be put into an initramfs")
        self._inode += 1
        self._write(fields, encoded, data)

    def _write(self, fields: tuple[int, ...], name: bytes, data: bytes) -> None:
        # Then namesize, with the terminating zero, and check, which is for another format.
        numbers = (*fields, len(name) + 1, 0)
        header = _MAGIC + b"".join(b"%08X" % number for number in numbers)
        self._sink.write(_padded(header + name + b"\0"))
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
