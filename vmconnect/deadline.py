"""Deadlines: the one way in which vmconnect bounds how long something may take."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from vmconnect.errors import ClosedError, DeadlineError

__all__ = ["CancelScope", "Deadline"]


class Deadline:
    """A point in monotonic time, handed down through every call that may wait.

    A duration says how long one step may take; a deadline says when all steps together must be
    done, so a retry inside never outlives what the caller asked for. A `CancelScope`'s deadlines
    are over when it is cancelled, whatever their time.
    """

    __slots__ = ("_at", "_scope")

    def __init__(self, seconds: float | None, scope: CancelScope | None = None):
        """Set the deadline ``seconds`` from now; None is never."""
        self._at = None if seconds is None else time.monotonic() + seconds
        self._scope = scope

    @classmethod
    def of(cls, value: Deadline | float | None) -> Deadline:
        """Return ``value`` if it is a deadline, else one that many seconds from now."""
        return value if isinstance(value, Deadline) else cls(value)

    @property
    def cancelled(self) -> bool:
        """Whether it is over because its scope was cancelled."""
        return self._scope is not None and self._scope.cancelled

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return self.cancelled or (self._at is not None and time.monotonic() >= self._at)

    def remaining(self, at_most: float | None = None) -> float | None:
        """Return the seconds left, never negative, None for ever; ``at_most`` caps it."""
        if self.cancelled:
            return 0.0
        if self._at is None:
            return at_most
        left = max(0.0, self._at - time.monotonic())
        return left if at_most is None else min(left, at_most)

    def sooner(self, seconds: float) -> Deadline:
        """Return a deadline at most ``seconds`` from now, and no later than this one."""
        return Deadline(self.remaining(at_most=seconds), self._scope)

    def renewed(self, seconds: float | None) -> Deadline:
        """Return a deadline ``seconds`` from now that ends with the same scope."""
        return Deadline(seconds, self._scope)

    def check(self, doing: str) -> None:
        """Raise DeadlineError, saying what took too long, if the time is over.

        Raises ClosedError if it is over because the scope was cancelled.
        """
        if self.cancelled:
            raise ClosedError(f"closed while {doing}")
        if self.passed:
            raise DeadlineError(f"timed out while {doing}")

    def waking(self, wake: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
        """Call ``wake`` if the scope is cancelled within a ``with`` block.

        It is called in the thread that cancels, and has to end what the block waits for: shut a
        socket down, say. Entering raises ClosedError if it was cancelled before.
        """
        return contextlib.nullcontext() if self._scope is None else self._scope.waking(wake)


class CancelScope:
    """What can be ended as a whole, from any thread, in the midst of whatever it waits for.

    As in Trio and AnyIO, but for threads: calls that wait are given one of its deadlines; where
    they wait in the kernel, `Deadline.waking` says how to wake them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakers: dict[object, Callable[[], object]] = {}
        self.cancelled = False

    def deadline(self, timeout: Deadline | float | None) -> Deadline:
        """Return a deadline of this scope at that time."""
        return Deadline(Deadline.of(timeout).remaining(), self)

    def cancel(self) -> None:
        """End what waits for a deadline of this scope, now and later."""
        with self._lock:
            self.cancelled = True
            wakers = tuple(self._wakers.values())
        for wake in wakers:
            wake()

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call ``wake`` if the scope is cancelled within the block; see `Deadline.waking`."""
        key = object()
        with self._lock:
            if self.cancelled:
                raise ClosedError("it was closed")
            self._wakers[key] = wake
        try:
            yield
        finally:
            with self._lock:
                del self._wakers[key]
