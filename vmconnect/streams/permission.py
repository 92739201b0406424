"""Who may use a socket or another file, for those who may not."""

from __future__ import annotations

import stat
from pathlib import Path

__all__ = ["permission_hint"]


def permission_hint(path: Path, what: str = "the socket") -> str:
    """Return what would open ``path`` to this user; ``what`` it is called if it is no directory."""
    # The socket itself cannot be looked at where its directory is what is closed.
    for place in (path, *path.parents):
        try:
            info = place.stat()
        except OSError:
            continue
        break
    else:
        return "no part of its path can be looked at"
    directory = stat.S_ISDIR(info.st_mode)
    closed = f"the directory {place}" if directory else what
    needed = stat.S_IXGRP if directory else stat.S_IWGRP
    if info.st_mode & needed:
        return f"{closed} is open to the group {_group(info.st_gid)}: join it, and log in anew"
    return f"{closed} is open to the user {_user(info.st_uid)} only (mode {info.st_mode & 0o777:o})"


def _group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
