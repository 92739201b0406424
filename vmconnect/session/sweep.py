"""One piece of work on many machines at once: some at a time, and what came of each as it comes."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from vmconnect.closing import together
from vmconnect.deadline import Deadline
from vmconnect.errors import ClosedError, ResourceError, VmconnectError

__all__ = ["CUT_SECONDS", "Outcome", "Place", "Sweep"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

CUT_SECONDS = 8.0
"""How long cutting off what runs may take, of all machines together."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T_co]):
    """What came of the work on one machine: a result, or the error that kept it from one.

    ``machine`` is what the machine is called among the others, ``target`` what finds it again, None
    if it was never found; ``seconds`` is how long it took, login included.
    """

    machine: str
    target: str | None
    result: T_co | None = None
    error: VmconnectError | None = None
    seconds: float = 0.0


class Place(Protocol):
    """Where work is done: one machine."""

    label: str
    """What it is called among the others."""
    target: str

    def cut(self) -> None:
        """End what is being done there, from any thread."""


class Sweep(Generic[T]):
    """Work that goes on on many machines; iterate over it for each machine's `Outcome`.

    It begins when it is made, in at most ``throttle`` threads, and a machine that fails keeps no
    other from its turn. Outcomes wait to be taken. In a ``with`` block, what is not over at the
    end is cancelled.
    """

    def __init__(
        self,
        places: Sequence[Place],
        work: Callable[[Place], T],
        throttle: int,
        outcomes: Sequence[Outcome[T]] = (),
    ):
        """Begin; ``outcomes`` are those that are known beforehand, and come first."""
        self._work = work
        self._waiting = deque(places)
        self._running: dict[Place, float] = {}
        self._lock = threading.Lock()
        self._cancelled = False
        self._news: queue.SimpleQueue[Outcome[T]] = queue.SimpleQueue()
        for outcome in outcomes:
            self._news.put(outcome)
        self.total = len(outcomes) + len(places)
        """How many outcomes there will have been."""
        self._left = self.total
        for number in range(min(throttle, len(places))):
            name = f"vmconnect sweep {number}"
            try:
                threading.Thread(target=self._serve, name=name, daemon=True).start()
            except RuntimeError as error:  # The system has no more; those that run do it all.
                if not number:
                    raise ResourceError("the system lets us have no thread") from error
                break

    @property
    def running(self) -> list[str]:
        """The machines on which work is being done now."""
        with self._lock:
            return [place.label for place in self._running]

    @property
    def over(self) -> bool:
        """Whether all outcomes have been taken."""
        return self._left == 0

    def __iter__(self) -> Iterator[Outcome[T]]:
        """Give the outcomes that have not been taken yet, as they come."""
        while (outcome := self.next()) is not None:
            yield outcome

    def next(self, timeout: float | None = None) -> Outcome[T] | None:
        """Wait for the next outcome and return it; None if there is none in time, or no more."""
        with self._lock:
            if not self._left:
                return None
            self._left -= 1
        try:
            return self._news.get(timeout=timeout)
        except BaseException as error:
            with self._lock:
                self._left += 1
            if isinstance(error, queue.Empty):
                return None
            raise

    def cancel(self) -> None:
        """Begin no more, and cut off what runs; the outcome of either is a ClosedError."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            waiting, self._waiting = self._waiting, deque()
            running, self._running = self._running, {}
        now = time.monotonic()
        for place, since in running.items():
            error = ClosedError("cut off", machine=place.label)
            self._news.put(Outcome(place.label, place.target, None, error, now - since))
        for place in waiting:
            error = ClosedError("not begun", machine=place.label)
            self._news.put(Outcome(place.label, place.target, None, error))
        together([place.cut for place in running], Deadline(CUT_SECONDS))

    def _serve(self) -> None:
        while (taken := self._take()) is not None:
            place, started = taken
            result: T | None = None
            failure: VmconnectError | None = None
            try:
                result = self._work(place)
            except VmconnectError as error:
                failure = error
                failure.machine = place.label
            except BaseException as error:  # noqa: BLE001 (of the work that was given)
                failure = VmconnectError(f"internal error: {error!r}", machine=place.label)
                failure.__cause__ = error
            with self._lock:
                if self._running.pop(place, None) is None:
                    return  # It was cancelled, and what came of it told.
            seconds = time.monotonic() - started
            self._news.put(Outcome(place.label, place.target, result, failure, seconds))

    def _take(self) -> tuple[Place, float] | None:
        with self._lock:
            if not self._waiting:
                return None
            place, now = self._waiting.popleft(), time.monotonic()
            self._running[place] = now
            return place, now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()
