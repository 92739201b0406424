"""What runs commands in one guest, whatever else it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from vmconnect.deadline import Deadline
from vmconnect.direct.pump import Sink
from vmconnect.direct.result import Result
from vmconnect.operation import Operation

__all__ = ["Runner"]


class Runner(Protocol):
    """A `Guest`, or a machine of a fleet that logs in to its guest when it has to."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        timeout: Deadline | float | None = None,
        operation: Operation | None = None,
    ) -> Result:
        """Run a command, as `Guest.run` does."""
