"""The pool of sessions, with stand-ins for sessions, guests and requests.

What real ones do is seen in test_sessions.py; here is who waits for whom, which needs many logins
that take as long as the test says.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from vmconnect.broker.key import SessionKey
from vmconnect.broker.request import DeclinedError, Request
from vmconnect.broker.warm import WarmSession, WarmSessions
from vmconnect.channel import Channel, ChannelState
from vmconnect.deadline import Deadline
from vmconnect.direct import Guest, Login
from vmconnect.errors import ClosedError, ConnectError, ConnectionLostError, DeadlineError
from vmconnect.hypervisor import GuestNote, Machine
from vmconnect.session import Session
from vmconnect.streams import HybridVsock

WAIT = 30.0


class StandInGuest(Channel):
    """A guest channel that is ready, and can be lost."""

    def __init__(self) -> None:
        super().__init__("web01")
        self.login = Login("root")
        self._enter(ChannelState.READY)

    def lose(self) -> None:
        self._enter(ChannelState.LOST, ConnectionLostError("gone"))


class StandInSession:
    def __init__(self) -> None:
        self.machine = Machine(name="web01", identity="an-identity", target="qemu:/web01.qmp")
        self.guest = StandInGuest()
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class StandInRequest:
    """A request whose client can lose interest."""

    def __init__(self) -> None:
        self._wakers: list[Callable[[], object]] = []
        self.interrupted = False

    def check(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        self._wakers.append(wake)
        yield

    def interrupt(self) -> None:
        self.interrupted = True
        for wake in self._wakers:
            wake()


class Opener:
    """Opens stand-ins, when the test lets it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.error: BaseException | None = None
        self.sessions: list[StandInSession] = []
        self.calls = 0

    def __call__(self) -> tuple[Session, Guest]:
        self.calls += 1
        assert self.gate.wait(WAIT)
        if self.error is not None:
            raise self.error
        session = StandInSession()
        self.sessions.append(session)
        return cast("Session", session), cast("Guest", session.guest)


def key(user: str | None = "root", name: str = "web01") -> SessionKey:
    machine = Machine(name=name, identity=f"identity-of-{name}", target=f"qemu:/{name}.qmp")
    return SessionKey.of(machine, user, (), "")


@pytest.fixture
def opener() -> Opener:
    opener = Opener()
    opener.gate.set()
    return opener


@pytest.fixture
def wakes() -> list[None]:
    return []


@pytest.fixture
def sessions(wakes: list[None]) -> WarmSessions:
    return WarmSessions(1000.0, lambda: wakes.append(None))


class Borrower(threading.Thread):
    """A command that borrows a session, and keeps it until it is told to give it back."""

    def __init__(self, sessions: WarmSessions, opener: Opener, wanted: SessionKey, seconds: float):
        super().__init__(daemon=True)
        self.request = StandInRequest()
        self.warm: WarmSession | None = None
        self.error: BaseException | None = None
        self.reused = False
        self._sessions, self._opener, self._wanted = sessions, opener, wanted
        self._deadline = Deadline(seconds)
        self.has_it = threading.Event()
        self._back = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            with self._sessions.borrow(
                self._wanted, self._opener, self._deadline, cast("Request", self.request)
            ) as (self.warm, self.reused):
                self.has_it.set()
                self._back.wait(WAIT)
        except BaseException as error:  # noqa: BLE001 (the test looks at it)
            self.error = error
        self.has_it.set()

    def result(self) -> BaseException | WarmSession | None:
        assert self.has_it.wait(WAIT)
        return self.error or self.warm

    def give_back(self) -> None:
        self._back.set()
        self.join(WAIT)
        assert not self.is_alive()


@pytest.fixture
def borrow(sessions: WarmSessions, opener: Opener) -> Callable[..., Borrower]:
    def borrow(wanted: SessionKey | None = None, seconds: float = WAIT) -> Borrower:
        return Borrower(sessions, opener, wanted or key(), seconds)

    return borrow


def test_a_session_is_opened_once_and_used_again(
    borrow: Callable[..., Borrower], opener: Opener, sessions: WarmSessions
) -> None:
    first = borrow()
    first.result()
    first.give_back()
    second = borrow()
    assert second.result() is first.warm
    assert [first.reused, second.reused] == [False, True]
    second.give_back()
    assert opener.calls == 1
    (told,) = sessions.described()
    assert (told["machine"], told["user"], told["done"]) == ("web01", "root", 2)


@pytest.mark.parametrize(
    "other",
    [
        key("ann"),
        key(None),
        key(name="web02"),
        SessionKey.of(
            Machine("web01", "identity-of-web01", "qemu:/web01.qmp"), "root", (Path("/k"),), ""
        ),
        SessionKey.of(
            Machine("web01", "identity-of-web01", "qemu:/web01.qmp"), "root", (), "/agent"
        ),
        SessionKey.of(
            Machine(
                "web01", "identity-of-web01", "qemu:/web01.qmp", note=GuestNote(host_key="another")
            ),
            "root",
            (),
            "",
        ),
        SessionKey.of(Machine("web01", "another-identity", "qemu:/web01.qmp"), "root", (), ""),
    ],
)
def test_nobody_gets_another_s_login(
    borrow: Callable[..., Borrower], opener: Opener, other: SessionKey
) -> None:
    first = borrow()
    first.result()
    first.give_back()
    second = borrow(other)
    assert second.result() is not first.warm
    second.give_back()
    assert opener.calls == 2


def test_a_device_that_was_bound_anew_is_another_place(tmp_path: Path) -> None:
    path = tmp_path / "web01.vsock"
    machine = Machine("web01", "identity", "target", guest=HybridVsock(str(path), 22))
    path.touch()
    before = SessionKey.of(machine, None, (), "")
    assert SessionKey.of(machine, None, (), "") == before
    path.rename(tmp_path / "old")
    path.touch()
    assert SessionKey.of(machine, None, (), "") != before


def test_many_at_once_wait_for_one_login(
    borrow: Callable[..., Borrower], opener: Opener, sessions: WarmSessions
) -> None:
    opener.gate.clear()
    borrowers = [borrow() for _ in range(20)]
    opener.gate.set()
    warm = {id(each.result()) for each in borrowers}
    # Ten on one connection, as OpenSSH's server allows, and no more connections than it takes.
    assert (len(warm), opener.calls) == (2, 2)
    assert sorted(cast("int", each["running"]) for each in sessions.described()) == [10, 10]
    for each in borrowers:
        each.give_back()


def test_an_error_is_raised_to_who_opened_and_the_others_try(
    borrow: Callable[..., Borrower], opener: Opener, sessions: WarmSessions
) -> None:
    opener.gate.clear()
    opener.error = ConnectError("nobody is there")
    borrowers = [borrow() for _ in range(3)]
    opener.gate.set()
    assert [str(each.result()) for each in borrowers] == ["nobody is there"] * 3
    assert opener.calls == 3
    assert len(sessions) == 0


def test_who_gives_up_leaves_the_login_to_the_next(
    borrow: Callable[..., Borrower], opener: Opener
) -> None:
    opener.gate.clear()
    first, second = borrow(), borrow()
    first.request.interrupt()
    assert isinstance(first.result(), KeyboardInterrupt)
    second.request.interrupt()
    assert isinstance(second.result(), KeyboardInterrupt)
    third = borrow()
    opener.gate.set()
    assert isinstance(third.result(), WarmSession)
    assert opener.calls == 1
    third.give_back()


def test_nobody_waits_past_the_own_deadline(
    borrow: Callable[..., Borrower], opener: Opener
) -> None:
    opener.gate.clear()
    first = borrow()
    second = borrow(seconds=0.1)
    assert isinstance(second.result(), DeadlineError)
    opener.gate.set()
    first.result()
    first.give_back()


def test_what_is_in_use_or_was_lately_is_kept(
    borrow: Callable[..., Borrower], opener: Opener, sessions: WarmSessions
) -> None:
    first = borrow()
    first.result()
    assert sessions.tidy() is None
    first.give_back()
    left = sessions.tidy()
    assert left is not None
    assert 0 < left <= sessions.idle_s
    assert not opener.sessions[0].closed.is_set()


def test_what_is_idle_is_closed(
    borrow: Callable[..., Borrower], opener: Opener, sessions: WarmSessions
) -> None:
    sessions.idle_s = 0.0
    first = borrow()
    first.result()
    sessions.tidy()
    assert not opener.sessions[0].closed.is_set()  # it is in use
    first.give_back()
    assert sessions.tidy() is None
    assert opener.sessions[0].closed.wait(WAIT)
    assert len(sessions) == 0


def test_what_is_lost_is_given_to_nobody_and_closed(
    borrow: Callable[..., Borrower], opener: Opener, sessions: WarmSessions, wakes: list[None]
) -> None:
    first = borrow()
    first.result()
    first.give_back()
    wakes.clear()
    opener.sessions[0].guest.lose()
    assert wakes == [None]
    second = borrow()
    assert second.result() is not first.warm
    second.give_back()
    sessions.tidy()
    assert opener.sessions[0].closed.wait(WAIT)
    assert not opener.sessions[1].closed.is_set()


def test_a_server_that_takes_fewer_commands_is_spared(
    borrow: Callable[..., Borrower], sessions: WarmSessions
) -> None:
    first, second = borrow(), borrow()
    warm = first.result()
    assert second.result() is warm
    sessions.spare(cast("WarmSession", warm))
    second.give_back()
    third = borrow()
    assert third.result() is not warm
    first.give_back()
    third.give_back()
    fourth = borrow()
    assert fourth.result() is warm
    fourth.give_back()


def test_what_is_closed_by_name_runs_on_to_its_end(
    borrow: Callable[..., Borrower], opener: Opener, sessions: WarmSessions
) -> None:
    first = borrow()
    first.result()
    assert sessions.close(["web02"]) == 0
    assert sessions.close(["identity-of-web01"]) == 1
    assert sessions.close(["web01"]) == 0  # it is closing
    sessions.tidy()
    assert not opener.sessions[0].closed.is_set()
    second = borrow()
    assert second.result() is not first.warm
    first.give_back()
    sessions.tidy()
    assert opener.sessions[0].closed.wait(WAIT)
    second.give_back()
    assert sessions.close([]) == 1


def test_a_refused_login_is_not_tried_again_at_once(
    borrow: Callable[..., Borrower], opener: Opener
) -> None:
    opener.error = DeclinedError("AuthenticationError", lasting=True)
    assert isinstance(borrow().result(), DeclinedError)
    assert isinstance(borrow().result(), DeclinedError)
    assert opener.calls == 1
    assert isinstance(borrow(key("ann")).result(), DeclinedError)
    assert opener.calls == 2


def test_a_passing_refusal_is_tried_again(borrow: Callable[..., Borrower], opener: Opener) -> None:
    opener.error = DeclinedError("HostKeyUnknownError")
    assert isinstance(borrow().result(), DeclinedError)
    opener.error = None
    second = borrow()
    assert isinstance(second.result(), WarmSession)
    second.give_back()


def test_the_end_closes_all_and_opens_no_more(
    borrow: Callable[..., Borrower], opener: Opener, sessions: WarmSessions
) -> None:
    first = borrow()
    first.result()
    opener.gate.clear()
    second = borrow(key("ann"))
    sessions.close_all()
    assert opener.sessions[0].closed.is_set()
    opener.gate.set()
    assert isinstance(second.result(), ClosedError)
    assert opener.sessions[1].closed.wait(WAIT)
    first.give_back()
    assert isinstance(borrow().result(), ClosedError)


def test_one_that_hangs_keeps_no_other_open(
    borrow: Callable[..., Borrower], opener: Opener, sessions: WarmSessions
) -> None:
    for name in ("web01", "web02"):
        borrow(key(name=name)).result()
    first, second = opener.sessions
    waited: list[bool] = []
    first.close = lambda: waited.append(second.closed.wait(5))  # type: ignore[method-assign]
    sessions.close_all()
    assert waited == [True]


def test_there_is_a_bound(
    borrow: Callable[..., Borrower],
    opener: Opener,
    sessions: WarmSessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vmconnect.broker.warm._MOST_SESSIONS", 2)
    for user in ("ann", "bob", "cid"):
        borrower = borrow(key(user))
        borrower.result()
        borrower.give_back()
    sessions.tidy()
    assert opener.sessions[0].closed.wait(WAIT)
    assert len(sessions) == 2


def test_what_is_told_can_be_written_as_json(
    borrow: Callable[..., Borrower], sessions: WarmSessions
) -> None:
    import json

    first = borrow()
    first.result()
    (told,) = sessions.described()
    again: dict[str, Any] = json.loads(json.dumps(told))
    assert again == told
    assert (told["running"], told["idle_s"]) == (1, 0.0)
    first.give_back()
