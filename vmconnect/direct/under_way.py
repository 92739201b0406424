"""The commands that run over one connection, and their end before the connection's."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

from vmconnect.closing import together
from vmconnect.deadline import Deadline
from vmconnect.direct.control import Control
from vmconnect.direct.library import paramiko
from vmconnect.errors import ClosedError

__all__ = ["UnderWay"]

_AGAIN_SECONDS = 0.05


class UnderWay:
    """What was started over a connection and is not known to have ended; for any thread.

    To hang up ends no command that neither reads nor writes: a server lets it run on. So what is
    under way is ended first, by `end`. ``has_ended`` tells whether a channel's command has.
    """

    def __init__(self, machine: str, has_ended: Callable[[paramiko.Channel], bool]):
        self._machine = machine
        self._has_ended = has_ended
        self._lock = threading.Lock()
        self._commands: dict[paramiko.Channel, tuple[str, Control]] = {}
        self._told: set[paramiko.Channel] = set()
        self._until: Deadline | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The commands, as a shell would read them."""
        with self._lock:
            return tuple(line for line, _ in self._commands.values())

    def add(self, channel: paramiko.Channel, line: str, control: Control) -> None:
        """Take note of a command that is about to start; raises ClosedError once all are to end."""
        with self._lock:
            if self._until is not None:
                raise ClosedError("the guest is closed", machine=self._machine)
            self._commands[channel] = line, control

    def remove(self, channel: paramiko.Channel) -> None:
        """Forget a command that nobody waits for any more."""
        with self._lock:
            self._commands.pop(channel, None)

    def was_told_to_end(self, channel: paramiko.Channel) -> bool:
        """Whether a command had not ended when all were to."""
        with self._lock:
            return channel in self._told

    def end(self, first: str, seconds: float) -> None:
        """End all side by side, with the signal ``first`` and soon SIGKILL, and take no more.

        It returns when they have ended, at the latest ``seconds`` after the first call.
        """
        with self._lock:
            until = self._until = self._until or Deadline(seconds)
            running = {
                channel: control
                for channel, (_, control) in self._commands.items()
                if not self._has_ended(channel)
            }
            self._told |= running.keys()
        if not until.passed:
            together(
                [
                    functools.partial(_end, channel, control, first, until)
                    for channel, control in running.items()
                ],
                until,
            )


def _end(channel: paramiko.Channel, control: Control, first: str, until: Deadline) -> None:
    """End one command; one that was sent just now need not have begun."""
    ended = False
    while not ended and not until.passed:
        control.end(first)
        # Also set where the channel was closed on this side.
        ended = channel.status_event.wait(until.remaining(at_most=_AGAIN_SECONDS))
