"""What came of commands on many machines: in words, as a table, as an exit code."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from vmconnect.cli.table import print_table
from vmconnect.cli.voice import printable
from vmconnect.direct import Result
from vmconnect.errors import ClosedError
from vmconnect.session import Outcome

__all__ = ["Summary", "verdict_of"]

_HEADS = ("MACHINE", "RESULT", "TOOK", "")
# Of more machines only those are shown that something is the matter with.
_MOST_ROWS = 40

_OK, _FAILED = "ok", "failed"
_ORDER = (_OK, _FAILED, "error", "cut off", "not begun")
_NOT_RUN, _INTERRUPTED = 255, 130


def verdict_of(outcome: Outcome[Result]) -> str:
    """Return what came of it, in a few words."""
    result = outcome.result
    if result is None:
        # Of those the message says it all: cut off, or not begun.
        message = outcome.error.message if isinstance(outcome.error, ClosedError) else ""
        return message if message in _ORDER else "error"
    if result.signal:
        return f"SIG{printable(result.signal)}"
    return _OK if result.ok else f"exit code {result.exit_code}"


class Summary:
    """What came of all of them; what commands wrote is not kept."""

    def __init__(self) -> None:
        self.interrupted = False
        self._counts: Counter[str] = Counter()
        self._rows: list[tuple[str, str, str, str]] = []

    @property
    def total(self) -> int:
        """How many have been added."""
        return self._counts.total()

    @property
    def bad(self) -> int:
        """Of how many of them the command did not end with exit code 0."""
        return self.total - self._counts[_OK]

    @property
    def exit_code(self) -> int:
        """130 if interrupted, 255 if some was not run to its end, 1 if some failed, else 0."""
        if self.interrupted:
            return _INTERRUPTED
        return _NOT_RUN if self.bad > self._counts[_FAILED] else 1 if self.bad else 0

    def add(self, outcome: Outcome[Result]) -> None:
        """Count one."""
        verdict, error = verdict_of(outcome), outcome.error
        self._counts[verdict if verdict == _OK or error is not None else _FAILED] += 1
        why = ""
        if error is not None and error.message != verdict:
            why = str(error).removeprefix(f"{error.machine}: ").replace("\n", " ")
        took = f"{outcome.seconds:.1f} s" if outcome.seconds else "-"
        self._rows.append((printable(outcome.machine), verdict, took, printable(why)))

    def print(self, skipped: Sequence[str], seconds: float) -> None:
        """Print the table, and a line that sums it up, on standard error."""
        rows = sorted(self._rows)
        if len(rows) > _MOST_ROWS:
            rows = [row for row in rows if row[1] != _OK]
        if rows:
            print_table([_HEADS, *rows], sys.stderr)
        counts = sorted(self._counts.items(), key=lambda each: _ORDER.index(each[0]))
        told = ", ".join(f"{count} {what}" for what, count in counts)
        noun = "machine" if self.total == 1 else "machines"
        left = f"; {len(skipped)} skipped, off or with no vsock" if skipped else ""
        text = f"{self.total} {noun}: {told}, in {seconds:.1f} s{left}"
        print(text, file=sys.stderr)  # noqa: T201
