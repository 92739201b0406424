"""The sockets that machines announce themselves by: which there are, and who may use them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vmconnect.errors import ConnectError, ResourceError

__all__ = [
    "is_socket",
    "libvirt_sockets",
    "may_be",
    "permission_hint",
    "sockets_in",
    "with_permission_hint",
]


def is_socket(path: Path | str) -> bool:
    """Return whether there is a UNIX socket at ``path``."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116 (asked of every machine)
    except OSError:
        return False


def may_be(path: Path) -> bool:
    """Return whether there is something at ``path``, or we may not look."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def libvirt_sockets(path: str) -> list[Path]:
    """Return where this host's libvirt (``path`` system or session) listens, the modular first."""
    if path == "system":
        directory = Path("/run/libvirt")
    else:
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        directory = Path(runtime, "libvirt")
    return [directory / "virtqemud-sock", directory / "libvirt-sock"]


def sockets_in(directory: Path, suffix: str) -> list[Path]:
    """Return the sockets in ``directory`` whose names end with ``suffix``; ResourceError."""
    try:
        with os.scandir(directory) as entries:
            paths = sorted(entry.path for entry in entries if entry.name.endswith(suffix))
    except OSError as error:
        raise ResourceError(f"cannot read {directory}: {error.strerror}") from error
    return [Path(path) for path in paths if is_socket(path)]


@contextlib.contextmanager
def with_permission_hint(path: Path) -> Iterator[None]:
    """Add `permission_hint` to the error of a connection that was not permitted."""
    try:
        yield
    except ConnectError as error:
        if isinstance(error.__cause__, PermissionError):
            error.hint = permission_hint(path)
        raise


def permission_hint(path: Path, what: str = "the socket") -> str:
    """Return what would open the socket at ``path`` to this user; ``what`` it is called."""
    # The socket itself cannot be looked at where its directory is what is closed.
    for place in (path, *path.parents):
        try:
            info = place.stat()
        except OSError:
            continue
        break
    else:
        return "no part of its path can be looked at"
    closed = what if place == path else f"the directory {place}"
    needed = stat.S_IWGRP if place == path else stat.S_IXGRP
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
