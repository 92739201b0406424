"""Recordings that are shown: as fast as they were, from where one wants, until one leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.replay.tape import Tape
from vmconnect.channel import ChannelState
from vmconnect.errors import ResourceError, RfbError
from vmconnect.replay import Replay, Screening
from vmconnect.vnc.events import Event, NameChanged, Resized, UpdateDone

Tapes = Callable[..., Tape]
PATIENCE = 60.0


class Audience:
    """Sees what a window sees."""

    def __init__(self, screening: Screening):
        self.events: list[Event] = []
        self.ended = threading.Event()
        screening.subscribe(self._see)

    def _see(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, NameChanged):
            self.ended.set()


def show(made: Tape, speed: float | None, at: float = 0.0) -> tuple[Screening, Audience]:
    with Screening(Replay(made.path), speed, at) as screening:
        assert screening.size != (0, 0)
        audience = Audience(screening)
        screening.start()
        assert audience.ended.wait(PATIENCE)
        assert screening.state is ChannelState.READY
    return screening, audience


@pytest.mark.parametrize("speed", [None, 20.0])
def test_all_is_shown(tape: Tapes, speed: float | None) -> None:
    made = tape(8, 6)
    made.show(0.5, 1)
    made.resize(1.0, 5, 3)
    made.show(2.0, 2)
    screening, audience = show(made, speed)
    assert [type(event) for event in audience.events] == [
        *(UpdateDone, Resized, UpdateDone, NameChanged)
    ]
    assert audience.events[-1] == NameChanged("desk (the end)")
    assert screening.size == (5, 3)
    assert (screening.framebuffer.pixels == 2).all()
    assert screening.trouble is None
    assert not screening.alive


def test_it_begins_where_one_wants(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(1e5, 1)
    made.show(1e6, 2)
    made.show(1e6 + 1, 3)
    with Screening(Replay(made.path), 10.0, 1e6) as screening:
        assert (screening.framebuffer.pixels == 2).all()
        audience = Audience(screening)
        screening.start()
        assert audience.ended.wait(PATIENCE)
    assert [type(event) for event in audience.events] == [UpdateDone, NameChanged]


def test_one_may_leave_in_a_pause_of_months(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(0.0, 1)
    made.show(1e7, 2)
    with Screening(Replay(made.path), 1.0) as screening:
        audience = Audience(screening)
        screening.start()
    assert not audience.ended.is_set()
    # What was never begun can be left, too.
    Screening(Replay(made.path)).close()


def test_what_is_damaged_is_shown_up_to_there(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(0.5, 1)
    made.say(1.0, b"\x99")
    screening, audience = show(made, None)
    assert audience.events[-1] == NameChanged("desk (damaged here)")
    assert (screening.framebuffer.pixels == 1).all()
    assert isinstance(screening.trouble, RfbError)


def test_there_is_no_screen(tape: Tapes) -> None:
    made = tape(8, 6)
    made.path.write_bytes(made.path.read_bytes()[:50])
    with pytest.raises(RfbError, match="ends in the midst"):
        Screening(Replay(made.path))
    made.path.write_bytes(made.path.read_bytes()[:32])
    with pytest.raises(ResourceError, match="nothing is drawn"):
        Screening(Replay(made.path))
