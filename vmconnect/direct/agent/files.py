"""Copies through a guest's agent: single files, with no login."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from vmconnect.direct.agent.powershell import quoted
from vmconnect.errors import GuestError, ResourceError, TargetError, VmconnectError
from vmconnect.progress import Progress

if TYPE_CHECKING:
    from vmconnect.direct.agent.guest_agent import GuestAgent
    from vmconnect.direct.copy import Copied, Failure

    OnFailure = Callable[[Failure], object]

__all__ = ["AgentFiles"]

_WAY = "guest agent"
_IS_DIRECTORY = "Test-Path -PathType Container -LiteralPath {path}"


class AgentFiles:
    """Files into a guest and out of it, one after the other (`GuestAgent.put` and `get`).

    Paths in the guest are whole ones: nobody logs in, so there is no home. A failure with one file
    is told to ``on_failure``, and the others are copied.
    """

    def __init__(self, agent: GuestAgent):
        self.machine = agent.machine
        self._agent = agent

    @property
    def user(self) -> str:
        """As whom the agent writes and reads: it may do everything there."""
        return "SYSTEM" if self._agent.is_windows() else "root"

    def put(
        self,
        local: Sequence[str],
        remote: str,
        *,
        on_failure: OnFailure,
        progress: Progress | None = None,
    ) -> Copied:
        """Copy files into the guest: into ``remote`` if that is a directory, else so called.

        Raises TargetError for a path that is no whole one, GuestError where a directory is needed,
        and what ends a copy: ConnectionLostError, DeadlineError, AgentError, UnsupportedError.
        """
        self._check(remote)
        directory = self._is_directory(remote)
        if not directory and (len(local) > 1 or remote.endswith("/")):
            raise GuestError(f"{remote} is no directory", machine=self.machine)

        def copy(path: str) -> int:
            target = f"{remote.rstrip('/')}/{PurePosixPath(path).name}" if directory else remote
            return self._agent.put(path, target, progress=progress)

        return self._copied(local, copy, on_failure)

    def get(
        self,
        remote: Sequence[str],
        local: str,
        *,
        on_failure: OnFailure,
        progress: Progress | None = None,
    ) -> Copied:
        """Copy files out of the guest; ResourceError where a directory is needed; else as `put`."""
        for each in remote:
            self._check(each)
        directory = Path(local).is_dir()
        if not directory and (len(remote) > 1 or local.endswith("/")):
            raise ResourceError(f"{local} is no directory")
        pure = PureWindowsPath if self._agent.is_windows() else PurePosixPath

        def copy(path: str) -> int:
            target = Path(local, pure(path).name) if directory else local
            return self._agent.get(path, target, progress=progress)

        return self._copied(remote, copy, on_failure)

    def _check(self, path: str) -> None:
        """Raise TargetError for a path that depends on where the agent happens to be."""
        pure = PureWindowsPath if self._agent.is_windows() else PurePosixPath
        if not pure(path).is_absolute():
            raise TargetError(
                f"{path!r} is no whole path, and by its guest agent nobody has a home",
                machine=self.machine,
            )

    def _is_directory(self, path: str) -> bool:
        if self._agent.is_windows():
            script = _IS_DIRECTORY.format(path=quoted(path))
            return self._agent.powershell(script).check().objects == (True,)
        return self._agent.run(["test", "-d", path]).ok

    def _copied(
        self, paths: Sequence[str], copy: Callable[[str], int], on_failure: OnFailure
    ) -> Copied:
        from vmconnect.direct.copy import Copied, Failure

        started = time.monotonic()
        sizes: list[int] = []
        failures: list[Failure] = []
        for path in paths:
            try:
                sizes.append(copy(path))
            except (GuestError, ResourceError) as error:
                machine = self.machine if isinstance(error, GuestError) else None
                name = path.encode("utf-8", "surrogateescape")
                failures.append(Failure(name, _reason(error), machine))
                on_failure(failures[-1])
        return Copied(
            files=len(sizes),
            size=sum(sizes),
            seconds=time.monotonic() - started,
            way=_WAY,
            failures=tuple(failures),
            failed=len(failures),
        )


def _reason(error: VmconnectError) -> str:
    """Return why it was, without what it was for: that is told beside it."""
    cause = error.__cause__
    if isinstance(cause, VmconnectError):
        return cause.message
    return (isinstance(cause, OSError) and cause.strerror) or error.message
