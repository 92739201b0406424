"""Following one machine by its hypervisor's watch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from vmconnect.deadline import CancelScope
from vmconnect.errors import DeadlineError, VmconnectError
from vmconnect.hypervisor import EventKind, Hypervisor, Watch
from vmconnect.retry import Backoff, Retry
from vmconnect.session.locator import Locator

__all__ = ["Follower"]

_ATTACH_SECONDS = 10.0
_QUESTION_SECONDS = 5.0
# A hypervisor that has gone is asked again at most after this long.
_BACKOFF = Backoff(0.2, 3.0)
# How often one looks whether anybody still wants to know (seconds): what is watched may be held.
_IDLE_SECONDS = 2.0


class Follower:
    """A thread that tells what happens to a machine while that is ``needed``.

    ``tell`` is called with each kind of event, ``lost`` when the hypervisor cannot be watched;
    what the machine is at first, when it comes and goes, and while it is ``doubtful``, the locator
    finds out, and tells.
    """

    def __init__(
        self,
        locator: Locator,
        hypervisor: Hypervisor,
        *,
        needed: Callable[[], bool],
        doubtful: Callable[[], bool],
        tell: Callable[[EventKind], object],
        lost: Callable[[VmconnectError], object],
    ):
        self._locator = locator
        self._hypervisor = hypervisor
        self._needed = needed
        self._doubtful = doubtful
        self._tell = tell
        self._lost = lost
        self._scope = CancelScope()
        self._retry = Retry(_BACKOFF)
        self._thread = threading.Thread(
            target=self._run, name=f"vmconnect follow {locator.machine.name}", daemon=True
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Follow no more; the thread ends soon."""
        self._retry.close()
        self._scope.cancel()

    def close(self) -> None:
        """Follow no more, and return when the thread has ended, unless this is it."""
        self.cancel()
        with contextlib.suppress(RuntimeError):
            self._thread.join()

    def _run(self) -> None:
        while not self._is_over() and self._needed():
            machine = self._locator.machine
            try:
                deadline = self._scope.deadline(_ATTACH_SECONDS)
                with self._hypervisor.follow(machine, deadline) as watch:
                    self._look()
                    self._retry.succeeded()
                    with self._scope.waking(watch.close):
                        self._pass_on(watch, machine.target)
            except VmconnectError as error:
                if self._is_over():
                    return
                self._lost(error)
                self._retry.wait()

    def _is_over(self) -> bool:
        return self._scope.cancelled

    def _pass_on(self, watch: Watch, target: str) -> None:
        """Tell what the watch tells, until nobody needs it, or the machine is elsewhere."""
        while self._needed() and self._locator.machine.target == target:
            try:
                event = watch.next(_IDLE_SECONDS)
            except DeadlineError:
                # What changed and changed back between two looks the locator alone may have seen.
                if self._doubtful() or watch.polls:
                    self._look()
                continue
            if event.kind in {EventKind.APPEARED, EventKind.GONE}:
                self._look()
            else:
                self._tell(event.kind)

    def _look(self) -> None:
        """Let the locator find out, and tell, what the machine is."""
        with contextlib.suppress(VmconnectError):
            self._locator.look(self._scope.deadline(_QUESTION_SECONDS))
