"""What became of a copy."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Copied", "Failure"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that was not copied: its path as bytes, and why."""

    path: bytes
    reason: str
    number: int = 0
    """errno's, of whichever end it was; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The outcome of one copy.

    ``files`` and ``size`` are what was written: files and links, and bytes of contents. ``way`` is
    how, such as ``vsock`` or ``SFTP``. ``failures`` are the first thousand; ``failed`` is how many
    there were.
    """

    files: int
    size: int
    seconds: float
    way: str
    failures: tuple[Failure, ...] = ()
    failed: int = 0

    @property
    def ok(self) -> bool:
        """Whether all was copied."""
        return not self.failed
