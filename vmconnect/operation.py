"""What is done over a channel on purpose, such as running a command; and telling of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Operation", "Operations"]


@dataclass(slots=True)
class Operation:
    """Something that was done over a channel, told of when it is over.

    ``sent`` and ``received`` are the bytes of its contents, as far as they are known; ``error`` is
    what ended it, None if all went well. ``details`` depend on what was done. One without a name is
    a question of our own, or a part of another, and nobody is told of it.
    """

    name: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    sent: int | None = None
    received: int | None = None
    seconds: float = 0.0
    error: BaseException | None = None


Listener = Callable[[Operation], None]


class Operations:
    """All that is done over one channel; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` after every later operation, in the thread that did it."""
        with self._lock:
            self._listeners.append(listener)

    def doing(self, name: str, **details: Any) -> AbstractContextManager[Operation]:
        """Do something within a ``with`` block, and tell the listeners of it when it is over."""
        return self.during(Operation(name, details))

    @contextlib.contextmanager
    def during(self, operation: Operation) -> Iterator[Operation]:
        """Do an operation within a ``with`` block, as `doing` does."""
        started = time.monotonic()
        try:
            yield operation
        except BaseException as error:
            operation.error = error
            raise
        finally:
            operation.seconds = time.monotonic() - started
            with self._lock:
                listeners = tuple(self._listeners)
            for listener in listeners if operation.name else ():
                listener(operation)
