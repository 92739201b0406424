"""Trying again: the one policy for all that may fail for a while.

Pauses grow from try to try up to a bound, and each is drawn at random between nothing and that
(exponential backoff with full jitter), so that many who lost the same host do not come back to it
in step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from vmconnect.deadline import Deadline
from vmconnect.errors import DeadlineError, VmconnectError

__all__ = ["Backoff", "Heartbeat", "Retry"]

T = TypeVar("T")

# 2 to this power overflows no float, and is past every bound.
_MOST_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """How pauses grow: at most ``first_s`` seconds, then twice that, up to ``most_s``."""

    first_s: float = 0.1
    most_s: float = 5.0

    def longest(self, tries: int) -> float:
        """Return the longest pause, in seconds, after so many tries before the last one."""
        return min(self.most_s, self.first_s * 2.0 ** min(tries, _MOST_DOUBLINGS))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """When a far end that says nothing is asked whether it is there, and when it is not.

    It is asked after ``interval_s`` seconds of silence; the connection is lost when it has been
    silent for ``patience_s`` seconds more, or never for that, where it is None: a machine on this
    host that is silent stands still, and goes on when it is let.
    """

    interval_s: float = 5.0
    patience_s: float | None = 15.0

    @property
    def most_s(self) -> float | None:
        """How many seconds of silence end a connection."""
        return None if self.patience_s is None else self.interval_s + self.patience_s


class Retry:
    """The pauses between the tries of one thing; for any thread.

    ``random`` gives numbers from 0 to 1, ``clock`` seconds; both are for tests to replace.
    """

    def __init__(
        self,
        backoff: Backoff | None = None,
        *,
        random: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.backoff = backoff or Backoff()
        self._random = random
        self._clock = clock
        self._tries = 0
        self._succeeded_at: float | None = None
        self._changed = threading.Condition()
        self._woken = False
        self._closed = False

    def pause(self) -> float:
        """Return the next pause in seconds, and let the one after it be longer.

        After a success that has lasted longer than the pause before it, pauses are short again:
        what works for a moment only does not make us hurry.
        """
        with self._changed:
            longest = self.backoff.longest(self._tries)
            if self._succeeded_at is not None:
                if self._clock() - self._succeeded_at >= longest:
                    self._tries, longest = 0, self.backoff.longest(0)
                self._succeeded_at = None
            self._tries += 1
        if self._random is None:
            import random  # Only what has failed needs it.

            self._random = random.random
        return longest * self._random()

    def wait(self, deadline: Deadline | float | None = None) -> bool:
        """Wait for the next pause, or until woken; return whether to try again.

        It is False once the deadline has passed, or after `close`.
        """
        deadline = Deadline.of(deadline)
        pause = self.pause()
        with deadline.waking(self.close), self._changed:
            self._changed.wait_for(
                lambda: self._woken or self._closed, deadline.remaining(at_most=pause)
            )
            self._woken = False
            return not self._closed and not deadline.passed

    def attempt(self, action: Callable[[], T], deadline: Deadline) -> T:
        """Return what ``action`` returns, trying again while what it raises is temporary.

        Raises what it raised last when the deadline has passed; that the time is over is not it.
        """
        last: VmconnectError | None = None
        while True:
            try:
                result = action()
            except VmconnectError as error:
                if last is None or not (isinstance(error, DeadlineError) and deadline.passed):
                    last = error
                if not error.temporary or not self.wait(deadline):
                    raise last from last.__cause__
            else:
                self.succeeded()
                return result

    def succeeded(self) -> None:
        """Note that a try has succeeded."""
        with self._changed:
            self._succeeded_at = self._clock()
            self._woken = False

    def wake(self) -> None:
        """Let the next try be now, and begin with short pauses again: something has changed."""
        with self._changed:
            self._tries = 0
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Try no more; who waits is woken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
