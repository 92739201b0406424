"""The files that are made of a recording: never in the place of another unless that is allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vmconnect.errors import ResourceError

__all__ = ["check_output", "output"]


def check_output(path: Path, recording: Path, *, overwrite: bool) -> None:
    """Raise ResourceError if ``path`` must not be written to, before there is work in vain."""
    try:
        exists = path.exists()
        same = exists and path.samefile(recording)
    except OSError as error:
        raise _cannot(path, error) from error
    if same:
        raise ResourceError(f"{path} is the recording itself", hint="choose another name")
    if exists and not overwrite:
        raise ResourceError(f"{path} exists", hint="choose another name, or --force")


@contextlib.contextmanager
def output(path: Path, recording: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Open a file for writing; one that is not finished is removed. Raises ResourceError."""
    try:
        check_output(path, recording, overwrite=overwrite)
        with path.open("wb" if overwrite else "xb") as file:
            try:
                yield file
                file.flush()
            except BaseException:
                if path.is_file():
                    path.unlink()
                raise
    except OSError as error:
        raise _cannot(path, error) from error


def _cannot(path: Path, error: OSError) -> ResourceError:
    return ResourceError(f"cannot write {path}: {error.strerror or error}")
