"""Files of a guest: what `vmconnect.direct.Guest` can do with them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.operation import Operations
from vmconnect.progress import Progress

if TYPE_CHECKING:  # What is needed for copies alone.
    from vmconnect.direct.copy import Copied, Failure, Options, Place

    OnFailure = Callable[[Failure], object]

__all__ = ["GuestFiles"]


class GuestFiles(ABC):
    """Copying into a guest, out of it, and to another (`vmconnect.direct.copy`)."""

    operations: Operations

    @abstractmethod
    def _place(self, deadline: Deadline) -> Place:
        """Return how the guest is reached, connecting if need be."""

    def put(
        self,
        local: Path | str | Sequence[Path | str],
        remote: str,
        *,
        progress: Progress | None = None,
        on_failure: OnFailure | None = None,
        options: Options | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> Copied:
        """Copy files and directories into the guest, as cp -R; ``timeout`` is to connect.

        Into ``remote`` if that is a directory there, else ``remote`` is the new name. Modes, times,
        links, holes and extended attributes are kept; a file gets its name only when it is whole.
        ``on_failure`` is called with each file that could not be copied; without it the first one
        is raised when all others are there: ResourceError for a local one, GuestError for a remote
        one. Raises also ConnectionLostError, DeadlineError, CopyError.
        """
        return self.copy(
            None,
            local,
            self,
            remote,
            progress=progress,
            on_failure=on_failure,
            options=options,
            timeout=timeout,
        )

    def get(
        self,
        remote: str | Sequence[str],
        local: Path | str,
        *,
        progress: Progress | None = None,
        on_failure: OnFailure | None = None,
        options: Options | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> Copied:
        """Copy files and directories out of the guest, patterns of names too; else as `put`."""
        return self.copy(
            self,
            remote,
            None,
            local,
            progress=progress,
            on_failure=on_failure,
            options=options,
            timeout=timeout,
        )

    def sync(
        self,
        local: Path | str | Sequence[Path | str],
        remote: str,
        *,
        progress: Progress | None = None,
        on_failure: OnFailure | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> Copied:
        """Copy as `put`, but leave out what is there already, by its size and time."""
        from vmconnect.direct.copy import Options

        options = Options(sync=True)
        return self.put(
            local,
            remote,
            progress=progress,
            on_failure=on_failure,
            options=options,
            timeout=timeout,
        )

    def copy(
        self,
        source: GuestFiles | None,
        paths: Path | str | Sequence[Path | str],
        target: GuestFiles | None,
        destination: Path | str,
        *,
        progress: Progress | None = None,
        on_failure: OnFailure | None = None,
        options: Options | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> Copied:
        """Copy from one guest to another, one of which is this one; None is this host.

        All else is as `put` has it.
        """
        from vmconnect.direct.copy import Copier

        deadline = Deadline.of(timeout)
        many = [paths] if isinstance(paths, Path | str) else [*paths]
        what, *ends = _names(source, target)
        told = dict(zip(ends, (", ".join(map(str, many)), str(destination)), strict=True))
        with self.operations.doing(what, **told) as operation:
            copier = Copier(
                source._place(deadline) if source else None,
                target._place(deadline) if target else None,
                options=options,
                progress=progress,
                on_failure=on_failure,
            )
            copied = copier.copy([*map(os.fsencode, many)], os.fsencode(destination), deadline)
            operation.sent = copied.size if target else None
            operation.received = copied.size if source else None
            if copied.failures and on_failure is None:
                raise copied.error
            return copied


def _names(source: GuestFiles | None, target: GuestFiles | None) -> tuple[str, str, str]:
    """Return what a copy is called, and what its two ends are."""
    if source and target:
        return "copy", "from", "to"
    return ("get", "remote", "local") if source else ("put", "local", "remote")
