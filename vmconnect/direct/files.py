"""Files of a guest: what `vmconnect.direct.Guest` can do with them."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.errors import UnsupportedError
from vmconnect.operation import Operation, Operations
from vmconnect.progress import Progress

if TYPE_CHECKING:  # What is needed for copies alone.
    from vmconnect.direct.copy import Copied, Failure, Options, Place

    OnFailure = Callable[[Failure], object]

__all__ = ["GuestFiles"]


class GuestFiles(ABC):
    """Copying into a guest, out of it, and to another (`vmconnect.direct.copy`)."""

    machine: str
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

        All else is as `put` has it. A copy between two guests is told of by both.
        """
        from vmconnect.direct.copy import Copier

        deadline = Deadline.of(timeout)
        many = [paths] if isinstance(paths, Path | str) else [*paths]
        operations = _operations(source, ", ".join(map(str, many)), target, str(destination))
        with contextlib.ExitStack() as stack:
            for guest, operation in operations:
                stack.enter_context(guest.operations.during(operation))
            copier = Copier(
                source._place(deadline) if source else None,
                target._place(deadline) if target else None,
                options=options,
                progress=progress,
                on_failure=on_failure,
            )
            copied = copier.copy([*map(os.fsencode, many)], os.fsencode(destination), deadline)
            for guest, operation in operations:
                operation.sent = copied.size if guest is target else None
                operation.received = copied.size if guest is source else None
            if copied.failures and on_failure is None:
                raise copied.error
            return copied


def _operations(
    source: GuestFiles | None, paths: str, target: GuestFiles | None, destination: str
) -> list[tuple[GuestFiles, Operation]]:
    """Return what each of the guests is to tell of a copy."""
    if source is None or target is None:
        if target is not None:
            return [(target, Operation("put", {"local": paths, "remote": destination}))]
        if source is not None:
            return [(source, Operation("get", {"remote": paths, "local": destination}))]
        raise UnsupportedError("neither end of the copy is a guest")
    ends = {
        "source": source.machine,
        "from": paths,
        "target": target.machine,
        "to": destination,
    }
    guests = [source] if source is target else [source, target]
    return [(guest, Operation("copy", dict(ends))) for guest in guests]
