"""File trees that a sender reads from here, and a receiver writes to from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vmconnect.direct.copy import ends
from vmconnect.direct.copy.receiver import Named
from vmconnect.direct.copy.sender import Sender

__all__ = ["LocalTree", "Tree"]


class Tree(Protocol):
    """A file tree. Paths and names are bytes; what it refuses is an OSError.

    Its directories are as `vmconnect.direct.copy.directory.Directory`.
    """

    def send(self, sender: Sender, paths: Sequence[bytes]) -> None:
        """Send what the paths, or patterns of paths, name."""

    def destination(self, path: bytes, names: Sequence[Named]) -> tuple[Any, list[Named], bytes]:
        """Return the directory that sources go to, what they are called there, and its path."""


class LocalTree:
    """The files of this host."""

    def send(self, sender: Sender, paths: Sequence[bytes]) -> None:
        """Send what the paths name."""
        ends.send_sources(sender, paths)

    def destination(self, path: bytes, names: Sequence[Named]) -> tuple[Any, list[Named], bytes]:
        """Return the directory that sources go to, what they are called there, and its path."""
        return ends.open_destination(path, names)
