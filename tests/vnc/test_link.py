"""How fast a link is, and what is asked for over it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.errors import TargetError
from vmconnect.streams import SocketStream
from vmconnect.vnc import Console
from vmconnect.vnc.encodings import (
    COMPRESSIONS,
    ENCODINGS,
    FINE_QUALITIES,
    MOST_OFFERED,
    OFFERED,
    QUALITIES,
)
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.link import LADDER, LOCAL, Link
from vmconnect.vnc.messages import framebuffer_update_request, set_encodings
from vmconnect.vnc.preference import ENCODING_NAMES, Choice, Preference

from .conftest import RealServer
from .test_servers import Drawing
from .wire import hello, noise

PATIENCE = 60.0
PIECE = 8 * 1024


class Clock:
    """A link that carries so much, in pieces, with pauses between updates."""

    def __init__(self, link: Link):
        self.link = link
        self.now = 0.0
        self.changes: list[Choice] = []

    def update(self, bits_per_second: float, count: int = 16 * PIECE, pause: float = 1.0) -> None:
        self.now += pause
        for _ in range(count // PIECE):
            self.link.received(PIECE, self.now, waited=True)
            self.now += 8 * PIECE / bits_per_second
        if self.link.update_ended():
            self.changes.append(self.link.choice)


@pytest.mark.parametrize("rung", range(len(LADDER)))
def test_every_rung_is_found(rung: int) -> None:
    clock = Clock(Link())
    rate = max(LADDER[rung].bits_per_second, 5e5) * 2
    for _ in range(60):
        clock.update(rate)
    assert clock.link.choice == LADDER[rung].choice
    assert clock.link.bits_per_second == pytest.approx(rate, rel=0.2)
    # There and no further.
    assert len(clock.changes) == abs(rung - 1)


def test_a_network_begins_without_losses() -> None:
    assert Link().choice == Choice(7, None, 1)
    assert Link(ladder=LOCAL).choice == Choice(0)


def test_pauses_are_not_the_link_s() -> None:
    clock = Clock(Link())
    for _ in range(40):
        clock.update(2e8, pause=30.0)
    assert clock.changes == []


def test_it_comes_back() -> None:
    clock = Clock(Link())
    for rate in (1e5, 3e8, 1e5, 3e8):
        for _ in range(60):
            clock.update(rate)
    assert clock.link.choice == LADDER[1].choice


@given(
    st.sampled_from(range(1, len(LADDER) - 1)),
    st.lists(st.floats(0.82, 1.45), min_size=50, max_size=200),
)
def test_near_a_rung_s_edge_it_changes_once_at_most(rung: int, factors: list[float]) -> None:
    """Whatever the order, rates about a rung's least are not gone up and down for."""
    clock = Clock(Link())
    for factor in factors:
        clock.update(LADDER[rung].bits_per_second * factor)
    rungs = [1, *(next(i for i, r in enumerate(LADDER) if r.choice == c) for c in clock.changes)]
    assert rungs == sorted(rungs)
    assert max(rungs) <= rung + 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(1, 1 << 24), st.floats(0, 1e4), st.booleans()),
            st.none(),
        )
    )
)
def test_any_course_of_things(events: list[tuple[int, float, bool] | None]) -> None:
    link, now = Link(), 0.0
    for event in events:
        if event is None:
            before = link.choice
            assert link.update_ended() == (link.choice != before)
        else:
            count, seconds, waited = event
            now += seconds
            link.received(count, now, waited=waited)
        assert link.choice in {rung.choice for rung in LADDER}
        assert link.bits_per_second is None or link.bits_per_second > 0


def test_what_is_fixed_stays() -> None:
    link = Link(Preference("zrle", "lossless", 3))
    clock = Clock(link)
    for rate in (1e5, 3e9):
        for _ in range(60):
            clock.update(rate)
    assert clock.changes == []
    assert link.choice == Choice(ENCODING_NAMES["zrle"], None, 3)
    clock = Clock(Link(Preference(quality=5)))
    for _ in range(60):
        clock.update(1e5)
    assert {choice.quality for choice in clock.changes} == {5}


def test_what_a_choice_tells() -> None:
    numbers = Choice(16, 7, 3).numbers
    assert numbers[:2] == (1, 16)
    assert numbers[-2:] == (QUALITIES[7], COMPRESSIONS[3])
    assert len(numbers) == len(set(numbers)) <= MOST_OFFERED
    for number in ENCODING_NAMES.values():
        assert ENCODINGS[number].draws
        numbers = Choice(number, 0, 0, 0).numbers
        assert len(numbers) <= MOST_OFFERED
        # What does not fit are pixels in one more way.
        assert all(ENCODINGS[missing].draws for missing in set(OFFERED) - set(numbers))
    assert not set(Choice(7).numbers) & {*QUALITIES, *COMPRESSIONS}


@pytest.mark.parametrize(
    ("percent", "coarse"), [("0%", 0), ("5%", 0), ("6%", 1), ("85%", 8), ("100%", 9)]
)
def test_a_quality_in_percent(percent: str, coarse: int) -> None:
    """Servers that do not know it have the nearest that they know."""
    choice = Preference(quality=percent).applied(Choice(7, 3, 9))
    assert choice == Choice(7, coarse, 9, int(percent[:-1]))
    fine = FINE_QUALITIES[int(percent[:-1])]
    assert choice.numbers[-3:] == (QUALITIES[coarse], fine, COMPRESSIONS[9])
    # What does not fit are pixels in one more way.
    assert all(ENCODINGS[missing].draws for missing in set(OFFERED) - set(choice.numbers))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"encoding": "jpeg2000"}, "tight"),
        ({"quality": 10}, "0 to 9"),
        ({"quality": "101%"}, "0% to 100%"),
        ({"quality": "-1%"}, "0% to 100%"),
        ({"quality": "best"}, "lossless"),
        ({"compression": -1}, "0 to 9"),
    ],
)
def test_what_no_person_can_prefer(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(TargetError, match=words):
        Preference(**wrong)  # type: ignore[arg-type]


def test_an_engine_asks_again_for_what_was_lost() -> None:
    engine = Engine(encodings=Choice(7, 3, 9).numbers)
    engine.receive(hello(40, 30))
    engine.data_to_send()
    engine.offer(Choice(7, 6, 6).numbers)
    assert engine.data_to_send() == set_encodings(Choice(7, 6, 6).numbers)
    engine.offer(Choice(7).numbers)
    whole = framebuffer_update_request(False, 0, 0, 40, 30)
    assert engine.data_to_send() == set_encodings(Choice(7).numbers) + whole
    engine.offer(Choice(0).numbers)
    assert engine.data_to_send() == set_encodings(Choice(0).numbers)


class Throttle:
    """A link between two sockets that carries so many bytes a second from the server."""

    def __init__(self, server: socket.socket):
        self.rate = 1e9
        ours, self.theirs = socket.socketpair()
        # What waits in between must not be seconds' worth.
        for end in (ours, self.theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._ours, self._server = ours, server
        self._threads = [threading.Thread(target=self._down), threading.Thread(target=self._up)]
        for thread in self._threads:
            thread.start()

    def _down(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(4096 if self.rate < 1e8 else 1 << 18):
                self._ours.sendall(data)
                time.sleep(len(data) / self.rate)
        self._ours.close()

    def _up(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._ours.recv(4096):
                self._server.sendall(data)

    def close(self) -> None:
        for end in (self._ours, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()


@pytest.fixture
def throttled(
    xtigervnc: Callable[..., RealServer],
) -> Iterator[tuple[Throttle, Drawing, Callable[[], SocketStream]]]:
    server = xtigervnc("-SecurityTypes", "None", "-ac")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(server.address))
    drawing = Drawing(server.display)
    throttle = Throttle(connection)
    yield throttle, drawing, lambda: SocketStream(throttle.theirs, "throttle")
    throttle.close()
    drawing.close()


def lossy(console: Console) -> bool:
    return console.link.choice.quality is not None


def test_a_link_that_becomes_slow_and_fast_again(
    throttled: tuple[Throttle, Drawing, Callable[[], SocketStream]],
) -> None:
    """Real Xtigervnc: losses are allowed as long as the link is slow, and made good then."""
    throttle, drawing, stream = throttled
    with Console.open(lambda _: stream(), "real", timeout=PATIENCE) as console:
        assert not lossy(console)
        throttle.rate = 3e5
        end = time.monotonic() + PATIENCE
        seed = 0

        def scroll() -> None:
            nonlocal seed
            seed += 1
            picture = np.roll(noise(300, 200), seed, axis=1)
            drawing.put(0, 0, picture)
            drawing.sync()
            console.wait_for_update(PATIENCE)
            assert time.monotonic() < end

        while not lossy(console):
            scroll()
        throttle.rate = 1e9
        end = time.monotonic() + PATIENCE
        while lossy(console):
            scroll()
        expected = np.roll(noise(300, 200), seed, axis=1)
        console.wait_for(
            lambda console: np.array_equal(console.framebuffer.pixels[:200, :300], expected),
            PATIENCE,
        )
