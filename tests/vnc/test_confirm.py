"""What was sent and what of it is known to have been read, with servers that we play."""

from __future__ import annotations

import threading

import pytest

from vmconnect.channel import ChannelState
from vmconnect.errors import ConnectionLostError, UnsupportedError
from vmconnect.vnc import Console
from vmconnect.vnc.messages import key_event

from .played import PATIENCE, Place, Reader, changes_of, cut, hang_up, until


def settled(console: Console) -> None:
    """Wait until no answer can be taken for another: the console knows how to ask."""
    console.wait_for(lambda each: each._engine.resizable, PATIENCE)
    connection = console._connection
    assert connection is not None
    connection._receipts._disturbed_at = -100.0


def test_what_is_confirmed_has_been_read(place: Place, console: Console) -> None:
    reader = Reader(place.last)
    settled(console)
    changes = changes_of(console)
    console.keyboard.type("ab", interval=0)
    console.mouse.click()
    console.clipboard.put("x")
    console.confirm(PATIENCE)
    assert key_event(True, 0x62) in reader.heard
    reader.answering = False
    console.keyboard.type("cD\n", interval=0)
    console.mouse.move(3, 3)
    console.mouse.click("right")
    cut(place, console)
    reader.join()
    lost = changes[0].lost
    assert (lost.unsent, lost.uncertain) == ((), ("c", "shift", "D", "enter", "right button"))
    assert lost.released == ()


def test_what_has_not_left_is_told_apart(place: Place, console: Console) -> None:
    """A server that reads no more: first the kernel takes what is sent, then nobody does."""
    changes = changes_of(console)
    console.keyboard.press("a")
    for _ in range(3):
        console.clipboard.put("x" * (1 << 20))
    console.keyboard.press("b")
    hang_up(place.last)
    until(console, ChannelState.RECONNECTING)
    lost = changes[0].lost
    assert lost.uncertain[:2] == ("a", "clipboard")
    assert lost.unsent[-1] == "b"
    assert len(lost.uncertain) + len(lost.unsent) == 5


def test_confirming_fails_with_the_connection(place: Place, console: Console) -> None:
    reader = Reader(place.last)
    settled(console)
    reader.answering = False
    console.type("x")
    timer = threading.Timer(0.05, hang_up, [place.last])
    timer.start()
    with pytest.raises(ConnectionLostError, match="before all had been read"):
        console.confirm(PATIENCE)
    timer.join()
    reader.join()


def test_a_server_that_cannot_be_asked(console: Console) -> None:
    console.confirm()  # Nothing was sent.
    console.type("x")
    with pytest.raises(UnsupportedError, match="cannot be asked"):
        console.confirm()
