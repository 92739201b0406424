r"""The life that a console and a guest channel share.

A channel is a live relationship over a stream that may break and come back::

    CONNECTING --> READY --> LOST --> RECONNECTING --> READY
         \            \        \            \
          +------------+--------+------------+--> CLOSED

The table below is the whole rule. `Channel` keeps the state, lets others wait for it and tells
listeners of each change; what is connected and how is the business of its subclasses
(`vmconnect.vnc.Console`, `vmconnect.direct.Guest`).
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from vmconnect.deadline import Deadline
from vmconnect.errors import ClosedError, DeadlineError, StateError, VmconnectError
from vmconnect.operation import Operations

__all__ = ["Channel", "ChannelState", "StateChange"]


class ChannelState(enum.Enum):
    """Where a channel is in its life."""

    CONNECTING = "connecting"
    READY = "ready"
    LOST = "lost"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


_S = ChannelState

TRANSITIONS: dict[ChannelState, frozenset[ChannelState]] = {
    _S.CONNECTING: frozenset({_S.READY, _S.LOST, _S.CLOSED}),
    _S.READY: frozenset({_S.LOST, _S.CLOSED}),
    _S.LOST: frozenset({_S.RECONNECTING, _S.CLOSED}),
    _S.RECONNECTING: frozenset({_S.READY, _S.LOST, _S.CLOSED}),
    _S.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class StateChange:
    """A channel went from one state to the next, and why."""

    before: ChannelState
    after: ChannelState
    reason: VmconnectError | None = None


Listener = Callable[[StateChange], None]


class Channel:
    """State, listeners, waiting and closing; safe to use from any thread.

    ``machine`` names the machine in errors and events.
    """

    def __init__(self, machine: str):
        self.machine = machine
        self._state = ChannelState.CONNECTING
        self._reason: VmconnectError | None = None
        self._changed = threading.Condition()
        self._listeners: list[Listener] = []
        self.operations = Operations()
        """What is done over it."""

    @property
    def state(self) -> ChannelState:
        """The present state."""
        return self._state

    @property
    def alive(self) -> bool:
        """Whether the channel is not closed; it may be lost, and come back."""
        return self._state is not ChannelState.CLOSED

    @property
    def reason(self) -> VmconnectError | None:
        """Why the channel is lost or closed; None while it lives or after a plain close()."""
        return self._reason

    def on_state(self, listener: Listener) -> None:
        """Call ``listener`` after every later transition, in the thread that made it."""
        with self._changed:
            self._listeners.append(listener)

    def wait_ready(self, timeout: Deadline | float | None = None) -> None:
        """Wait until the channel is ready.

        Raises the error that ended the channel, ClosedError after a plain close, or
        DeadlineError.
        """
        deadline = Deadline.of(timeout)
        ends = (ChannelState.READY, ChannelState.CLOSED)
        with self._changed:
            if not self._changed.wait_for(lambda: self._state in ends, deadline.remaining()):
                raise DeadlineError(
                    f"still {self._state.value} when the time was over", machine=self.machine
                )
            if self._state is ChannelState.CLOSED:
                raise self._reason or ClosedError("the channel is closed", machine=self.machine)

    def _enter(self, after: ChannelState, reason: VmconnectError | None = None) -> None:
        """Make a transition of the table; any other raises StateError and changes nothing."""
        with self._changed:
            before = self._state
            if after not in TRANSITIONS[before]:
                raise StateError(
                    f"a channel cannot go from {before.value} to {after.value}",
                    machine=self.machine,
                )
            self._state = after
            self._reason = reason.with_machine(self.machine) if reason else None
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        change = StateChange(before, after, self._reason)
        for listener in listeners:
            listener(change)

    def _end(self, reason: VmconnectError | None = None) -> bool:
        """Enter CLOSED unless it is entered already; return whether this call did it."""
        try:
            self._enter(ChannelState.CLOSED, reason)
        except StateError:
            return False  # The only state that CLOSED cannot be entered from is CLOSED.
        return True

    def close(self) -> None:
        """End the channel and what it holds; again and again if one likes."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
