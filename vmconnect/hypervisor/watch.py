"""Watching machines: what happened to which, as it happens."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vmconnect.closing import Closing
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import ClosedError, DeadlineError
from vmconnect.hypervisor.machine import Machine, PowerState

__all__ = ["EventKind", "MachineEvent", "MachineWatch", "PollingWatch", "Watch"]


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


class Watch(Closing):
    """Events of a hypervisor's machines, from the moment of its making until it is closed.

    ``machines`` are those that there were when it began: what happened since is an event.
    """

    polls: ClassVar[bool] = False
    """Whether nobody tells what happens: what begins and ends between two looks is not seen."""

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


# What it is called when a machine was seen in the first state and is now seen in the second.
_BETWEEN = {
    PowerState.RUNNING: EventKind.STARTED,
    PowerState.PAUSED: EventKind.PAUSED,
    PowerState.OFF: EventKind.STOPPED,
    PowerState.SAVED: EventKind.STOPPED,
    PowerState.CRASHED: EventKind.CRASHED,
}


class MachineWatch(Watch):
    """The events of one machine among those that another watch gives."""

    def __init__(self, watch: Watch, identity: str):
        self._watch = watch
        self._identity = identity
        self.machines = [each for each in watch.machines if each.identity == identity]

    def next(self, timeout: Deadline | float | None = None) -> MachineEvent:
        """Return the machine's next event; raises as the other watch does."""
        deadline = Deadline.of(timeout)
        while True:
            event = self._watch.next(deadline)
            if event.identity == self._identity:
                return event

    def close(self) -> None:
        """End the other watch."""
        self._watch.close()


class PollingWatch(Watch):
    """A watch over machines of which nobody tells: they are looked at again and again.

    What begins and ends between two looks, such as a reset, is not seen.
    """

    polls = True

    def __init__(
        self,
        look: Callable[[Deadline], Sequence[Machine]],
        interval: float,
        deadline: Deadline,
        *,
        most: float | None = None,
    ):
        """Take the first look; the next follow after ``interval`` seconds.

        While nothing happens they get rarer, down to one in ``most`` seconds.
        """
        self._look_at = look
        self._interval = self._first = interval
        self._most = most or interval
        self._scope = CancelScope()
        self._closing = threading.Event()
        self._known = self._look(deadline)
        self.machines = list(self._known.values())
        self._found: deque[MachineEvent] = deque()

    def next(self, timeout: Deadline | float | None = None) -> MachineEvent:
        """Return the next event; raises DeadlineError, and ClosedError once it is closed."""
        deadline = Deadline.of(timeout)
        while not self._found:
            if self._closing.wait(deadline.remaining(at_most=self._interval)):
                raise ClosedError("the watch is closed")
            if deadline.passed:
                raise DeadlineError("nothing happened in time")
            now = self._look(self._scope.deadline(self._first + 5.0))
            self._found.extend(changes(self._known, now))
            self._known = now
            self._interval = self._first if self._found else min(2 * self._interval, self._most)
        return self._found.popleft()

    def close(self) -> None:
        """End the watch; who is just looking stops."""
        self._closing.set()
        self._scope.cancel()

    def _look(self, deadline: Deadline) -> dict[str, Machine]:
        return {machine.target: machine for machine in self._look_at(deadline)}


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
