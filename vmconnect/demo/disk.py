"""A full disk, told in one way whoever meets it: our own writes, apt, tar or Python."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from vmconnect.errors import ResourceError

__all__ = ["check_output", "disk_errors"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# How programs in the C locale say these; the last is apt's, which looks before it writes.
_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "enough free space",
)


def check_output(output: str) -> None:
    """Raise OSError of a full disk if a program's ``output`` says that it met one."""
    if any(words in output for words in _WORDS):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def disk_errors(room: Path) -> Iterator[None]:
    """Translate what reading and writing in ``room`` raises into ResourceError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise  # ours, from the error tree, or whoever showed the progress has left
        hint = "XDG_CACHE_HOME moves it"
        if error.errno in _FULL:
            hint = f"the build needs some 500 MB in {room}; {hint}"
        reason = error.strerror or str(error)
        where = error.filename or room
        raise ResourceError(f"cannot build the demo in {where}: {reason}", hint=hint) from error
