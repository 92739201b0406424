"""What became of a copy."""

from __future__ import annotations

from dataclasses import dataclass

from vmconnect.errors import GuestError, ResourceError, VmconnectError

__all__ = ["Copied", "Failure", "shown"]


def shown(path: bytes) -> str:
    """Return a path as it can be printed: on one line, and whatever bytes it has."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that was not copied: its path as bytes, why, and whose refusal it was.

    ``machine`` is None for this host; ``number`` is errno's, 0 where there is none.
    """

    path: bytes
    reason: str
    machine: str | None = None
    number: int = 0

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.reason}"

    @property
    def error(self) -> VmconnectError:
        """The same as an error that can be raised."""
        text = f"cannot copy {self}"
        return GuestError(text, machine=self.machine) if self.machine else ResourceError(text)


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

    @property
    def error(self) -> VmconnectError:
        """The first failure as an error that can be raised; of the others it says how many."""
        error = self.failures[0].error
        if self.failed > 1:
            error.message += f" (and {self.failed - 1} more)"
        return error
