"""Where live sockets are: told by a module that imports nothing, for a client in a hurry."""

import os
import stat

__all__ = ["is_private", "runtime_path"]


def runtime_path() -> str:
    """Return the path of the runtime directory, which need not be there.

    ``$XDG_RUNTIME_DIR/vmconnect``, else ``/run/user/UID/vmconnect``, else ``/tmp/vmconnect-UID``.
    """
    value = os.environ.get("XDG_RUNTIME_DIR", "")
    if value.startswith("/"):
        return os.path.join(value, "vmconnect")  # noqa: PTH118 (pathlib is no import of ours)
    login = f"/run/user/{os.getuid()}"
    if os.path.isdir(login):  # noqa: PTH112
        return f"{login}/vmconnect"
    return f"/tmp/vmconnect-{os.getuid()}"  # noqa: S108 (whoever uses it checks whose it is)


def is_private(info: os.stat_result) -> bool:
    """Return whether it is a directory of ours that nobody else may write to."""
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o022
