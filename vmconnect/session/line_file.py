"""A file of lines that several processes read and change."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from vmconnect.errors import ResourceError
from vmconnect.paths import private_directory

__all__ = ["LineFile"]

_MOST_BYTES = 16 << 20


class LineFile:
    """Lines of ASCII in a file that is the user's alone.

    Who changes it holds its lock, a file beside it, and replaces it as a whole: a reader never
    sees half of it, and two writers lose nothing.
    """

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[str]:
        """Return the lines that are not blank; raises ResourceError if it cannot be read."""
        try:
            with self.path.open("rb") as file:
                data = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResourceError(f"cannot read {self.path}: {error.strerror}") from error
        return [line for line in data.decode("ascii", "replace").splitlines() if line.strip()]

    @contextlib.contextmanager
    def changing(self) -> Iterator[list[str]]:
        """Give the lines, with the file locked; what has become of them at the end is written.

        Raises ResourceError if it cannot be read, locked or written; then it stays as it was.
        """
        private_directory(self.path.parent)
        try:
            handle = os.open(
                self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise ResourceError(f"cannot lock {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            before = self.read()
            lines = [*before]
            yield lines
            if lines != before:
                self._write(lines)
        finally:
            os.close(handle)

    def _write(self, lines: list[str]) -> None:
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            with open(fresh, "wb", opener=_private_opener) as file:
                file.write("".join(f"{line}\n" for line in lines).encode("ascii", "replace"))
                file.flush()
                # Else a crash of the host may leave an empty file under the name.
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise ResourceError(f"cannot write {self.path}: {error.strerror}") from error


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
