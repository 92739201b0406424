"""A file that is read over SFTP, in its order, with a few requests under way at any time.

paramiko's own prefetch asks for all that the guest says there is before the first byte is read.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmconnect.direct.copy.directory import Status
from vmconnect.direct.library import paramiko

if TYPE_CHECKING:
    from vmconnect.direct.copy.frames import Attributes

__all__ = ["SftpSource"]

# What every server gives at once; 2 MiB of it are under way.
_REQUEST_BYTES = 1 << 15
_REQUESTS = 64
_UNKNOWN = -1


class SftpSource:
    """A file to read from, from its beginning to its end."""

    def __init__(self, client: paramiko.SFTPClient, file: paramiko.SFTPFile, status: Status):
        self.status = status
        self._client = client
        self._file = file
        self._answers: deque[_Answer] = deque()
        self._piece = _REQUEST_BYTES
        # Up to where it was read, and was asked for.
        self._place = self._asked = 0

    def extents(self) -> Iterator[tuple[int, int]]:
        """Give all of it: SFTP knows no holes."""
        if self.status.size:
            yield 0, self.status.size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read bytes at an offset, and return how many came, 0 at the end."""
        if offset != self._place:
            self._answers.clear()
            self._asked = self._place = offset
        self._ask()
        if not self._answers:
            return 0
        answer = self._answers.popleft()
        data = answer.data()
        if 0 < len(data) < answer.size:
            self._piece = len(data)  # It gives no more at a time.
        data = data[: len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        if len(data) < answer.size:
            self._answers.clear()
            self._asked = self._place
        return len(data)

    def _ask(self) -> None:
        """Have so many requests under way, as long as there is something to ask for."""
        while len(self._answers) < _REQUESTS and self._asked < self.status.size:
            answer = _Answer(self._client, min(self._piece, self.status.size - self._asked))
            self._client._async_request(  # type: ignore[attr-defined]
                answer,
                paramiko.sftp.CMD_READ,
                self._file.handle,
                paramiko.sftp.int64(self._asked),
                answer.size,
            )
            self._answers.append(answer)
            self._asked += answer.size

    def attributes(self) -> Attributes:
        """Return none: SFTP knows no extended attributes."""
        return ()

    def checksum(self, _size: int) -> int:
        """Return what no checksum is: the file would have to come over here for it."""
        return _UNKNOWN

    def set_mode(self, mode: int) -> None:
        """Set its mode."""
        self._file.chmod(mode & 0o777)

    def close(self) -> None:
        """Close it; what is still under way is heard by nobody."""
        self._answers.clear()
        self._file.close()


class _Answer:
    """What comes of a request to read ``size`` bytes."""

    def __init__(self, client: paramiko.SFTPClient, size: int) -> None:
        self.size = size
        self._client = client
        self._came: bytes | OSError | None = None

    def data(self) -> bytes:
        """Return the bytes, none at the end of the file; OSError for what the guest refuses."""
        while self._came is None:
            self._client._read_response()  # type: ignore[attr-defined]
        if isinstance(self._came, OSError):
            raise self._came
        return self._came

    def _async_response(self, kind: int, message: paramiko.Message, _number: int) -> None:
        """Take it from the client, which calls this as it would a file of its own."""
        self._came = OSError(errno.EIO, "the guest's SFTP server answered what was not asked")
        if kind == paramiko.sftp.CMD_DATA:
            data = message.get_string()
            if len(data) <= self.size:
                self._came = data
        elif kind == paramiko.sftp.CMD_STATUS:
            try:
                self._client._convert_status(message)  # type: ignore[attr-defined]
            except EOFError:
                self._came = b""
            except OSError as error:
                self._came = error
