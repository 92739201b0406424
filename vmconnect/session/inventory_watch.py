"""What happens to the machines of all hypervisors, as it happens."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass

from vmconnect.closing import Closing
from vmconnect.deadline import Deadline
from vmconnect.errors import ClosedError, DeadlineError, VmconnectError
from vmconnect.hypervisor import Hypervisor, Machine, MachineEvent, Watch
from vmconnect.retry import Backoff, Retry
from vmconnect.session.places import hypervisors

__all__ = ["Happened", "InventoryWatch", "Listed", "Unwatched"]

_ATTACH_SECONDS = 10.0
# A hypervisor that has gone is asked again.
_BACKOFF = Backoff(0.5, 5.0)
# One that is in the midst of attaching may hang, and is not waited for.
_JOIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Listed:
    """The machines of a hypervisor at the moment from which on it is watched.

    It comes first from each, and again when a hypervisor that was lost is back.
    """

    machines: tuple[Machine, ...]


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of a machine that ``hypervisor`` (its kind) runs."""

    hypervisor: str
    event: MachineEvent


@dataclass(frozen=True, slots=True)
class Unwatched:
    """A hypervisor that cannot be watched now, and why; it is tried again."""

    error: VmconnectError


class InventoryWatch(Closing):
    """Watches every hypervisor known here, until it is closed."""

    def __init__(self) -> None:
        asked = hypervisors(every=True)
        self.count = len(asked)
        self._news: queue.SimpleQueue[Listed | Happened | Unwatched | BaseException | None] = (
            queue.SimpleQueue()
        )
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._threads = [
            threading.Thread(
                target=self._follow, args=(each,), name=f"vmconnect {each}", daemon=True
            )
            for each in asked
        ]
        for thread in self._threads:
            thread.start()

    def next(self, timeout: Deadline | float | None = None) -> Listed | Happened | Unwatched:
        """Return the next piece of news; raises DeadlineError, and ClosedError once closed."""
        try:
            news = self._news.get(timeout=Deadline.of(timeout).remaining())
        except queue.Empty:
            raise DeadlineError("nothing happened in time") from None
        if news is None:
            self._news.put(None)  # For whoever else waits.
            raise ClosedError("the watch is closed")
        if isinstance(news, BaseException):
            raise news
        return news

    def close(self) -> None:
        """End the watch, and wake whoever waits."""
        if self._closing.is_set():
            return
        with self._lock:
            self._closing.set()
            watches = list(self._watches)
        for watch in watches:
            watch.close()
        self._news.put(None)
        deadline = Deadline(_JOIN_SECONDS)
        for thread in self._threads:
            thread.join(deadline.remaining())

    def _follow(self, hypervisor: Hypervisor) -> None:
        told = ""  # What is still wrong is not said again.
        retry = Retry(_BACKOFF)
        try:
            while not self._closing.is_set():
                try:
                    with hypervisor, hypervisor.watch(Deadline(_ATTACH_SECONDS)) as watch:
                        told = ""
                        retry.succeeded()
                        self._pass_on(hypervisor, watch)
                except VmconnectError as error:
                    if not self._closing.is_set() and str(error) != told:
                        told = str(error)
                        self._news.put(Unwatched(error))
                self._closing.wait(retry.pause())
        except BaseException as error:  # noqa: BLE001 (raised to who waits)
            self._news.put(error)

    def _pass_on(self, hypervisor: Hypervisor, watch: Watch) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            self._watches.add(watch)
        try:
            self._news.put(Listed(tuple(watch.machines)))
            for event in watch:
                self._news.put(Happened(hypervisor.name, event))
        finally:
            with self._lock:
                self._watches.discard(watch)
