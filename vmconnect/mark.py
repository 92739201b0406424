"""Whether files are still the same, as the kernel tells."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Mark"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What the kernel tells of some files; one that is replaced or written to has another.

    ``changed_ns`` is when the last of them changed, in nanoseconds of the system's clock.
    """

    files: tuple[tuple[int, ...], ...]
    changed_ns: int

    @classmethod
    def of(cls, paths: Iterable[Path | str]) -> Self:
        """Look at the files; one that is missing has a mark too."""
        files = tuple(map(_look_at, paths))
        return cls(files, max((each[-1] for each in files if each), default=0))


def _look_at(path: Path | str) -> tuple[int, ...]:
    try:
        info = os.stat(path)  # noqa: PTH116 (as good as a Path's, and sooner)
    except OSError:
        return ()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
