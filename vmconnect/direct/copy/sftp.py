"""A guest's directories over SFTP (draft-ietf-secsh-filexfer-02), for one that has no Python.

SFTP knows whole seconds, no extended attributes and no holes; what it refuses, it refuses with few
words. Paths are bytes, and so are names: they need not be UTF-8.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vmconnect.direct.copy.directory import Status
from vmconnect.direct.copy.ends import has_pattern, split
from vmconnect.direct.copy.receiver import Named, matches
from vmconnect.direct.copy.sender import Sender
from vmconnect.direct.copy.sftp_source import SftpSource
from vmconnect.direct.library import paramiko

if TYPE_CHECKING:
    from vmconnect.direct.copy.frames import Attributes

__all__ = ["SftpTree"]

# A guest that never comes to an end with its names.
_MOST_NAMES = 1 << 20
_SECOND = 10**9
_LATEST = (1 << 32) - 1
_MAKE = (
    paramiko.sftp.SFTP_FLAG_WRITE | paramiko.sftp.SFTP_FLAG_CREATE | paramiko.sftp.SFTP_FLAG_EXCL
)
_UNKNOWN = -1
# paramiko's texts for the three codes that draft-02 has; the rest is "Failure".
_FAILURE = "the guest's SFTP server refused"


class SftpTree:
    """The files that one SFTP session shows."""

    def __init__(self, client: paramiko.SFTPClient, machine: str):
        self.machine = machine
        self._client = client

    def send(self, sender: Sender, paths: Sequence[bytes]) -> None:
        """Send what the paths, or patterns of paths, name."""
        for index, path in enumerate(paths):
            try:
                found = self._expanded(path)
            except OSError as error:
                sender.lost(path, error.errno or 0, error.strerror or _FAILURE)
                continue
            for each in found:
                parent, name = split(each)
                sender.send(index, _Directory(self._client, parent), name, each)

    def destination(self, path: bytes, names: Sequence[Named]) -> tuple[Any, list[Named], bytes]:
        """Return the directory that sources go to, what they are called there, and its path."""
        path = path or b"."
        root = _Directory(self._client, path)
        found = root.status(b".", follow=True)
        if found is not None and stat.S_ISDIR(found.mode):
            return root, list(names), path
        if len(names) != 1 or names[0].pattern or path.endswith(b"/"):
            number = errno.ENOTDIR if found is not None else errno.ENOENT
            raise OSError(number, f"{os.strerror(number)} (a directory is needed)")
        parent, name = split(path)
        return _Directory(self._client, parent), [Named(name)], parent

    def _expanded(self, path: bytes) -> list[bytes]:
        """Return the paths that a pattern matches; itself if it is none, or matches nothing."""
        if not has_pattern(path) or _Directory(self._client, b".").status(path) is not None:
            return [path]
        found = [b"/" if path.startswith(b"/") else b""]
        for part in path.split(b"/"):
            if not part:
                continue
            if not has_pattern(part):
                found = [os.path.join(each, part) for each in found]  # noqa: PTH118 (bytes)
                continue
            found = [
                os.path.join(each, name)  # noqa: PTH118
                for each in found
                for name in self._names(each or b".")
                if matches(name, part)
            ]
        return found or [path]

    def _names(self, path: bytes) -> list[bytes]:
        try:
            return _Directory(self._client, path).names()
        except OSError:
            return []  # As a shell has it.


class _Part:
    """A file on its way."""

    size = 0  # What is in one that is there already is not known, and so not gone on with.

    def __init__(self, directory: _Directory, name: bytes, file: paramiko.SFTPFile):
        self.name = name
        self._directory = directory
        self._file = file
        self._end = 0
        file.set_pipelined(True)

    def write(self, offset: int, data: memoryview) -> None:
        if offset != self._file.tell():
            self._file.seek(offset)
        self._file.write(bytes(data))
        self._end = offset + len(data)

    def checksum(self) -> int:
        return _UNKNOWN

    def empty(self) -> None:
        pass

    def finish(self, status: Status, _attributes: Attributes, name: bytes) -> None:
        if self._end < status.size:
            self._file.truncate(status.size)  # a hole at the end
        if self._file.stat().st_size != status.size:
            raise OSError(errno.EIO, "it did not arrive whole")
        # On what is open: somebody in the guest may have put another thing where its name is.
        self._file.chmod(status.mode & 0o777)
        self._file.utime(_times(status))
        self._file.close()
        self._directory.rename(self.name, name)

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self.close()
        self._directory.remove(self.name)


class _Directory:
    """One directory, by its path: whoever serves it may do there what it likes."""

    def __init__(self, client: paramiko.SFTPClient, path: bytes):
        self._client = client
        self._path = path

    def enter(self, name: bytes, *, follow: bool = False) -> _Directory:
        del follow
        return _Directory(self._client, self._at(name))

    def names(self) -> list[bytes]:
        # Not listdir: it takes names for UTF-8, and fails where they are not.
        request = self._client._request  # type: ignore[attr-defined]
        handle = request(paramiko.sftp.CMD_OPENDIR, self._path)[1].get_binary()
        found: list[bytes] = []
        try:
            while len(found) < _MOST_NAMES:
                try:
                    message = request(paramiko.sftp.CMD_READDIR, handle)[1]
                except EOFError:
                    break
                for _ in range(message.get_int()):
                    name = message.get_binary()
                    message.get_binary()
                    paramiko.SFTPAttributes._from_msg(message)  # type: ignore[attr-defined]
                    if name not in {b".", b".."}:
                        found.append(name)
                    if len(found) > _MOST_NAMES:
                        raise OSError(errno.EOVERFLOW, "it has too many names")
        finally:
            request(paramiko.sftp.CMD_CLOSE, handle)
        return sorted(found)

    def status(self, name: bytes, *, follow: bool = False) -> Status | None:
        look = self._client.stat if follow else self._client.lstat
        try:
            return _status(look(self._at(name)))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    def source(self, name: bytes, *, follow: bool = False) -> SftpSource:
        del follow
        file = self._client.open(self._at(name), "rb")
        return SftpSource(self._client, file, _status(file.stat()))

    def target(self, name: bytes) -> bytes:
        target = self._client.readlink(self._at(name))
        return target if isinstance(target, bytes) else os.fsencode(target or "")

    def part(self, name: bytes, *, resume: bool = False) -> _Part:
        if resume:
            self.remove(name)
        # Not open: a file that it makes may be read by others until it has its own mode.
        ours = paramiko.SFTPAttributes()
        ours.st_mode = 0o600
        request = self._client._request  # type: ignore[attr-defined]
        kind, answer = request(paramiko.sftp.CMD_OPEN, self._at(name), _MAKE, ours)
        if kind != paramiko.sftp.CMD_HANDLE:
            raise OSError(errno.EIO, "the guest opens a file with no handle")
        return _Part(self, name, paramiko.SFTPFile(self._client, answer.get_binary(), "wb"))

    def write(
        self,
        part: bytes,
        name: bytes,
        status: Status,
        attributes: Attributes,
        data: memoryview,
    ) -> None:
        file = self.part(part)
        try:
            if data:
                file.write(0, data)
            file.finish(status, attributes, name)
        except BaseException:
            self.remove(part)
            raise

    def link(self, target: bytes, name: bytes, _mtime_ns: int) -> None:
        self._client.symlink(target, self._at(name))

    def special(self, _name: bytes, _status: Status) -> None:
        raise OSError(errno.ENOTSUP, "SFTP makes no special files")

    def make(self, name: bytes) -> None:
        self._client.mkdir(self._at(name), 0o700)

    def finish(self, status: Status, _attributes: Attributes) -> None:
        self._client.chmod(self._path, status.mode & 0o777)
        self._client.utime(self._path, _times(status))

    def rename(self, before: bytes, after: bytes) -> None:
        self._client.posix_rename(self._at(before), self._at(after))

    def remove(self, name: bytes) -> None:
        try:
            self._client.remove(self._at(name))
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise

    def attributes(self) -> Attributes:
        return ()

    def close(self) -> None:
        pass

    def _at(self, name: bytes) -> bytes:
        if name == b".":
            return self._path
        return os.path.join(self._path, name)  # noqa: PTH118 (bytes)


def _status(found: paramiko.SFTPAttributes) -> Status:
    """Return what the guest tells of a file; OSError for what cannot be."""
    mode = found.st_mode or 0
    size = found.st_size or 0
    if size >> 63:
        raise OSError(errno.EOVERFLOW, "it says it has a size that no file has")
    return Status(mode, int(found.st_mtime or 0) * _SECOND, size)


def _times(status: Status) -> tuple[int, int]:
    """Return when it was read and written, as SFTP tells it: in 32 bits from 1970 on."""
    seconds = min(max(0, status.mtime_ns // _SECOND), _LATEST)
    return seconds, seconds
