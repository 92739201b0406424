"""The life of a channel: the table is the rule."""

import itertools
import threading

import pytest

from vmconnect.channel import TRANSITIONS, Channel, ChannelState, StateChange
from vmconnect.errors import ClosedError, ConnectionLostError, DeadlineError, StateError

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
