"""Copying one file over SFTP (draft-ietf-secsh-filexfer-02), whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from vmconnect.direct.library import paramiko
from vmconnect.errors import GuestError, ResourceError, VmconnectError
from vmconnect.progress import Progress

__all__ = ["Opener", "download", "upload"]

Opener = Callable[[], AbstractContextManager[paramiko.SFTPClient]]
"""Opens an SFTP session for the time of a ``with`` block."""

T = TypeVar("T")

_TIDY_SECONDS = 5.0


def upload(open_sftp: Opener, local: Path | str, remote: str, progress: Progress) -> int:
    """Copy ``local`` to ``remote``, which appears only when it is whole; return its bytes.

    Raises ResourceError for the local file, GuestError for the remote one.
    """
    part = _part(remote)
    with _local(Path(local), "rb") as source:
        size = os.fstat(source.fileno()).st_size
        try:
            with open_sftp() as sftp, _refusals(remote):
                _in_thread(sftp, lambda: sftp.putfo(source, part, size, progress.advance))
                sftp.posix_rename(part, remote)
        except BaseException:
            _remove(open_sftp, part)
            raise
    return size


def download(open_sftp: Opener, remote: str, local: Path | str, progress: Progress) -> int:
    """Copy ``remote`` to ``local``; else as `upload`."""
    part = Path(_part(str(local)))
    try:
        with _local(part, "xb") as target, open_sftp() as sftp, _refusals(remote):
            size = _in_thread(sftp, lambda: sftp.getfo(remote, target, progress.advance))
        try:
            part.replace(local)
        except OSError as error:
            raise ResourceError(f"cannot write {local}: {error.strerror}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return size


def _in_thread(sftp: paramiko.SFTPClient, copy: Callable[[], T]) -> T:
    """Run ``copy`` in a thread and return what it returns, or raise what it raises.

    A Ctrl-C in the midst of a message would cut it in two, and with it the whole connection;
    here it closes the SFTP session, and ends the copy.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(copy())
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            failed.append(error)

    thread = threading.Thread(target=run, name="vmconnect-copy", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        sftp.close()
        thread.join()
        raise
    if failed:
        raise failed[0]
    return done[0]


def _remove(open_sftp: Opener, path: str) -> None:
    """Remove what was left half done, if that can be; the error that counts is on its way.

    In a session of its own: the other may be closed.
    """
    with contextlib.suppress(VmconnectError, OSError), open_sftp() as sftp:
        channel = sftp.get_channel()
        if channel is not None:
            channel.settimeout(_TIDY_SECONDS)
        sftp.remove(path)


def _part(path: str) -> str:
    """Return the name under which a file arrives until it is whole."""
    return f"{path}.{secrets.token_hex(4)}.part"


@contextlib.contextmanager
def _local(path: Path, mode: str) -> Iterator[BinaryIO]:
    try:
        file = cast("BinaryIO", path.open(mode))
    except OSError as error:
        raise ResourceError(f"cannot open {path}: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def _refusals(remote: str) -> Iterator[None]:
    """Translate the server's refusals, which paramiko gives as bare OSErrors."""
    try:
        yield
    except (VmconnectError, ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise GuestError(f"cannot copy {remote}: {error.strerror or error}") from error
