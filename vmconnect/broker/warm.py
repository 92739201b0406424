"""Sessions that stay open between commands."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmconnect.broker.key import SessionKey
from vmconnect.broker.request import DeclinedError, Request
from vmconnect.channel import ChannelState, StateChange
from vmconnect.closing import together
from vmconnect.deadline import Deadline
from vmconnect.errors import ClosedError, DeadlineError
from vmconnect.session import Session

if TYPE_CHECKING:
    from vmconnect.direct import Guest

__all__ = ["WarmSession", "WarmSessions"]

# How many commands OpenSSH's server runs on one connection (sshd_config(5), MaxSessions).
_COMMANDS_AT_ONCE = 10
_MOST_SESSIONS = 1024
# How long a login that was refused is not tried again: the client makes its own each time.
_REFUSED_SECONDS = 60.0
# An opening keeps to its deadline, give or take what its end takes.
_GRACE_SECONDS = 5.0
# How long closing all of them may take.
_CLOSE_SECONDS = 10.0

Opener = Callable[[], "tuple[Session, Guest]"]


@dataclass(eq=False, slots=True)
class WarmSession:
    """An open session, and its use. Times are of the monotonic clock."""

    key: SessionKey
    session: Session
    guest: Guest
    opened_at: float = field(default_factory=time.monotonic)
    used_at: float = field(default_factory=time.monotonic)
    running: int = 0
    done: int = 0
    room: int = _COMMANDS_AT_ONCE
    """How many commands may run at once."""

    @property
    def usable(self) -> bool:
        """Whether one more command may run."""
        return self.guest.state is ChannelState.READY and self.has_room

    @property
    def has_room(self) -> bool:
        """Whether its server takes one more command, as far as is known."""
        return self.running < self.room

    def described(self) -> dict[str, object]:
        """Return what a person may want to know, for JSON."""
        now = time.monotonic()
        machine = self.session.machine
        return {
            "machine": machine.name,
            "uuid": machine.uuid,
            "target": machine.target,
            "user": self.guest.login.user,
            "channels": ["guest"],
            "state": self.guest.state.value,
            "age_s": round(now - self.opened_at, 1),
            "idle_s": 0.0 if self.running else round(now - self.used_at, 1),
            "running": self.running,
            "done": self.done,
        }


class _Opening:
    """A login that is being made, and who waits for it."""

    def __init__(self) -> None:
        self.waiters: list[threading.Event] = []
        self.error: BaseException | None = None


class WarmSessions:
    """The open sessions of a broker; usable from any thread.

    One that has not been used for ``idle_s`` seconds is closed by `tidy`; ``wake`` is called
    from any thread when `tidy` may have something to do.
    """

    def __init__(self, idle_s: float, wake: Callable[[], object]):
        self.idle_s = idle_s
        self._wake = wake
        self._lock = threading.Lock()
        self._sessions: dict[SessionKey, list[WarmSession]] = {}
        # When there may be something to close.
        self._look_at = math.inf
        self._openings: dict[SessionKey, _Opening] = {}
        self._refused: dict[SessionKey, float] = {}
        self._closed = False

    def __len__(self) -> int:
        """Return how many there are, with those that are being opened."""
        with self._lock:
            return sum(map(len, self._sessions.values())) + len(self._openings)

    @contextlib.contextmanager
    def borrow(
        self, key: SessionKey, opener: Opener, deadline: Deadline, request: Request
    ) -> Iterator[tuple[WarmSession, bool]]:
        """Give a session for one command, and whether it was open before.

        ``opener`` opens one if there is none to be had, in a thread of its own: who gives up
        waiting leaves it to the next. Raises what ``opener`` raises, DeadlineError where another
        command's takes too long, and KeyboardInterrupt when the client gives up.
        """
        warm, reused = self._take(key, opener, deadline, request)
        try:
            yield warm, reused
        finally:
            with self._lock:
                warm.running -= 1
                warm.done += 1
                warm.used_at = time.monotonic()
                self._look_at = min(self._look_at, self._due(warm))
            self._wake()

    def _take(
        self, key: SessionKey, opener: Opener, deadline: Deadline, request: Request
    ) -> tuple[WarmSession, bool]:
        if self._refused.get(key, 0.0) > time.monotonic():
            raise DeclinedError("refused a short while ago")
        woken = threading.Event()
        mine: _Opening | None = None
        with request.waking(woken.set):
            while True:
                with self._lock:
                    if self._closed:
                        raise ClosedError("the broker is ending", machine=key.name)
                    if (warm := self._usable(key)) is not None:
                        warm.running += 1
                        return warm, mine is None
                    if mine is not None and mine.error is not None:
                        raise mine.error
                    opening = self._openings.get(key)
                    if opening is None:
                        opening = mine = self._open(key, opener)
                    woken.clear()
                    opening.waiters.append(woken)
                request.check()
                left = deadline.remaining()
                if left is not None and opening is mine:
                    left += _GRACE_SECONDS
                if not woken.wait(left):
                    raise DeadlineError(
                        "timed out while another command was logging in", machine=key.name
                    )
                request.check()

    def tidy(self) -> float | None:
        """Close what has been idle for too long, or is lost; return seconds until the next is."""
        now = time.monotonic()
        over: list[WarmSession] = []
        with self._lock:
            if now >= self._look_at:
                over = self._take_out_idle(now)
            left = self._look_at - now
        _close(over)
        return None if left == math.inf else max(0.0, left)

    def _take_out_idle(self, now: float) -> list[WarmSession]:
        """Take out what is to be closed, and note when to look again."""
        every = [each for sessions in self._sessions.values() for each in sessions]
        idle = sorted((each for each in every if not each.running), key=self._due)
        excess = len(every) - _MOST_SESSIONS
        over = {
            id(each) for place, each in enumerate(idle) if place < excess or self._due(each) <= now
        }
        kept = {
            key: [each for each in sessions if id(each) not in over]
            for key, sessions in self._sessions.items()
        }
        self._sessions = {key: sessions for key, sessions in kept.items() if sessions}
        dues = (self._due(each) for each in idle if id(each) not in over)
        self._look_at = min(dues, default=math.inf)
        return [each for each in idle if id(each) in over]

    def _due(self, warm: WarmSession) -> float:
        """Return when a session is to be closed if nothing runs in it."""
        if warm.room == 0 or warm.guest.state is not ChannelState.READY:
            return 0.0
        return warm.used_at + self.idle_s

    def spare(self, warm: WarmSession) -> None:
        """Give a session no more commands than it has now: its server takes no more."""
        with self._lock:
            warm.room = max(0, warm.running - 1)

    def retire(self, warm: WarmSession) -> None:
        """Give a session no more commands, and close it when its last is done."""
        with self._lock:
            warm.room = 0
        self._look_soon()

    def close(self, names: list[str]) -> int:
        """Retire the sessions with machines that are so called, or all; return how many."""
        with self._lock:
            meant = [
                each
                for key, sessions in self._sessions.items()
                if not names or any(map(key.is_called, names))
                for each in sessions
                if each.room
            ]
        for each in meant:
            self.retire(each)
        return len(meant)

    def close_all(self) -> None:
        """Close every session now, with what runs in it, and open no more.

        Side by side, and in some seconds at most.
        """
        with self._lock:
            self._closed = True
            sessions, self._sessions = self._sessions, {}
        every = [each.session.close for ours in sessions.values() for each in ours]
        together(every, Deadline(_CLOSE_SECONDS))

    def described(self) -> list[dict[str, object]]:
        """Return what there is to know of each, by machine."""
        with self._lock:
            every = [each for sessions in self._sessions.values() for each in sessions]
        return sorted(
            (each.described() for each in every),
            key=lambda each: (str(each["machine"]), str(each["user"])),
        )

    def _usable(self, key: SessionKey) -> WarmSession | None:
        return next((each for each in self._sessions.get(key, ()) if each.usable), None)

    def _open(self, key: SessionKey, opener: Opener) -> _Opening:
        opening = self._openings[key] = _Opening()

        def run() -> None:
            session: Session | None = None
            try:
                session, guest = opener()
                guest.on_state(self._on_state)
            except BaseException as error:  # noqa: BLE001 (raised to who asked for it)
                opening.error = error
            with self._lock:
                self._note_refusal(key, opening.error)
                del self._openings[key]
                if session is not None and not self._closed:
                    self._sessions.setdefault(key, []).append(WarmSession(key, session, guest))
                    session = None
                waiters = list(opening.waiters)
            if session is not None:
                session.close()  # The broker has ended meanwhile.
            for waiter in waiters:
                waiter.set()
            self._look_soon()

        threading.Thread(target=run, name=f"vmconnect-open {key.name}", daemon=True).start()
        return opening

    def _note_refusal(self, key: SessionKey, error: BaseException | None) -> None:
        now = time.monotonic()
        self._refused = {each: until for each, until in self._refused.items() if until > now}
        if isinstance(error, DeclinedError) and error.lasting:
            self._refused[key] = now + _REFUSED_SECONDS

    def _on_state(self, change: StateChange) -> None:
        if change.after is not ChannelState.READY:
            self._look_soon()

    def _look_soon(self) -> None:
        self._look_at = 0.0
        self._wake()


def _close(sessions: list[WarmSession]) -> None:
    """Close sessions in a thread of their own: a guest may take its time."""
    if sessions:

        def run() -> None:
            for each in sessions:
                each.session.close()

        threading.Thread(target=run, name="vmconnect-close", daemon=True).start()
