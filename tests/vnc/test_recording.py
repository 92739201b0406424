"""Recordings: written while a session runs, played back with the same events."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from vmconnect.errors import ResourceError, RfbError
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event
from vmconnect.vnc.pixel_format import OURS
from vmconnect.vnc.recording import TIGERVNC, Player, Recorder

from .test_encodings import HEIGHT, WIDTH
from .wire import feed, hello, server_init, update
from .writer import FORMATS, Writer


def session(form: str = "ours") -> bytes:
    writer = Writer(random.Random(4), FORMATS[form], WIDTH, HEIGHT)
    return b"".join(update(writer.rectangles(1), writer.rectangles(1)) for _ in range(8))


@pytest.mark.parametrize("cuts", [[], [3, 12, 14, 18, 19, 40, 41, 700], list(range(0, 2000, 3))])
@pytest.mark.parametrize("form", ["ours", "565"])
def test_what_is_recorded_is_played(tmp_path: Path, cuts: list[int], form: str) -> None:
    file = tmp_path / "session.vmrec"
    with Recorder(file, FORMATS[form]) as recorder:
        engine = Engine(pixel_format=FORMATS[form], tap=recorder.write)
        events = feed(engine, hello(WIDTH, HEIGHT) + session(form), cuts)
    player = Player(file)
    assert b"".join(data for _, data in player.pieces()) == server_init(WIDTH, HEIGHT) + session(
        form
    )
    times = [at for at, _ in player.pieces()]
    assert times == sorted(times)
    assert times[0] == 0
    for speed in (None, 1e6):
        replayed = player.engine()
        again: list[Event] = []
        for happened in player.play(replayed, speed):
            again += happened
        assert again == events
        np.testing.assert_array_equal(replayed.framebuffer.pixels, engine.framebuffer.pixels)


def test_the_tail_may_be_cut(tmp_path: Path) -> None:
    file = tmp_path / "session.vmrec"
    with Recorder(file) as recorder:
        recorder.write(server_init(WIDTH, HEIGHT))
        recorder.write(session())
    whole = file.read_bytes()
    for length in range(len(whole) - 1, 60, -61):
        file.write_bytes(whole[:length])
        player = Player(file)
        for _ in player.play(player.engine(), None):
            pass


def test_tigervnc_recordings(tmp_path: Path) -> None:
    file = tmp_path / "session.rfb"
    file.write_bytes(server_init(WIDTH, HEIGHT) + session("rgb"))
    player = Player(file)
    assert player.pixel_format == TIGERVNC
    engine = player.engine()
    assert sum(len(events) for events in player.play(engine, None)) > 1
    assert engine.framebuffer.pixel_format == TIGERVNC


def test_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "session.vmrec"
    with pytest.raises(ResourceError, match="cannot be read"):
        Player(file)
    with pytest.raises(ResourceError, match="cannot be written"):
        Recorder(tmp_path / "nowhere" / "file")
    recorder = Recorder(file)
    recorder.close()
    with pytest.raises(ResourceError, match="cannot be written"):
        recorder.write(b"x")
    head = b"vmconnect-rfb 1\n"
    file.write_bytes(head + b"xyz")
    with pytest.raises(RfbError, match="ends in its head"):
        Player(file)
    file.write_bytes(head + bytes(16))
    with pytest.raises(RfbError, match="impossible pixel format"):
        Player(file).engine()
    file.write_bytes(head + OURS.pack() + b"\xff" * 12)
    with pytest.raises(RfbError, match="is damaged"):
        list(Player(file).pieces())
