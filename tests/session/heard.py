"""What a session has told, for tests to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from vmconnect.deadline import Deadline
from vmconnect.session import Session
from vmconnect.session.events import SessionEvent

__all__ = ["Heard"]

PATIENCE = 60.0

E = TypeVar("E")


class Heard:
    """Subscribes to a session and keeps all that it hears."""

    def __init__(self, session: Session) -> None:
        self.events: list[SessionEvent] = []
        self._changed = threading.Condition()
        session.subscribe(self._take)

    def _take(self, event: SessionEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def wait(
        self, kind: type[E], which: Callable[[E], bool] = lambda _: True, *, count: int = 1
    ) -> E:
        """Wait for so many events of a kind, and return the last."""
        deadline = Deadline(PATIENCE)

        def found() -> list[E]:
            return [event for event in self.of(kind) if which(event)]

        with self._changed:
            came = self._changed.wait_for(lambda: len(found()) >= count, deadline.remaining())
        assert came, self.events
        return found()[-1]
