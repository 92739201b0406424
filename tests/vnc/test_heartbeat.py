"""Servers that say nothing: those that are still there, and those that are given up."""

from __future__ import annotations

import time

import pytest

from vmconnect.channel import ChannelState
from vmconnect.retry import Heartbeat
from vmconnect.vnc.events import Event

from .played import HEIGHT, PATIENCE, WIDTH, Place, Reader, changes_of, eventually, hang_up, until
from .wire import noise, raw, update


def test_a_server_that_says_nothing_is_given_up(place: Place) -> None:
    """A link that is cut without a word: what was sent goes nowhere, and nothing comes."""
    place.heartbeat = Heartbeat(0.05, 0.1)
    with place.console() as console:
        reader = Reader(place.last)
        changes = changes_of(console)
        # While it answers it may be silent for as long as it likes.
        eventually(lambda: reader.asked >= 5)
        assert changes == []
        reader.answering = False
        until(console, ChannelState.RECONNECTING)
        assert "has not answered for" in str(changes[0].reason)
        reader.join()
        place.welcome()
        console.wait_ready(PATIENCE)


@pytest.mark.parametrize("resizable", [False, True])
def test_a_server_that_answers_with_pixels_alone_is_there(place: Place, resizable: bool) -> None:
    """As one that does not say its size again; and what it sends shows nowhere."""
    place.heartbeat = Heartbeat(0.05, 0.2)
    with place.console() as console:
        reader = Reader(place.last, resizable=resizable)
        pixels = noise(WIDTH, HEIGHT)[:1, :1]
        reader.answer = update(raw(0, 0, pixels))
        events: list[Event] = []
        console.subscribe(events.append)
        if resizable:
            until(console, ChannelState.LOST)  # It has said that it would.
        else:
            eventually(lambda: reader.asked >= 8)
            assert console.state is ChannelState.READY
            assert not events
        hang_up(place.all[0])
        reader.join()


def test_a_server_of_this_host_may_stand_still(place: Place) -> None:
    place.heartbeat = Heartbeat(0.02, None)
    with place.console() as console:
        reader = Reader(place.last)
        reader.answering = False
        console.type("x")
        eventually(lambda: reader.asked >= 1)
        time.sleep(0.3)
        assert console.state is ChannelState.READY
        hang_up(place.last)
        reader.join()
