"""virt-viewer's connection files, ``.vv``: where a console is, and a ticket to it.

Web front ends of oVirt, Proxmox, OpenStack and others hand them out. The format is GLib's key
file with a group ``[virt-viewer]`` (remote-viewer(1), CONNECTION FILE). Such a file comes from the
network: it is read up to a bound, and what it says of programs, proxies and keys is not done.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from vmconnect.errors import ResourceError, TargetError, UnsupportedError
from vmconnect.secret import Secret
from vmconnect.streams import Tcp

__all__ = ["ViewerFile", "parse_viewer_file", "read_viewer_file"]

_MOST_BYTES = 256 << 10  # A CA's certificate may be in it.
_GROUP = "virt-viewer"
# GLib's escapes in strings.
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_TEXT_CHARACTERS = 255
_PASSWORD_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class ViewerFile:
    """What a connection file says of a VNC console."""

    console: Tcp
    title: str | None = None
    user: str | None = None
    password: Secret | None = None
    delete: bool = False


def read_viewer_file(path: Path) -> ViewerFile:
    """Read the file, and delete it if it says so; its ticket is for one use.

    Raises ResourceError if it cannot be read, and as `parse_viewer_file`; then it stays.
    """
    try:
        # A FIFO must not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor)
            info = os.fstat(descriptor)
            data = file.read(_MOST_BYTES + 1) if stat.S_ISREG(info.st_mode) else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ResourceError(f"cannot read {path}: {reason}") from error
    if data is None:
        raise TargetError(f"{path} is no file")
    parsed = parse_viewer_file(data, str(path))
    if parsed.delete:
        with contextlib.suppress(OSError):  # Not ours to delete: then it stays.
            if os.path.samestat(info, path.stat()):
                path.unlink()
    return parsed


def parse_viewer_file(data: bytes, name: str) -> ViewerFile:
    """Read a connection file's bytes; ``name`` is for errors.

    Raises TargetError if it is none, and UnsupportedError if it is for something else than VNC.
    """
    if len(data) > _MOST_BYTES:
        raise TargetError(f"{name} is too long for a connection file")
    try:
        keys = _keys(data.decode())
    except UnicodeDecodeError as error:
        raise TargetError(f"{name} is not UTF-8, and so no connection file") from error
    if keys is None:
        raise TargetError(
            f"{name} is no connection file", hint=f"it begins with [{_GROUP}] and type=vnc"
        )
    kind = keys.get("type", "")
    if kind != "vnc":
        raise UnsupportedError(
            f"{name} is for {kind[:_TEXT_CHARACTERS]!r}, not for VNC",
            hint="let the machine have a VNC console"
            if kind == "spice"
            else "only type=vnc can be opened",
        )
    if keys.get("proxy"):
        raise UnsupportedError(f"{name} wants a proxy, which is not supported")
    host = keys.get("host", "")
    if not 0 < len(host) <= _TEXT_CHARACTERS or not host.isprintable() or set(host) & set("/ "):
        raise TargetError(f"{name} names no host")
    return ViewerFile(
        console=Tcp(host.removeprefix("[").removesuffix("]"), _port(keys, name)),
        title=_text(keys.get("title")),
        user=_text(keys.get("username")),
        password=_password(keys.get("password"), name),
        delete=keys.get("delete-this-file", "0") == "1",
    )


def _keys(text: str) -> dict[str, str] | None:
    """Return the group's keys and values; None where there is no such group."""
    keys: dict[str, str] | None = None
    inside = False
    for each in text.removeprefix("\ufeff").split("\n"):
        line = each.strip(" \t\r")
        if line.startswith("[") and line.endswith("]"):
            inside = line[1:-1] == _GROUP
            if inside and keys is None:
                keys = {}
        elif inside and keys is not None and not line.startswith("#"):
            key, equals, value = line.partition("=")
            if equals:
                keys[key.rstrip(" \t")] = _unescaped(value.lstrip(" \t"))
    return keys


def _unescaped(value: str) -> str:
    if "\\" not in value:
        return value
    characters = iter(value)
    return "".join(
        _ESCAPES.get(next(characters, ""), "") if char == "\\" else char for char in characters
    )


def _port(keys: dict[str, str], name: str) -> int:
    port = keys.get("port", "")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535):
        raise TargetError(f"{name} names no port")
    return int(port)


def _text(value: str | None) -> str | None:
    """Return what may be shown; a file's word is not our terminal's."""
    printable = "".join(c if c.isprintable() else " " for c in (value or "")[:_TEXT_CHARACTERS])
    return printable.strip() or None


def _password(value: str | None, name: str) -> Secret | None:
    if value is not None and len(value) > _PASSWORD_CHARACTERS:
        raise TargetError(f"{name} has a password past all bounds")
    return Secret(value) if value else None
