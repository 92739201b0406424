"""The life of a channel: the table is the rule."""

import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Self

import pytest

from vmconnect.channel import TRANSITIONS, Channel, ChannelState, Lost, StateChange
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    StateError,
    VmconnectError,
)
from vmconnect.retry import Backoff, Retry

PATHS = {
    ChannelState.CONNECTING: [],
    ChannelState.READY: [ChannelState.READY],
    ChannelState.LOST: [ChannelState.READY, ChannelState.LOST],
    ChannelState.RECONNECTING: [
        ChannelState.READY,
        ChannelState.LOST,
        ChannelState.RECONNECTING,
    ],
    ChannelState.CLOSED: [ChannelState.CLOSED],
}


@pytest.mark.parametrize(("before", "after"), [*itertools.product(ChannelState, ChannelState)])
def test_every_transition_is_the_table_s(before: ChannelState, after: ChannelState) -> None:
    channel = Channel("web01")
    for state in PATHS[before]:
        channel._enter(state)
    told: list[StateChange] = []
    channel.on_state(told.append)
    if after in TRANSITIONS[before]:
        channel._enter(after)
        assert channel.state is after
        assert told == [StateChange(before, after)]
    else:
        with pytest.raises(StateError):
            channel._enter(after)
        assert channel.state is before
        assert told == []


def test_waiting_ends_with_what_ended_the_channel() -> None:
    channel = Channel("web01")
    with pytest.raises(DeadlineError, match="web01: still connecting"):
        channel.wait_ready(0.01)
    timer = threading.Timer(0.02, channel._end, [ConnectionLostError("gone")])
    timer.start()
    with pytest.raises(ConnectionLostError, match="web01: gone"):
        channel.wait_ready(10)
    timer.join()


def test_closing_twice_is_closing_once() -> None:
    with Channel("web01") as channel:
        told: list[StateChange] = []
        channel.on_state(told.append)
        channel.close()
        channel.close()
    assert len(told) == 1
    with pytest.raises(ClosedError):
        channel.wait_ready(0)


# The life of a channel that comes back: its connections are played.


class Played(Channel):
    """A channel whose connections end, and whose tries fail, when the test says so."""

    kind = "played"

    def __init__(self, *, retry: Retry | None = None, scope: CancelScope | None = None):
        super().__init__("web01", retry, scope)
        self.tries: queue.SimpleQueue[VmconnectError | None] = queue.SimpleQueue()
        self.ends: queue.SimpleQueue[VmconnectError] = queue.SimpleQueue()
        self.connected = 0
        self.told: list[StateChange] = []
        self.on_state(self.told.append)

    def _connect(self, deadline: Deadline) -> None:
        with deadline.waking(lambda: self.tries.put(ConnectionLostError("cancelled"))):
            outcome = self.tries.get()
        if outcome is not None:
            raise outcome
        self.connected += 1

    def _serve(self) -> VmconnectError:
        return self.ends.get()

    def _drop(self) -> Lost:
        dropped, self.connected = self.connected, 0
        return Lost(uncertain=("x",) * dropped)

    def _hang_up(self) -> None:
        self.ends.put(ClosedError("hung up"))

    @classmethod
    def opened(
        cls, *, wait: bool = False, tries: Sequence[VmconnectError | None] = (None,)
    ) -> Self:
        channel = cls(retry=Retry(Backoff(0.001, 0.001)))
        for outcome in tries:
            channel.tries.put(outcome)
        channel._open(channel._scope.deadline(60), wait=wait)
        return channel

    def until(self, *states: ChannelState) -> None:
        assert self._states.wait_for(lambda state: state in states, Deadline(60))

    def course(self) -> list[str]:
        return [change.after.value for change in self.told]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_a_channel_comes_back_and_says_what_was_lost() -> None:
    with Played.opened() as channel:
        channel.ends.put(ConnectionLostError("cut"))
        channel.until(ChannelState.RECONNECTING)
        assert str(channel.reason) == "web01: cut"
        channel.tries.put(ConnectError("nobody there"))
        channel.tries.put(DeadlineError("nobody answers"))
        channel.tries.put(None)
        channel.wait_ready(60)
        assert channel.reason is None
    again = ["lost", "reconnecting"]
    assert channel.course() == ["ready", *again, *again, *again, "ready", "closed"]
    assert channel.told[1].lost == Lost(uncertain=("x",))
    assert [change.lost for change in channel.told[2:-2]] == [Lost()] * 5
    # Why it is lost is told until it is not.
    assert str(channel.told[2].reason) == "web01: cut"
    assert str(channel.told[3].reason) == "web01: nobody there"


def test_what_does_not_pass_ends_it() -> None:
    with Played.opened() as channel:
        channel.ends.put(ConnectionLostError("cut"))
        channel.tries.put(AuthenticationError("who are you?"))
        channel.until(ChannelState.CLOSED)
        with pytest.raises(AuthenticationError, match="web01: who are you"):
            channel.wait_ready(60)
    assert isinstance(channel.reason, AuthenticationError)
    assert channel.course() == ["ready", "lost", "reconnecting", "closed"]


def test_a_channel_that_must_not_come_back_ends_with_its_connection() -> None:
    with Played() as channel:
        channel.tries.put(None)
        channel._open(Deadline(60))
        channel.ends.put(ConnectionLostError("cut"))
        channel.until(ChannelState.CLOSED)
    assert isinstance(channel.reason, ConnectionLostError)
    assert channel.told[-1].lost == Lost(uncertain=("x",))


def test_opening_tries_again_if_it_is_to_wait() -> None:
    tries = [ConnectError("not yet"), ConnectError("not yet"), None]
    Played.opened(wait=True, tries=tries).close()
    with pytest.raises(ConnectError, match="web01: not yet"):
        Played.opened(tries=tries)


def test_a_channel_opened_at_once_says_why_it_is_not_there() -> None:
    with Played(retry=Retry(Backoff(0.001, 0.001))) as channel:
        channel.tries.put(ConnectError("not yet"))
        channel._thread.start()
        channel.until(ChannelState.RECONNECTING)
        assert str(channel.reason) == "web01: not yet"
        with pytest.raises(DeadlineError, match=r"still reconnecting .*not yet"):
            channel.wait_ready(0)
        channel.tries.put(None)
        channel.wait_ready(60)
    assert channel.course() == ["lost", "reconnecting", "ready", "closed"]


def test_it_hurries_when_something_has_changed() -> None:
    with Played(retry=Retry(Backoff(3600, 3600), random=lambda: 1.0)) as channel:
        channel.tries.put(None)
        channel._open(Deadline(60))
        channel.ends.put(ConnectionLostError("cut"))
        channel.until(ChannelState.LOST)
        channel.tries.put(None)
        channel.hurry()
        channel.wait_ready(60)


@pytest.mark.parametrize("tries", [[], [None], [ConnectError("no")]])
def test_closing_ends_it_wherever_it_is(tries: list[VmconnectError | None]) -> None:
    """In the midst of a try, in a connection, in a pause."""
    channel = Played(retry=Retry(Backoff(3600, 3600), random=lambda: 1.0))
    for outcome in tries:
        channel.tries.put(outcome)
    channel._thread.start()
    if tries:
        channel.until(ChannelState.READY, ChannelState.LOST)
    channel.close()
    assert channel.state is ChannelState.CLOSED
    assert channel.reason is None
    assert channel.connected == 0


def test_closing_while_it_is_opened() -> None:
    channel = Played(retry=Retry())
    timer = threading.Timer(0.02, channel.close)
    timer.start()
    with pytest.raises(ClosedError, match="web01: the played is closed"):
        channel._open(channel._scope.deadline(60))
    timer.join()


def test_a_listener_may_close_it() -> None:
    channel = Played.opened()
    channel.on_state(lambda change: channel.close() if change.reason else None)
    channel.ends.put(ConnectionLostError("cut"))
    channel.until(ChannelState.CLOSED)
    channel.close()
    assert channel.course()[:2] == ["ready", "lost"]


def test_many_may_close_it_at_once() -> None:
    channel = Played.opened()
    threads = [threading.Thread(target=channel.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert channel.course() == ["ready", "closed"]


def test_what_was_typed_is_not_shown() -> None:
    change = StateChange(
        ChannelState.READY, ChannelState.LOST, lost=Lost(("s3cret",), ("s3cret",), ("ctrl",))
    )
    assert "s3cret" not in repr(change)
    assert "ctrl" in repr(change)
