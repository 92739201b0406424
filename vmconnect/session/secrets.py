"""Secrets that a caller names the place of: a file descriptor, a file, an environment variable.

Never the command line, which every user of the host can read. A function here that raises has
nothing of what it read in its variables: a traceback may show them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vmconnect.errors import ResourceError
from vmconnect.secret import Secret

__all__ = ["secret_from_descriptor", "secret_from_environment", "secret_from_file"]

_MOST_BYTES = 64 * 1024


def secret_from_descriptor(descriptor: int) -> Secret:
    """Return the first line of what an open file descriptor, a pipe for instance, gives.

    It is read to the end of the line and no further. Raises ResourceError if it cannot be.
    """
    where = f"file descriptor {descriptor}"
    line = bytearray()
    try:
        while b"\n" not in line and len(line) <= _MOST_BYTES:
            byte = os.read(descriptor, 1)
            if not byte:
                break
            line += byte
    except OSError as error:
        line.clear()
        raise ResourceError(f"cannot read a password from {where}: {error.strerror}") from error
    found = _first_line(bytes(line))
    line.clear()
    return _checked(found, where)


def secret_from_file(path: Path) -> Secret:
    """Return the first line of a file.

    Raises ResourceError if it cannot be read, or if other users can read it.
    """
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            if stat.S_ISREG(info.st_mode) and info.st_mode & 0o077:
                raise ResourceError(
                    f"other users can read the password in {path}", hint=f"chmod 600 {path}"
                )
            found = _first_line(file.read(_MOST_BYTES + 1))
    except OSError as error:
        raise ResourceError(f"cannot read a password from {path}: {error.strerror}") from error
    return _checked(found, str(path))


def secret_from_environment(variable: str) -> Secret | None:
    """Return an environment variable's value; None if it is not set, or empty.

    Raises ResourceError if it is not UTF-8.
    """
    if not os.environ.get(variable):
        return None
    return _checked(_first_line(os.environb[variable.encode()]), f"${variable}")


def _first_line(data: bytes) -> Secret | str:
    """Return the password in ``data``, or what is wrong with it."""
    line = data.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line or len(line) > _MOST_BYTES:
        return "there is no password in {}"
    try:
        return Secret(line.decode())
    except UnicodeDecodeError:
        return "the password in {} is not UTF-8"


def _checked(found: Secret | str, where: str) -> Secret:
    if isinstance(found, Secret):
        return found
    hint = "it has to be the first line" if found.startswith("there") else None
    raise ResourceError(found.format(where), hint=hint)
