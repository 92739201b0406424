"""Where vmconnect keeps things: runtime, cache, state and settings (XDG Base Directory)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vmconnect.errors import ResourceError
from vmconnect.runtime import is_private, runtime_path

__all__ = [
    "cache_directory",
    "config_directory",
    "private_directory",
    "runtime_directory",
    "state_directory",
]


def _home(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    # The specification says to ignore a relative path.
    base = Path(value) if value.startswith("/") else Path.home() / fallback
    return base / "vmconnect"


def private_directory(path: Path) -> Path:
    """Make ``path`` a directory that only this user can enter, and return it.

    Raises ResourceError if it cannot be made, or belongs to somebody else, or others may write
    to it: a socket or key put there would be theirs.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.lstat()
    except OSError as error:
        raise ResourceError(f"cannot make the directory {path}: {error.strerror}") from error
    if not stat.S_ISDIR(info.st_mode):
        raise ResourceError(f"{path} is not a directory", hint="move it out of the way")
    if not is_private(info):
        raise ResourceError(
            f"the directory {path} is open to other users", hint=f"chmod 700 {path}"
        )
    return path


def runtime_directory() -> Path:
    """Return the directory of live sockets, private to the user (`vmconnect.runtime`).

    Created when missing.
    """
    return private_directory(Path(runtime_path()))


def cache_directory() -> Path:
    """Return ``$XDG_CACHE_HOME/vmconnect``: what can be built again. Not created."""
    return _home("XDG_CACHE_HOME", ".cache")


def state_directory() -> Path:
    """Return ``$XDG_STATE_HOME/vmconnect``: pinned keys and the journal. Not created."""
    return _home("XDG_STATE_HOME", ".local/state")


def config_directory() -> Path:
    """Return ``$XDG_CONFIG_HOME/vmconnect``: what the user has set. Not created."""
    return _home("XDG_CONFIG_HOME", ".config")
