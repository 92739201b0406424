"""Watching machines: what happened to which, as it happens."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vmconnect.deadline import Deadline
from vmconnect.errors import ClosedError, DeadlineError
from vmconnect.hypervisor.machine import Machine, PowerState

if TYPE_CHECKING:
    from vmconnect.hypervisor.base import Hypervisor

__all__ = ["EventKind", "MachineEvent", "PollingWatch", "Watch"]


class EventKind(enum.Enum):
    """What can happen to a machine."""

    APPEARED = "appeared"  # defined, or its process started
    GONE = "gone"  # undefined, or its process ended
    STARTED = "started"
    STOPPED = "stopped"  # powered off, by whomever
    PAUSED = "paused"
    RESUMED = "resumed"
    RESET = "reset"
    SHUTDOWN_ASKED = "shutdown asked"  # the power button was pressed
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class MachineEvent:
    """Something that happened to the machine of that name and identity (see `Machine`)."""

    kind: EventKind
    name: str
    identity: str


class Watch:
    """Events of a hypervisor's machines, from the moment of its making until it is closed.

    ``machines`` are those that there were when it began: what happened since is an event.
    """

    machines: Sequence[Machine] = ()

    def next(self, timeout: Deadline | float | None = None) -> MachineEvent:
        """Return the next event; raises DeadlineError, and ClosedError once it is closed."""
        raise NotImplementedError

    def close(self) -> None:
        """End the watch; whoever waits in `next` is woken."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[MachineEvent]:
        """Give events until the watch is closed."""
        while True:
            try:
                event = self.next()
            except ClosedError:
                return
            yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# What it is called when a machine was seen in the first state and is now seen in the second.
_BETWEEN = {
    PowerState.RUNNING: EventKind.STARTED,
    PowerState.PAUSED: EventKind.PAUSED,
    PowerState.OFF: EventKind.STOPPED,
    PowerState.SAVED: EventKind.STOPPED,
    PowerState.CRASHED: EventKind.CRASHED,
}


class PollingWatch(Watch):
    """A watch over a hypervisor that has no events: its machines are listed again and again.

    What begins and ends between two looks, such as a reset, is not seen.
    """

    def __init__(self, hypervisor: Hypervisor, interval: float, deadline: Deadline):
        """Take the first look; ``interval`` is in seconds."""
        self._hypervisor = hypervisor
        self._interval = interval
        self._known = self._look(deadline)
        self.machines = list(self._known.values())
        self._found: deque[MachineEvent] = deque()
        self._closed = False

    def next(self, timeout: Deadline | float | None = None) -> MachineEvent:
        """Return the next event; raises DeadlineError, and ClosedError once it is closed."""
        deadline = Deadline.of(timeout)
        while not self._found:
            if self._closed:
                raise ClosedError("the watch is closed")
            if deadline.passed:
                raise DeadlineError("nothing happened in time")
            time.sleep(deadline.remaining(at_most=self._interval) or 0)
            now = self._look(Deadline(self._interval + 5.0))
            self._found.extend(changes(self._known, now))
            self._known = now
        return self._found.popleft()

    def close(self) -> None:
        """End the watch, at the latest after the interval."""
        self._closed = True

    def _look(self, deadline: Deadline) -> dict[str, Machine]:
        return {machine.target: machine for machine in self._hypervisor.machines(deadline)}


def changes(before: dict[str, Machine], after: dict[str, Machine]) -> list[MachineEvent]:
    """Return what must have happened to the machines between two looks at them."""
    events = []
    for target in sorted({*before, *after}):
        old, new = before.get(target), after.get(target)
        kind: EventKind | None
        if new is None:
            kind = EventKind.GONE
        elif old is None:
            kind = EventKind.APPEARED
        elif old.state is new.state:
            continue
        elif (old.state, new.state) == (PowerState.PAUSED, PowerState.RUNNING):
            kind = EventKind.RESUMED
        else:
            kind = _BETWEEN.get(new.state)
        machine = new or old
        if kind is not None and machine is not None:
            events.append(MachineEvent(kind, machine.name, machine.identity))
    return events
