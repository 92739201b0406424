"""Variables for a command in a guest, from options and files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vmconnect.errors import ResourceError, TargetError

__all__ = ["environment"]

_FILE_BYTES = 1 << 20


def environment(options: Iterable[str], files: Iterable[Path]) -> dict[str, str]:
    """Return what files, and then options, set.

    An option is ``NAME=VALUE``, or ``NAME`` for our own variable's value, if we have it. So is a
    line of a file; empty ones and those that begin with ``#`` are none. Raises ResourceError for
    a file that cannot be read, TargetError for one that is no such file.
    """
    variables: dict[str, str] = {}
    for path in files:
        for number, line in enumerate(_lines(path), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                _add(variables, line, f"{path}, line {number}")
    for option in options:
        _add(variables, option, "-e")
    return variables


def _add(variables: dict[str, str], text: str, where: str) -> None:
    name, given, value = text.partition("=")
    # The text may be a secret that was put in a name's place.
    if not name.isidentifier() or not name.isascii():
        raise TargetError(f"{where}: a variable is NAME=VALUE or NAME")
    if given:
        variables[name] = value
    elif name in os.environ:
        variables[name] = os.environ[name]


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _FILE_BYTES:
        raise TargetError(f"{path} has more than a mebibyte")
    return data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n")
