"""Checks of where vmconnect keeps things on this host."""

from __future__ import annotations

import os
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.doctor.check import Verdict, broken, fine, skipped, warn
from vmconnect.errors import ResourceError
from vmconnect.journal import JournalFile
from vmconnect.journal.writer import journal_is_on
from vmconnect.paths import private_directory, runtime_directory, state_directory
from vmconnect.settings import sections, settings_path

__all__ = ["try_journal", "try_runtime", "try_settings", "try_state"]

# sockaddr_un.sun_path holds 108 bytes with the terminating zero (unix(7)), and QEMU takes no more.
_SUN_PATH_BYTES = 107
# Room for a machine's name and the longest of the endings beside it.
_NAME_BYTES = 40
_LEAST_FREE_BYTES = 16 << 20


def try_runtime(_host: object, deadline: Deadline) -> Verdict:
    """Make the runtime directory, or look at the one that is there."""
    del deadline
    path = runtime_directory()
    mode = path.stat().st_mode & 0o777
    if len(os.fsencode(path)) + _NAME_BYTES > _SUN_PATH_BYTES:
        return warn(
            f"{path} is so long that sockets in it have little room for names",
            "set XDG_RUNTIME_DIR to a shorter path",
        )
    if not os.environ.get("XDG_RUNTIME_DIR", "").startswith("/"):
        return warn(
            f"XDG_RUNTIME_DIR is not set: it is {path}",
            f"export XDG_RUNTIME_DIR=/run/user/{os.getuid()}, where machines' sockets are",
        )
    return fine(f"{path}, mode {mode:o}")


def try_state(_host: object, deadline: Deadline) -> Verdict:
    """Look whether keys can be pinned and entries written."""
    del deadline
    path = state_directory()
    if not path.exists():
        parent = next((each for each in path.parents if each.exists()), Path("/"))
        if not os.access(parent, os.W_OK | os.X_OK):
            return broken(
                f"{path} is not there, and {parent} is not yours to write to",
                "set XDG_STATE_HOME to a directory of yours",
            )
        return fine(f"{path}, which is made when it is needed")
    private_directory(path)
    if not os.access(path, os.W_OK):
        return broken(f"{path} cannot be written to", f"chmod u+w {path}")
    try:
        told = os.statvfs(path)
    except OSError as error:
        raise ResourceError(f"cannot look at {path}: {error.strerror}") from error
    if told.f_bavail * told.f_frsize < _LEAST_FREE_BYTES:
        return warn(f"the disk of {path} is nearly full", "make room there")
    return fine(f"{path}, mode {path.stat().st_mode & 0o777:o}")


def try_settings(_host: object, deadline: Deadline) -> Verdict:
    """Read the settings."""
    del deadline
    path = settings_path()
    found = sections()
    if not found and not path.exists():
        return skipped(f"there are none in {path}")
    return fine(f"{path}: {', '.join(found) or 'empty'}")


def try_journal(_host: object, deadline: Deadline) -> Verdict:
    """Look whether it is on, and can be written to."""
    del deadline
    if not journal_is_on():
        return skipped("it is turned off")
    path = JournalFile().path
    if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
        return warn(f"{path} cannot be written to", "move it out of the way")
    size = path.stat().st_size if path.exists() else 0
    return fine(f"{path}, {size >> 10} KiB")
