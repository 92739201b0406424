"""Copying one file through a guest's agent, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.errand import checked
from vmconnect.direct.agent.file import CHUNK_BYTES, GuestFile
from vmconnect.direct.agent.powershell import quoted
from vmconnect.errors import GuestError, ResourceError, UnsupportedError, VmconnectError
from vmconnect.progress import Progress

if TYPE_CHECKING:
    from vmconnect.direct.agent.guest_agent import GuestAgent

__all__ = ["download", "upload"]

# The agent itself makes files that everybody may write to.
_MAKE = 'umask 077; set -C; : >"$1"'
_COMMIT = """
if [ -d "$2" ]; then echo 'Is a directory' >&2; exit 1; fi
chmod "$3" -- "$1" && mv -f -- "$1" "$2"
"""
_REGULAR = """
[ -f "$1" ] && exit
[ -e "$1" ] && echo 'no regular file' >&2 || echo 'No such file or directory' >&2
exit 1
"""
_WINDOWS_COMMIT = "Move-Item -Force -LiteralPath {part} -Destination {remote} -ErrorAction Stop"
_WINDOWS_REMOVE = "Remove-Item -Force -LiteralPath {part}"
_STEP_SECONDS = 60.0
_TIDY_SECONDS = 10.0


def upload(
    agent: GuestAgent, local: Path | str, remote: str, progress: Progress, deadline: Deadline
) -> int:
    """Copy ``local`` to ``remote``, with its permissions, and return its size in bytes.

    ``remote`` is replaced when all is there, as the file's size in the guest tells. Runs of zeros
    become holes.
    """
    part = f"{remote}.{secrets.token_hex(4)}.part"
    with _local(Path(local), "rb") as source, _refusals(remote):
        info = os.fstat(source.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise ResourceError(f"{local} is no regular file")
        windows = agent.is_windows(_step(deadline))
        if not windows:
            checked(agent, ["sh", "-c", _MAKE, "sh", part], _step(deadline))
        try:
            mode = "wb" if windows else "r+b"
            with GuestFile.open(agent, part, mode, _step(deadline)) as target:
                size = _send(source, target, info.st_size, progress, deadline)
            if windows:
                script = _WINDOWS_COMMIT.format(part=quoted(part), remote=quoted(remote))
                agent.powershell(script, timeout=_step(deadline)).check()
            else:
                permissions = f"{stat.S_IMODE(info.st_mode) & 0o777:o}"
                words = ["sh", "-c", _COMMIT, "sh", part, remote, permissions]
                checked(agent, words, _step(deadline))
        except BaseException:
            _remove(agent, part, windows=windows)
            raise
    return size


def download(
    agent: GuestAgent, remote: str, local: Path | str, progress: Progress, deadline: Deadline
) -> int:
    """Copy ``remote`` to ``local``; else as `upload`, with the permissions of new files here.

    What comes is no less than the guest said there was; of a file that grows, what it had come to.
    """
    part = Path(f"{local}.{secrets.token_hex(4)}.part")
    try:
        with _local(part, "xb") as target, _refusals(remote):
            if not agent.is_windows(_step(deadline)):
                # To open a pipe is to wait for who is at its other end, and the agent would.
                with contextlib.suppress(UnsupportedError):
                    checked(agent, ["sh", "-c", _REGULAR, "sh", remote], _step(deadline))
            with GuestFile.open(agent, remote, "rb", _step(deadline)) as source:
                size = _receive(source, target, progress, deadline)
        try:
            part.replace(local)
        except OSError as error:
            raise ResourceError(f"cannot write {local}: {error.strerror}") from error
    except BaseException:
        with contextlib.suppress(OSError):  # The error that counts is on its way.
            part.unlink()
        raise
    return size


def _send(
    source: BinaryIO, target: GuestFile, total: int, progress: Progress, deadline: Deadline
) -> int:
    size, hole = 0, False
    while data := source.read(CHUNK_BYTES):
        size += len(data)
        hole = not any(data)
        if hole:
            target.seek(size, timeout=_step(deadline))
        else:
            target.write(data, _step(deadline))
        progress.advance(size, total)
    if hole:  # A file ends with something that was written.
        target.seek(size - 1, timeout=_step(deadline))
        target.write(b"\0", _step(deadline))
    target.flush(_step(deadline))
    if target.seek(0, os.SEEK_END, _step(deadline)) != size:
        raise GuestError("it did not arrive whole", machine=target.machine)
    return size


def _receive(source: GuestFile, target: BinaryIO, progress: Progress, deadline: Deadline) -> int:
    total = source.seek(0, os.SEEK_END, _step(deadline))
    source.seek(0, timeout=_step(deadline))
    size = 0
    while data := source.read(timeout=_step(deadline)):
        size += len(data)
        if any(data):
            target.write(data)
        else:
            target.seek(size)
        progress.advance(size, max(size, total))
    if size < total:
        raise GuestError("it shrank while it was copied", machine=source.machine)
    target.truncate(size)
    return size


def _step(deadline: Deadline) -> Deadline:
    """Return by when the next request is to be answered."""
    deadline.check("copying")
    return deadline.sooner(_STEP_SECONDS)


def _remove(agent: GuestAgent, part: str, *, windows: bool) -> None:
    """Remove what was left half done, if that can be; the error that counts is on its way."""
    deadline = Deadline(_TIDY_SECONDS)
    with contextlib.suppress(VmconnectError):
        if windows:
            agent.powershell(_WINDOWS_REMOVE.format(part=quoted(part)), timeout=deadline)
        else:
            checked(agent, ["rm", "-f", "--", part], deadline)


@contextlib.contextmanager
def _local(path: Path, mode: str) -> Iterator[BinaryIO]:
    """Open a file of this host's for a block; what the system refuses there is a ResourceError."""
    try:
        with path.open(mode) as file:
            yield cast("BinaryIO", file)
    except VmconnectError:
        raise
    except OSError as error:
        verb = "read" if mode == "rb" else "write"
        raise ResourceError(f"cannot {verb} {path}: {error.strerror}") from error


@contextlib.contextmanager
def _refusals(remote: str) -> Iterator[None]:
    """Say of what the guest refuses which file it was for."""
    try:
        yield
    except GuestError as error:
        raise GuestError(
            f"cannot copy {remote}: {error.message}", machine=error.machine, hint=error.hint
        ) from error
