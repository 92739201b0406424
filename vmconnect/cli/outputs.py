"""The ways in which the output of many machines' commands is shown."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import IO, Any, Protocol

from vmconnect.cli.command_result import as_json
from vmconnect.cli.screen import Screen
from vmconnect.cli.verdicts import verdict_of
from vmconnect.cli.voice import printable
from vmconnect.direct import Result
from vmconnect.errors import GuestError, ResourceError
from vmconnect.session import Outcome

__all__ = ["Grouped", "JsonLines", "Output", "Prefixed"]

_OUT, _ERR = 1, 2
_WIDEST = 24
# What is kept of a line that has not ended, and of a machine's output before it goes to a file.
_LINE_BYTES = 1 << 16
_MEMORY_BYTES = 1 << 18
# A line of JSON has to be put together in memory.
_JSON_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 18


class Output(Protocol):
    """Takes what commands write, from several threads, and what came of them."""

    def stdout(self, label: str, data: bytes) -> None:
        """Take some of what a machine's command writes to its standard output."""

    def stderr(self, label: str, data: bytes) -> None:
        """Take some of what it writes to its standard error."""

    def finish(self, outcome: Outcome[Result]) -> None:
        """Take what came of a machine's command; there is no more output of it."""


class Prefixed:
    """Each line as it comes, with the machine before it."""

    def __init__(self, screen: Screen, labels: Iterable[str]):
        self._screen = screen
        shown = {label: printable(label) for label in labels}
        width = min(max(map(len, shown.values()), default=0), _WIDEST)
        self._prefixes = {
            label: f"{text.ljust(width)} | ".encode("utf-8", "replace")
            for label, text in shown.items()
        }
        self._partial: dict[tuple[str, int], bytes] = {}

    def stdout(self, label: str, data: bytes) -> None:
        """Write the lines that are whole."""
        self._take(label, _OUT, data)

    def stderr(self, label: str, data: bytes) -> None:
        """Write the lines that are whole."""
        self._take(label, _ERR, data)

    def finish(self, outcome: Outcome[Result]) -> None:
        """Write the lines that have not ended."""
        for number in (_OUT, _ERR):
            if rest := self._partial.pop((outcome.machine, number), b""):
                self._write(outcome.machine, number, [rest])

    def _take(self, label: str, number: int, data: bytes) -> None:
        key = (label, number)  # One thread has it.
        *lines, rest = (self._partial.pop(key, b"") + data).split(b"\n")
        if len(rest) > _LINE_BYTES:
            lines.append(rest)
        elif rest:
            self._partial[key] = rest
        self._write(label, number, lines)

    def _write(self, label: str, number: int, lines: list[bytes]) -> None:
        prefix = self._prefixes[label]
        self._screen.write(number, b"".join([b"%b%b\n" % (prefix, line) for line in lines]))


class _Spools:
    """What commands have written so far, of each machine apart; much of it in files."""

    def __init__(self, most_bytes: int | None = None):
        self._most = most_bytes
        self._lock = threading.Lock()
        self._files: dict[tuple[str, int], IO[bytes]] = {}

    def stdout(self, label: str, data: bytes) -> None:
        """Keep it."""
        self._keep(label, _OUT, data)

    def stderr(self, label: str, data: bytes) -> None:
        """Keep it."""
        self._keep(label, _ERR, data)

    def _keep(self, label: str, number: int, data: bytes) -> None:
        with self._lock:
            file = self._files.get((label, number))
            if file is None:
                file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 (kept)
                self._files[label, number] = file
        if self._most is not None and file.tell() + len(data) > self._most:
            raise GuestError(f"the command wrote more than {self._most >> 20} MiB")
        try:
            file.write(data)
        except OSError as error:
            raise ResourceError(f"cannot keep its output: {error.strerror}") from error

    def _taken(self, label: str, number: int) -> IO[bytes] | None:
        """Return what was kept, and keep it no more; the caller closes it."""
        with self._lock:
            file = self._files.pop((label, number), None)
        if file is not None:
            file.seek(0)
        return file


class Grouped(_Spools):
    """All that a machine's command has written, when it is over, below a line that names it."""

    def __init__(self, screen: Screen):
        super().__init__()
        self._screen = screen

    def finish(self, outcome: Outcome[Result]) -> None:
        """Write what was kept."""
        name = printable(outcome.machine)
        heads = {_OUT: f"== {name}: {verdict_of(outcome)}", _ERR: f"== {name}: standard error"}
        for number, head in heads.items():
            file = self._taken(outcome.machine, number)
            if file is not None or number == _OUT:
                self._screen.write(number, f"{head}\n".encode())
            if file is not None:
                self._copy(file, number)

    def _copy(self, file: IO[bytes], number: int) -> None:
        with file:
            last = b"\n"
            while data := file.read(_CHUNK_BYTES):
                self._screen.write(number, data)
                last = data
            if not last.endswith(b"\n"):
                self._screen.write(number, b"\n")


class JsonLines(_Spools):
    """An object for each machine, on one line, when its command is over."""

    def __init__(self, screen: Screen):
        super().__init__(_JSON_BYTES)
        self._screen = screen

    def finish(self, outcome: Outcome[Result]) -> None:
        """Write the object."""
        texts: list[bytes] = []
        for number in (_OUT, _ERR):
            file = self._taken(outcome.machine, number)
            texts.append(b"")
            if file is not None:
                with file:
                    texts[-1] = file.read()
        fields: dict[str, Any] = {"machine": outcome.machine, "seconds": round(outcome.seconds, 6)}
        if outcome.result is not None:
            result = replace(outcome.result, stdout=texts[0], stderr=texts[1])
            fields = as_json(outcome.machine, result)
        fields |= {"target": outcome.target, "error": None}
        if outcome.error is not None:
            kind = type(outcome.error).__name__
            fields["error"] = {"kind": kind, "message": str(outcome.error)}
        self._screen.write(_OUT, json.dumps(fields).encode() + b"\n")
