"""The sockets that machines announce themselves by: which there are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vmconnect.errors import ResourceError
from vmconnect.streams.permission import permission_hint

__all__ = ["is_socket", "libvirt_sockets", "may_be", "sockets_in"]


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
        hint = permission_hint(directory) if isinstance(error, PermissionError) else None
        raise ResourceError(f"cannot read {directory}: {error.strerror}", hint=hint) from error
    return [Path(path) for path in paths if is_socket(path)]
