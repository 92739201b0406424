"""The journal's files: ``journal.jsonl``, and those before it, ``journal.jsonl.1`` and so on.

An entry is one write to a file that is open for appending, so that lines of several processes do
not mix. A file that has grown to its bound is renamed, under a lock; whoever still has it open
writes its line to the renamed one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.errors import ResourceError
from vmconnect.journal.entry import MOST_LINE_BYTES, Entry
from vmconnect.paths import private_directory, state_directory

__all__ = ["JournalFile"]

_FILE_BYTES = 4 << 20
_OLD_FILES = 4
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # A FIFO in its place must not hold us up.
# How often a journal that is followed is looked at.
_LOOK_SECONDS = 0.2
_READ_BYTES = 1 << 16

Wanted = Callable[[Entry], bool]


class JournalFile:
    """The journal at ``path``; by default the user's own, in the state directory.

    At most ``old_files`` files of about ``file_bytes`` are kept beside the present one.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        file_bytes: int = _FILE_BYTES,
        old_files: int = _OLD_FILES,
    ):
        self.path = path or state_directory() / "journal.jsonl"
        self._file_bytes = file_bytes
        self._old_files = old_files

    def append(self, entry: Entry) -> None:
        """Write an entry; raises ResourceError if it cannot be."""
        line = entry.to_line()
        private_directory(self.path.parent)
        with self._translated("write"):
            descriptor = self._open_to_append()
            try:
                if os.fstat(descriptor).st_size + len(line) > self._file_bytes:
                    self._rotate(descriptor)
                    os.close(descriptor)
                    descriptor = -1
                    descriptor = self._open_to_append()
                if os.write(descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def entries(self, wanted: Wanted | None = None, last: int | None = None) -> list[Entry]:
        """Return the entries for which ``wanted`` holds, the oldest first; at most ``last``.

        Lines that are none are passed over. Raises ResourceError if a file cannot be read.
        """
        with contextlib.ExitStack() as stack:
            return self._read(self._open_all(stack), wanted, last)

    def entries_and_news(
        self,
        wanted: Wanted | None = None,
        last: int | None = None,
        timeout: Deadline | float | None = None,
    ) -> tuple[list[Entry], Iterator[Entry]]:
        """Return the entries as `entries` does, and give those that come, as `follow` does.

        There is none that is in both, or in neither.
        """
        with contextlib.ExitStack() as stack:
            files = self._open_all(stack)
            found = self._read(files, wanted, last)
            # It stands where reading has ended.
            present = os.dup(files[-1]) if files else None
        return found, self._follow(present, wanted, Deadline.of(timeout))

    def follow(
        self, wanted: Wanted | None = None, timeout: Deadline | float | None = None
    ) -> Iterator[Entry]:
        """Give the entries that are written from now on, until the deadline, or for ever.

        It begins before the first one is asked for.
        """
        with contextlib.ExitStack() as stack:
            files = self._open_all(stack)
            present = os.dup(files[-1]) if files else None
        if present is not None:
            os.lseek(present, 0, os.SEEK_END)
        return self._follow(present, wanted, Deadline.of(timeout))

    def _read(self, files: list[int], wanted: Wanted | None, last: int | None) -> list[Entry]:
        kept: deque[Entry] = deque(maxlen=last)
        for descriptor in files:
            with self._translated("read"):
                kept.extend(_picked(_lines(descriptor), wanted))
        return list(kept)

    def _follow(
        self, descriptor: int | None, wanted: Wanted | None, deadline: Deadline
    ) -> Iterator[Entry]:
        partial = b""
        try:
            while True:
                # A file that has been renamed is read to its end, and then left for the next.
                left = descriptor is None or not self._is_present(descriptor)
                data = b"" if descriptor is None else os.read(descriptor, _READ_BYTES)
                if data:
                    *lines, partial = (partial[-MOST_LINE_BYTES:] + data).split(b"\n")
                    yield from _picked(iter(lines), wanted)
                elif left and (following := self._after(descriptor)) is not None:
                    descriptor, partial = following, b""
                elif deadline.passed:
                    return
                else:
                    time.sleep(deadline.remaining(at_most=_LOOK_SECONDS) or 0)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _after(self, descriptor: int | None) -> int | None:
        """Open the file that follows one, which is closed; None, and nothing is, if none does yet.

        What follows none, or one that is no more, is the oldest.
        """
        with contextlib.ExitStack() as stack:
            files = self._open_all(stack)
            if descriptor is not None:
                info = os.fstat(descriptor)
                known = [os.path.samestat(info, os.fstat(each)) for each in files]
                files = files[known.index(True) + 1 :] if True in known else files
            if not files:
                return None
            if descriptor is not None:
                os.close(descriptor)
            return os.dup(files[0])

    def _open_all(self, stack: contextlib.ExitStack) -> list[int]:
        """Open all files for reading, and return them, the oldest first; ``stack`` closes them.

        They are looked for from the present one on, the way in which they are renamed: so none is
        missed, but one may be met twice.
        """
        found: list[int] = []
        for path in (self.path, *map(self._old, range(1, self._old_files + 1))):
            with self._translated("read"), contextlib.suppress(FileNotFoundError):
                descriptor = _checked(os.open(path, os.O_RDONLY | _FLAGS))
                stack.callback(os.close, descriptor)
                info = os.fstat(descriptor)
                if not any(os.path.samestat(info, os.fstat(each)) for each in found):
                    found.insert(0, descriptor)
        return found

    def _old(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _open_to_append(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS
        return _checked(os.open(self.path, flags, 0o600))

    def _is_present(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except OSError:
            return False

    def _rotate(self, descriptor: int) -> None:
        """Rename the full file that is open, unless somebody else has done it, or is about to."""
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # The file grows by a few lines more than it should.
            if not self._is_present(descriptor):
                return
            for number in range(self._old_files, 1, -1):
                with contextlib.suppress(FileNotFoundError):
                    self._old(number - 1).replace(self._old(number))
            self.path.replace(self._old(1))
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"cannot {doing} the journal {self.path}: {error.strerror}"
            ) from error


def _checked(descriptor: int) -> int:
    """Return the descriptor of a file; raises OSError for anything else."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file")
    return descriptor


def _lines(descriptor: int) -> Iterator[bytes]:
    with open(descriptor, "rb", closefd=False) as file:
        while line := file.readline(MOST_LINE_BYTES):
            yield line


def _picked(lines: Iterator[bytes], wanted: Wanted | None) -> Iterator[Entry]:
    for line in lines:
        entry = Entry.from_line(line)
        if entry is not None and (wanted is None or wanted(entry)):
            yield entry
