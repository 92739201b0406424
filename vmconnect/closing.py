"""What is closed at the end of a ``with`` block, and how much is closed at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Self

from vmconnect.deadline import Deadline
from vmconnect.errors import VmconnectError

__all__ = ["Closing", "together"]


class Closing:
    """A thing with a ``close``, which a ``with`` block calls however it ends."""

    def close(self) -> None:
        """Let go of what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def together(ends: Iterable[Callable[[], object]], deadline: Deadline) -> None:
    """End things side by side, in threads, and return when all have ended, or at the deadline.

    One that hangs holds up no other; after the deadline it goes on by itself. A VmconnectError
    that ending one raises is nobody's.
    """

    def run(end: Callable[[], object]) -> None:
        with contextlib.suppress(VmconnectError):
            end()

    threads = []
    for each in ends:
        thread = threading.Thread(target=run, args=(each,), name="vmconnect-end", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # The system has no more.
            run(each)
        else:
            threads.append(thread)
    for thread in threads:
        thread.join(deadline.remaining())
