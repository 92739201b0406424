"""Opening a console, also one that is to wait for its server, and closing it at any moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from vmconnect.channel import ChannelState
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import ClosedError, ConnectError, ConnectionLostError, VmconnectError
from vmconnect.retry import Retry
from vmconnect.vnc import Console
from vmconnect.vnc.events import Event, Resized
from vmconnect.vnc.route import Route

from .played import HEIGHT, PATIENCE, QUICK, WIDTH, Place, hang_up, until
from .wire import SET_ENCODINGS, hello, noise, raw, request, update


def test_opening_waits_for_a_server(place: Place) -> None:
    place.refusal = ConnectError("nobody there")
    retry = Retry(QUICK)
    with pytest.raises(ConnectError, match="web01: nobody there"):
        Console.open(place.open, "web01", retry=retry, wait=True, timeout=0.05)
    thread = threading.Thread(target=place.welcome)
    thread.start()
    timer = threading.Timer(0.05, setattr, [place, "refusal", None])
    timer.start()
    with Console.open(
        place.open, "web01", retry=Retry(QUICK), wait=True, timeout=PATIENCE
    ) as console:
        assert console.state is ChannelState.READY
    thread.join()
    timer.join()


def test_a_console_without_a_connection_yet(place: Place) -> None:
    place.refusal = ConnectError("nobody there")
    with Console.open(place.open, "web01", retry=Retry(QUICK), at_once=True) as console:
        events: list[Event] = []
        console.subscribe(events.append)
        assert console.size == (0, 0)
        until(console, ChannelState.LOST)
        with pytest.raises(ConnectionLostError, match=r"not connected .*nobody there"):
            console.type("x")
        place.refusal = None
        place.welcome()
        np.testing.assert_array_equal(console.pixels(PATIENCE), noise(WIDTH, HEIGHT))
        assert Resized(WIDTH, HEIGHT, changed=True) in events


def in_the_midst_of_dialling(place: Place) -> None:
    time.sleep(0.05)


def in_the_midst_of_a_greeting(place: Place) -> None:
    place.next().say(b"RFB 003.008\n")


def in_the_midst_of_a_picture(place: Place) -> None:
    server = place.next()
    server.say(hello(WIDTH, HEIGHT))
    server.hear(b"RFB 003.008\n\1\1" + SET_ENCODINGS + request(False, WIDTH, HEIGHT))
    server.say(update(raw(0, 0, noise(WIDTH, HEIGHT)))[:100])


MOMENTS = [in_the_midst_of_dialling, in_the_midst_of_a_greeting, in_the_midst_of_a_picture]


@pytest.mark.parametrize("reach", MOMENTS)
@pytest.mark.parametrize("again", [False, True])
def test_closing_at_any_moment(place: Place, reach: Callable[[Place], None], again: bool) -> None:
    """The first time and when it comes back; nothing waits for a deadline."""
    console = place.console() if again else None
    opener: Callable[[Deadline], Route] = place.open
    if reach is in_the_midst_of_dialling:
        opener = hanging
    if console is None:
        console = Console.open(opener, "web01", retry=Retry(QUICK), at_once=True)
    else:
        console._connector._opener = opener
        hang_up(place.last)
    reach(place)
    closer = threading.Thread(target=console.close)
    closer.start()
    closer.join(PATIENCE)
    assert not closer.is_alive()
    assert console.state is ChannelState.CLOSED
    assert console.reason is None


def hanging(deadline: Deadline) -> Route:
    """Dial what never answers, as the dialler does."""
    over = threading.Event()
    with deadline.waking(over.set):
        over.wait()
    deadline.check("dialling")
    raise AssertionError("it was not cancelled")


@pytest.mark.parametrize("reach", MOMENTS[1:])
def test_a_scope_ends_the_opening(place: Place, reach: Callable[[Place], None]) -> None:
    scope, failed = CancelScope(), []

    def open_it() -> None:
        try:
            Console.open(place.open, "web01", scope=scope, timeout=PATIENCE, retry=Retry()).close()
        except VmconnectError as error:
            failed.append(error)

    thread = threading.Thread(target=open_it)
    thread.start()
    reach(place)
    scope.cancel()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if reach is in_the_midst_of_a_greeting:
        assert isinstance(failed[0], ClosedError | ConnectionLostError)


def test_a_person_who_is_asked_holds_nobody_up(place: Place) -> None:
    asked, answer = threading.Event(), threading.Event()

    def ask() -> str:
        asked.set()
        answer.wait(PATIENCE)
        return "late"

    console = Console.open(place.open, "web01", password=ask, retry=Retry(QUICK), at_once=True)
    place.next().say(b"RFB 003.008\n\1\2" + bytes(16))
    assert asked.wait(PATIENCE)
    console.close()
    assert console.state is ChannelState.CLOSED
    answer.set()
    console._thread.join(PATIENCE)
    assert not console._thread.is_alive()
