"""Being the user's one broker: the lock that makes it so, and the socket that goes with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import Self

from vmconnect.broker.wire import socket_path
from vmconnect.errors import ResourceError
from vmconnect.mark import Mark
from vmconnect.paths import runtime_directory

__all__ = ["Claim"]

_BACKLOG = 512


class Claim:
    """The lock and the listening socket; `release` gives both up, so that another may have them.

    The kernel lets go of the lock when the process dies, in whatever way. The socket's file then
    stays, and is replaced by whoever has the lock next.
    """

    def __init__(self, lock: int, lock_path: Path, path: Path):
        """Listen; use `take`."""
        self._lock, self._lock_path, self._path = lock, lock_path, path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                self.listener.bind(str(path))
            finally:
                os.umask(before)
            self.listener.listen(_BACKLOG)
            self._mark = Mark.of([path])
        except OSError as error:
            self.listener.close()
            raise ResourceError(f"cannot listen at {path}: {error.strerror or error}") from error
        self.listener.setblocking(False)

    @classmethod
    def take(cls) -> Self | None:
        """Become the broker; None if there is one. Raises ResourceError."""
        path = Path(socket_path())
        lock_path = runtime_directory() / ".broker.lock"  # no machine's name begins with a dot
        lock = _locked(lock_path)
        if lock is None:
            return None
        try:
            return cls(lock, lock_path, path)
        except BaseException:
            os.close(lock)
            raise

    @property
    def holds(self) -> bool:
        """Whether the socket can still be found where it should be."""
        return Mark.of([self._path]) == self._mark

    def release(self) -> None:
        """Listen no more, and let another process do so."""
        self.listener.close()
        # While the lock is ours so are the files: the lock's own, if it has not gone, goes last.
        with contextlib.suppress(OSError):
            if self.holds:
                self._path.unlink()
            if self._lock_path.stat().st_ino == os.fstat(self._lock).st_ino:
                self._lock_path.unlink()
        os.close(self._lock)


def _locked(path: Path) -> int | None:
    """Return a descriptor that holds the lock; None if another process does."""
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ResourceError(f"cannot lock {path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have removed the file between our opening and locking it.
            if path.stat().st_ino == os.fstat(lock).st_ino:
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        os.close(lock)
