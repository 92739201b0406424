"""The one thread in which a forward's connections are served."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

from vmconnect.errors import ResourceError

__all__ = ["Loop", "Ready"]

Ready = Callable[[int], object]
"""Takes the events of a descriptor (EPOLLIN, EPOLLOUT)."""

_EVENTS_AT_ONCE = 256
_FAREWELL_SECONDS = 5.0
READ_BYTES = 1 << 18


class Loop:
    """Waits for descriptors (epoll(7)) and calls whoever they belong to, in its own thread.

    A descriptor tells once, and is then `arm`-ed again: from any thread, as `call` is.
    """

    def __init__(self, name: str):
        self.scratch = memoryview(bytearray(READ_BYTES))
        """What is read into, by whoever is called."""
        self._calls: deque[Callable[[], object]] = deque()
        self._owners: dict[int, Ready] = {}
        self._stopped = self._closed = False
        self._waking = threading.Lock()
        try:
            self._epoll = select.epoll()
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            raise ResourceError(f"no descriptor to wait with: {error.strerror}") from error
        self._epoll.register(self._event, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def inside(self) -> bool:
        """Whether the caller runs in the loop's thread."""
        return threading.current_thread() is self._thread

    def call(self, what: Callable[[], object]) -> bool:
        """Have it called soon, in the loop's thread; return False where that was stopped before."""
        with self._waking:
            if self._stopped:
                return False
            self._calls.append(what)
            os.eventfd_write(self._event, 1)
            return True

    def add(self, descriptor: int, owner: Ready) -> None:
        """Take a descriptor on, which tells nothing until it is armed; in the loop's thread."""
        self._owners[descriptor] = owner
        self._epoll.register(descriptor, select.EPOLLONESHOT)

    def arm(self, descriptor: int, events: int) -> None:
        """Have the descriptor tell once of these events, or of errors."""
        with self._waking:
            if not self._closed:
                self._epoll.modify(descriptor, events | select.EPOLLONESHOT)

    def remove(self, descriptor: int) -> None:
        """Forget a descriptor, before it is closed; in the loop's thread."""
        if self._owners.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def stop(self, last: Callable[[], object]) -> None:
        """End the thread, after it has called ``last``, and wait for that a little."""

        def end() -> None:
            last()
            with self._waking:
                self._stopped = True

        self.call(end)
        if not self.inside:
            self._thread.join(_FAREWELL_SECONDS)

    def _run(self) -> None:
        while not self._stopped or self._calls:
            for descriptor, events in self._epoll.poll(maxevents=_EVENTS_AT_ONCE):
                if descriptor == self._event:
                    os.eventfd_read(self._event)
                    # Those that are made meanwhile have their turn after the descriptors.
                    for _ in range(len(self._calls)):
                        self._calls.popleft()()
                elif owner := self._owners.get(descriptor):
                    owner(events)
        with self._waking:
            self._closed = True
            self._epoll.close()
            os.close(self._event)
