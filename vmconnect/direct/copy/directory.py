"""A directory of this system, held open; every name in it is one name, and no link is followed.

This module runs in guests, too. All names are bytes; whatever the system refuses is an OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import zlib

from vmconnect.direct.copy.frames import ATTRIBUTES_BYTES, LINK_BYTES

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmconnect.direct.copy.frames import Attributes

__all__ = ["Directory", "Part", "Source", "Status"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_PREFIX = b"user."
_READ_BYTES = 1 << 18
# A file system that has no such thing, or does not let us.
_WITHOUT = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.ENOSPC}
_WITHOUT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}


class Status:
    """What is known of a name without opening it."""

    __slots__ = ("device", "mode", "mtime_ns", "size")

    def __init__(self, mode: int, mtime_ns: int, size: int, device: int = 0) -> None:
        self.mode = mode
        self.mtime_ns = mtime_ns
        self.size = size
        self.device = device


def _status(found: os.stat_result) -> Status:
    return Status(found.st_mode, found.st_mtime_ns, found.st_size, found.st_rdev)


class Source:
    """A file to read from, or to look at."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self.status = _status(found)
        self._dense = found.st_blocks * 512 >= found.st_size

    def extents(self) -> Iterator[tuple[int, int]]:
        """Give the beginning and end of each piece that is no hole."""
        place, size = 0, self.status.size
        if self._dense:
            if size:
                yield 0, size
            return
        while place < size:
            try:
                start = os.lseek(self._descriptor, place, os.SEEK_DATA)
                end = os.lseek(self._descriptor, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:  # that is: nothing but a hole up to the end
                    yield place, size
                return
            if start >= size:
                return
            yield start, min(end, size)
            place = end

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read bytes at an offset, and return how many came, 0 at the end."""
        return os.preadv(self._descriptor, [buffer], offset)

    def attributes(self) -> Attributes:
        """Return the extended attributes that belong to users."""
        return _attributes(self._descriptor)

    def checksum(self, size: int) -> int:
        """Return the CRC-32 of the first bytes, holes and all."""
        return checksum_of(self._descriptor, size)

    def set_mode(self, mode: int) -> None:
        """Set its mode."""
        os.fchmod(self._descriptor, mode & 0o777)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


class Part:
    """A file on its way, under a name of its own."""

    def __init__(self, directory: Directory, name: bytes, descriptor: int) -> None:
        self.name = name
        self._directory = directory
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def checksum(self) -> int:
        """Return the CRC-32 of all that is there."""
        return checksum_of(self._descriptor, self.size)

    def empty(self) -> None:
        """Forget what is there."""
        os.ftruncate(self._descriptor, 0)

    def write(self, offset: int, data: memoryview) -> None:
        """Write bytes at an offset."""
        while data:
            count = os.pwrite(self._descriptor, data, offset)
            data, offset = data[count:], offset + count

    def sync(self) -> None:
        """Wait until what was written is on the disk, if its file system knows of that."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno not in _WITHOUT_SYNC:
                raise

    def finish(self, status: Status, attributes: Attributes, name: bytes) -> None:
        """Give it its size, mode and times, and then its name."""
        descriptor = self._descriptor
        os.ftruncate(descriptor, status.size)
        _set_attributes(descriptor, attributes)
        os.fchmod(descriptor, status.mode & 0o777)
        os.utime(descriptor, ns=(status.mtime_ns, status.mtime_ns))
        self._directory.rename(self.name, name)
        self.close()

    def close(self) -> None:
        """Leave it as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Remove it."""
        self.close()
        self._directory.remove(self.name)


class Directory:
    """One directory. Who holds it closes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: bytes) -> Directory:
        """Open a directory by its path, following links."""
        return cls(os.open(path, _ENTER))

    def enter(self, name: bytes, *, follow: bool = False) -> Directory:
        """Open a directory in this one."""
        flags = _ENTER if follow else _ENTER | os.O_NOFOLLOW
        return Directory(os.open(name, flags, dir_fd=self._descriptor))

    def names(self) -> list[bytes]:
        """Return the names in it, in order."""
        return sorted(map(os.fsencode, os.listdir(self._descriptor)))

    def status(self, name: bytes, *, follow: bool = False) -> Status | None:
        """Return what is known of a name, None if there is none."""
        try:
            found = os.stat(name, dir_fd=self._descriptor, follow_symlinks=follow)
        except FileNotFoundError:
            return None
        return _status(found)

    def source(self, name: bytes, *, follow: bool = False) -> Source:
        """Open a file to read it."""
        flags = _READ & ~os.O_NOFOLLOW if follow else _READ
        descriptor = os.open(name, flags, dir_fd=self._descriptor)
        try:
            return Source(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def target(self, name: bytes) -> bytes:
        """Return where a symbolic link leads."""
        target = os.readlink(name, dir_fd=self._descriptor)
        return target[:LINK_BYTES]

    def part(self, name: bytes, *, resume: bool = False) -> Part:
        """Make a file that is on its way; ``resume`` takes one that is there.

        Only a plain file that nobody else could have written to is gone on with. Raises
        BlockingIOError for one that another copy is at work on.
        """
        if resume:
            try:
                descriptor = os.open(name, _WRITE, dir_fd=self._descriptor)
            except OSError:
                pass
            else:
                found = os.fstat(descriptor)
                if (
                    stat.S_ISREG(found.st_mode)
                    and found.st_uid == os.geteuid()
                    and found.st_nlink == 1
                    and not found.st_mode & 0o077
                ):
                    return self._locked(name, descriptor)
                os.close(descriptor)
            self.remove(name)
        flags = _WRITE | os.O_CREAT | os.O_EXCL
        descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptor)
        return self._locked(name, descriptor)

    def _locked(self, name: bytes, descriptor: int) -> Part:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:
            pass  # A file system that has no locks.
        return Part(self, name, descriptor)

    def write(
        self,
        part: bytes,
        name: bytes,
        status: Status,
        attributes: Attributes,
        data: memoryview,
    ) -> None:
        """Write a small file, whole, under the name ``part``, and give it its own.

        Nobody waits for the disk: many small files would take many times as long.
        """
        flags = _WRITE | os.O_CREAT | os.O_EXCL
        descriptor = os.open(part, flags, 0o600, dir_fd=self._descriptor)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if attributes:
                _set_attributes(descriptor, attributes)
            os.fchmod(descriptor, status.mode & 0o777)
            os.utime(descriptor, ns=(status.mtime_ns, status.mtime_ns))
            os.rename(part, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            self.remove(part)
            raise
        finally:
            os.close(descriptor)

    def link(self, target: bytes, name: bytes, mtime_ns: int) -> None:
        """Make a symbolic link."""
        os.symlink(target, name, dir_fd=self._descriptor)
        times = (mtime_ns, mtime_ns)
        os.utime(name, ns=times, dir_fd=self._descriptor, follow_symlinks=False)

    def special(self, name: bytes, status: Status) -> None:
        """Make a FIFO or a device."""
        os.mknod(name, status.mode, status.device, dir_fd=self._descriptor)

    def make(self, name: bytes) -> None:
        """Make a directory that is ours alone."""
        os.mkdir(name, 0o700, dir_fd=self._descriptor)

    def finish(self, status: Status, attributes: Attributes) -> None:
        """Set its own mode, time and extended attributes."""
        _set_attributes(self._descriptor, attributes)
        os.fchmod(self._descriptor, status.mode & 0o777)
        os.utime(self._descriptor, ns=(status.mtime_ns, status.mtime_ns))

    def rename(self, before: bytes, after: bytes) -> None:
        """Rename within it; what was there is replaced."""
        os.rename(before, after, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: bytes) -> None:
        """Remove a file, if it is there."""
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            pass

    def attributes(self) -> Attributes:
        """Return its own extended attributes that belong to users."""
        return _attributes(self._descriptor)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


def checksum_of(descriptor: int, size: int) -> int:
    """Return the CRC-32 of a file's first bytes, holes and all."""
    buffer = memoryview(bytearray(_READ_BYTES))
    crc = place = 0
    while place < size:
        count = os.preadv(descriptor, [buffer[: size - place]], place)
        if not count:
            break
        crc = zlib.crc32(buffer[:count], crc)
        place += count
    return crc


def _attributes(descriptor: int) -> Attributes:
    try:
        names = [each for each in os.listxattr(descriptor) if os.fsencode(each).startswith(_PREFIX)]
        found = [(os.fsencode(each), os.getxattr(descriptor, each)) for each in names]
    except OSError:
        return ()
    return tuple(found) if sum(len(value) for _, value in found) < ATTRIBUTES_BYTES else ()


def _set_attributes(descriptor: int, attributes: Attributes) -> None:
    for name, value in attributes:
        if not name.startswith(_PREFIX) or b"\0" in name:
            continue  # security.* and the like are not the sender's to give
        try:
            os.setxattr(descriptor, name, value)
        except OSError as error:
            if error.errno not in _WITHOUT:
                raise
