"""State machines as tables: which state may follow which, kept and waited for."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from vmconnect.deadline import Deadline
from vmconnect.errors import StateError, VmconnectError

__all__ = ["StateMachine", "Table"]

S = TypeVar("S", bound=enum.Enum)

Table = Mapping[S, frozenset[S]]
"""For every state, those that may come next."""


class StateMachine(Generic[S]):
    """A state, how it came to be, and who waits for another; for any thread.

    ``noun`` is what has the state, for errors. ``because`` is why the state is as it is, where
    there is a reason.
    """

    def __init__(self, noun: str, table: Table[S], first: S):
        self._noun = noun
        self._table = table
        self._changed = threading.Condition()
        self.state = first
        self.because: VmconnectError | None = None
        self.version = 0
        """How many transitions there were."""

    def enter(self, after: S, because: VmconnectError | None = None) -> S:
        """Make a transition and return the state before it.

        One that is not in the table raises StateError and changes nothing.
        """
        with self._changed:
            before = self.state
            if after not in self._table[before]:
                raise StateError(f"{self._noun} cannot go from {before.value} to {after.value}")
            self.state, self.because = after, because
            self.version += 1
            self._changed.notify_all()
        return before

    def wait_for(self, wanted: Callable[[S], bool], deadline: Deadline) -> bool:
        """Wait for a state that is ``wanted``; return whether it came before the deadline."""
        with deadline.waking(self._wake), self._changed:
            return self._changed.wait_for(
                lambda: wanted(self.state) or deadline.cancelled, deadline.remaining()
            ) and wanted(self.state)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
