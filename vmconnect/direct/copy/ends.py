"""From paths to directories: where sources are, and where they go.

This module runs in guests, too.
"""

from __future__ import annotations

import errno
import os

from vmconnect.direct.copy.directory import Directory
from vmconnect.direct.copy.receiver import Named

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = [
    "expanded",
    "has_pattern",
    "measure",
    "named",
    "open_destination",
    "send_sources",
    "split",
]

_MAGIC = (b"*", b"?", b"[")


def has_pattern(path: bytes) -> bool:
    """Return whether a path may stand for several."""
    return any(each in path for each in _MAGIC)


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the directory that a path is in, and its name there; ``.`` is the directory itself."""
    head, tail = os.path.split(path.rstrip(b"/") or b"/")
    if tail in {b"", b".", b".."}:
        return os.path.join(head, tail), b"."
    return head or b".", tail


def named(path: bytes) -> Named:
    """Return what a source is called at the destination."""
    _, name = split(path)
    return Named(b"", name) if has_pattern(path) else Named(name)


def open_destination(path: bytes, names: Sequence[Named]) -> tuple[Directory, list[Named], bytes]:
    """Return the directory that sources go to, what they are called there, and its path.

    As cp has it: into ``path`` if that is a directory, else ``path`` is the one source's new name.
    Raises OSError.
    """
    path = path or b"."
    if os.path.isdir(path):
        return Directory.open(path), list(names), path
    if len(names) != 1 or names[0].pattern or path.endswith(b"/"):
        number = errno.ENOTDIR if os.path.lexists(path) else errno.ENOENT
        raise OSError(number, f"{os.strerror(number)} (a directory is needed)")
    if os.path.islink(path):
        path = os.path.realpath(path)
    parent, name = split(path)
    return Directory.open(parent), [Named(name)], parent


def send_sources(sender: Any, paths: Sequence[bytes]) -> None:
    """Send what the paths, or patterns of paths, name."""
    for index, path in enumerate(paths):
        for each in expanded(path):
            parent, name = split(each)
            try:
                directory = Directory.open(parent)
            except OSError as error:
                sender.lost(each, error.errno or 0, error.strerror or str(error))
                continue
            try:
                sender.send(index, directory, name, each)
            finally:
                directory.close()


def measure(paths: Sequence[bytes]) -> tuple[int, int]:
    """Return how many files the sources have, and how many bytes, about."""
    files = size = 0
    waiting = [each for path in paths for each in expanded(path)]
    top = len(waiting)
    while waiting:
        path = waiting.pop(0) if top else waiting.pop()
        follow, top = top > 0, max(0, top - 1)
        try:
            if os.path.isdir(path) and (follow or not os.path.islink(path)):
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            files += 1
                            size += entry.stat(follow_symlinks=False).st_size
            else:
                size += os.stat(path).st_size
                files += 1
        except OSError:
            continue  # Whoever sends it will tell.
    return files, size


def expanded(path: bytes) -> list[bytes]:
    """Return the paths that a pattern matches; itself if it is none, or matches nothing."""
    if not has_pattern(path) or os.path.lexists(path):
        return [path]
    from glob import glob

    return sorted(glob(path)) or [path]
