"""Secrets that are not asked for: from a file descriptor, a file, or the environment.

Never from the command line, which every user of the host can read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vmconnect.errors import ResourceError

__all__ = ["secret_from_descriptor", "secret_from_environment", "secret_from_file"]

_MOST_BYTES = 64 * 1024


def secret_from_descriptor(descriptor: int) -> str:
    """Return the first line of what an open file descriptor, a pipe for instance, gives.

    It is read to the end of the line and no further. Raises ResourceError if it cannot be.
    """
    line = bytearray()
    try:
        while b"\n" not in line and len(line) <= _MOST_BYTES:
            byte = os.read(descriptor, 1)
            if not byte:
                break
            line += byte
    except OSError as error:
        raise ResourceError(
            f"cannot read a password from file descriptor {descriptor}: {error.strerror}"
        ) from error
    return _line(bytes(line), f"file descriptor {descriptor}")


def secret_from_file(path: Path) -> str:
    """Return the first line of a file.

    Raises ResourceError if it cannot be read, or if other users can read it.
    """
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ResourceError(f"cannot read a password from {path}: {error.strerror}") from error
    if stat.S_ISREG(info.st_mode) and info.st_mode & 0o077:
        raise ResourceError(
            f"other users can read the password in {path}", hint=f"chmod 600 {path}"
        )
    return _line(data, str(path))


def secret_from_environment(variable: str) -> str | None:
    """Return an environment variable's value; None if it is not set."""
    return os.environ.get(variable)


def _line(data: bytes, where: str) -> str:
    line = data.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line or len(line) > _MOST_BYTES:
        raise ResourceError(f"there is no password in {where}", hint="it has to be the first line")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ResourceError(f"the password in {where} is not UTF-8") from error
