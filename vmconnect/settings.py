"""What a user has set for good: ``$XDG_CONFIG_HOME/vmconnect/settings.toml``.

A section is a table of TOML (https://toml.io)::

    [journal]
    enabled = false
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from vmconnect.errors import ResourceError
from vmconnect.paths import config_directory

__all__ = ["read_toml", "section", "sections", "settings_path"]

_MOST_BYTES = 1 << 20


def settings_path() -> Path:
    """Return where the settings are, if there are any."""
    return config_directory() / "settings.toml"


def sections() -> dict[str, Any]:
    """Return all that is set, by section; nothing where there is no file.

    Raises ResourceError if the file cannot be read, or is no TOML.
    """
    path = settings_path()
    try:
        info = path.stat()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}") from error
    stamp = (str(path), info.st_mtime_ns, info.st_ino)
    if stamp not in _read:
        _read.clear()
        _read[stamp] = read_toml(path)
    return _read[stamp]


def section(name: str) -> dict[str, Any]:
    """Return a section of the settings, empty where there is none; raises as `sections` does."""
    found = sections().get(name, {})
    if not isinstance(found, dict):
        path = settings_path()
        raise ResourceError(f"{path}: {name} is no section", hint=f"write [{name}]")
    return found


# The file that was read last, by path, time and inode: who asks often does not read it often.
_read: dict[tuple[str, int, int], dict[str, Any]] = {}


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a file of TOML says; raises ResourceError if it cannot be read, or is none."""
    import tomllib  # Most have no settings.

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ResourceError(f"{path} is no file")
            return tomllib.loads(file.read(_MOST_BYTES).decode())
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # Of TOML, or of UTF-8.
        raise ResourceError(f"{path} is no TOML: {error}") from error
