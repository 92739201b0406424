"""Copying one file over SFTP (draft-ietf-secsh-filexfer-02), whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from vmconnect.direct.library import paramiko
from vmconnect.errors import GuestError, ResourceError, VmconnectError
from vmconnect.progress import Progress

__all__ = ["download", "upload"]


def upload(sftp: paramiko.SFTPClient, local: Path | str, remote: str, progress: Progress) -> int:
    """Copy ``local`` to ``remote``, which appears only when it is whole; return its bytes.

    Raises ResourceError for the local file, GuestError for the remote one.
    """
    part = _part(remote)
    with _local(Path(local), "rb") as source, _refusals(remote):
        size = os.fstat(source.fileno()).st_size
        try:
            sftp.putfo(source, part, size, progress.advance)
            sftp.posix_rename(part, remote)
        except BaseException:
            with contextlib.suppress(OSError, EOFError):
                sftp.remove(part)
            raise
    return size


def download(sftp: paramiko.SFTPClient, remote: str, local: Path | str, progress: Progress) -> int:
    """Copy ``remote`` to ``local``; else as `upload`."""
    part = Path(_part(str(local)))
    try:
        with _local(part, "xb") as target, _refusals(remote):
            size = sftp.getfo(remote, target, progress.advance)
        try:
            part.replace(local)
        except OSError as error:
            raise ResourceError(f"cannot write {local}: {error.strerror}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return size


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
