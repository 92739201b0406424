"""What a session's machine is, kept up to date for as long as anybody wants to know."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    MachineOffError,
    MachineReplacedError,
    StateError,
    VmconnectError,
)
from vmconnect.hypervisor import EventKind, Machine
from vmconnect.publisher import Publisher
from vmconnect.session.events import (
    MachineMoved,
    MachineReset,
    MachineStateChanged,
    SessionEvent,
)
from vmconnect.session.follower import Follower
from vmconnect.session.locator import Locator, Told
from vmconnect.session.states import TRANSITIONS, SessionState, state_of
from vmconnect.state_machine import StateMachine

__all__ = ["Observer"]

_S = SessionState

# What the machine is after an event; of the others one sees nothing, or looks.
_AFTER = {
    EventKind.STARTED: _S.RUNNING,
    EventKind.RESUMED: _S.RUNNING,
    EventKind.PAUSED: _S.PAUSED,
    EventKind.STOPPED: _S.OFF,
    EventKind.CRASHED: _S.OFF,
}
_UP = {_S.RUNNING, _S.PAUSED}


class Observer:
    """The machine's state and whereabouts, for any thread.

    ``locator`` finds the machine, and each answer of it is news. While it is ``needed``, or
    somebody waits, a follower brings more. ``on_up`` is called when there may be something to
    connect to. News goes to ``news``.
    """

    def __init__(
        self,
        machine: Machine,
        news: Publisher[SessionEvent],
        *,
        needed: Callable[[], bool],
        on_up: Callable[[], object],
    ):
        self._states = StateMachine("a session", TRANSITIONS, state_of(machine.state))
        self._news = news
        self._needed = needed
        self._on_up = on_up
        self._entering = threading.Lock()
        # Guards the followers, of which all but the last have ended or are about to.
        self._following = threading.Lock()
        self._followers: list[Follower] = []
        self._current: Follower | None = None
        self._waiting = 0
        self._closed = False
        self.locator = Locator(machine, self._begin)

    @property
    def state(self) -> SessionState:
        """What the machine was when there was news of it last."""
        return self._states.state

    def wait_for(self, wanted: Callable[[SessionState], bool], deadline: Deadline) -> bool:
        """Wait for a state; return whether it came before the deadline."""
        with self._wanting():
            return self._states.wait_for(wanted, deadline)

    def follow(self) -> None:
        """See to it that the machine is followed, if that is needed, and can be."""
        hypervisor = self.locator.hypervisor
        with self._following:
            if hypervisor is None or self._closed or self._current is not None:
                return
            if not self._is_needed():
                return
            self._followers = [each for each in self._followers if each.alive]
            self._current = Follower(
                self.locator,
                hypervisor,
                needed=self._still_needed,
                doubtful=lambda: self.state is _S.UNKNOWN,
                tell=self._take,
                lost=lambda error: self._enter(_S.UNKNOWN, error),
            )
            self._followers.append(self._current)

    def cancel(self) -> None:
        """Be CLOSED, and let those who follow, wait or ask end; do not wait for that."""
        self._enter(_S.CLOSED)
        with self._following:
            self._closed = True
            followers = tuple(self._followers)
        for follower in followers:
            follower.cancel()

    def close(self) -> None:
        """Do so, and return when nothing is left."""
        self.cancel()
        for follower in self._followers:
            follower.close()
        self.locator.close()

    @contextlib.contextmanager
    def _wanting(self) -> Iterator[None]:
        with self._following:
            self._waiting += 1
        try:
            self.follow()
            yield
        finally:
            with self._following:
                self._waiting -= 1

    def _is_needed(self) -> bool:
        return self._waiting > 0 or self._needed()

    def _still_needed(self) -> bool:
        """Return whether a follower is to go on; it is not the current one if not."""
        with self._following:
            if self._is_needed() and not self._closed:
                return True
            self._current = None
            return False

    def _begin(self) -> Told:
        version = self._states.version

        def told(before: Machine, answer: Machine | VmconnectError) -> None:
            if isinstance(answer, Machine):
                if _places(before) != _places(answer):
                    self._news.publish(MachineMoved(answer.name, before, answer))
                self._enter(state_of(answer.state), version=version)
            elif isinstance(answer, MachineOffError | MachineReplacedError):
                self._enter(_S.GONE, answer, version=version)
            else:
                self._enter(_S.UNKNOWN, answer, version=version)

        return told

    def _take(self, kind: EventKind) -> None:
        """Take an event of the machine's."""
        if kind is EventKind.RESET:
            self._news.publish(MachineReset(self.locator.machine.name))
            self._on_up()
        elif kind in _AFTER:
            self._enter(_AFTER[kind])

    def _enter(
        self,
        state: SessionState,
        reason: VmconnectError | None = None,
        *,
        version: int | None = None,
    ) -> None:
        """Go on to a state, if it is another; what was found out before ``version`` is old."""
        with self._entering:
            known = self._states
            if state is known.state or (version is not None and version != known.version):
                return
            try:
                before = known.enter(state, reason)
            except StateError:
                return  # It is closed.
            name = self.locator.machine.name
            self._news.put(MachineStateChanged(name, before, state, reason))
        self._news.tell()
        if state in _UP:
            self._on_up()


def _places(machine: Machine) -> tuple[object, ...]:
    return machine.target, machine.console, machine.guest, machine.agent, machine.serial
