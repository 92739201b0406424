"""Recordings: written while a session runs, played back with the same events."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import numpy as np
import pytest

from vmconnect.errors import ResourceError, RfbError
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event
from vmconnect.vnc.pixel_format import OURS
from vmconnect.vnc.recording import MAX_PIECE_BYTES, TIGERVNC, Player, Recorder

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


def test_the_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    file = tmp_path / "session.vmrec"
    with Recorder(file) as recorder:
        recorder.write(b"abc")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    with Recorder(file, overwrite=True) as recorder:
        recorder.write(b"abc")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_is_overwritten_before_there_is_something_new(tmp_path: Path) -> None:
    file = tmp_path / "session.vmrec"
    with Recorder(file) as recorder:
        recorder.write(b"old")
    before = file.read_bytes()
    with pytest.raises(ResourceError, match="exists"):
        Recorder(file)
    with Recorder(file, overwrite=True):
        pass
    assert file.read_bytes() == before
    with Recorder(file, overwrite=True) as recorder:
        recorder.write(b"new")
    assert b"".join(data for _, data in Player(file).pieces()) == b"new"
    with Recorder(tmp_path / "nothing"):
        assert (tmp_path / "nothing").exists()
    assert not (tmp_path / "nothing").exists()


def test_only_files_are_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(ResourceError, match="cannot be written"):
            Recorder(path, overwrite=True)
    assert Path("/dev/null").exists()


def test_a_recording_ends_when_it_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "session.vmrec"
    with Recorder(file) as recorder:
        recorder.write(b"abc")
        before = recorder.seconds
    assert recorder.bytes == 3
    pieces = list(Player(file).pieces())
    assert [data for _, data in pieces] == [b"abc", b""]
    assert recorder.seconds == pieces[-1][0] > before == pieces[0][0]
    recorder.close()
    assert list(Player(file).pieces()) == pieces


def test_large_pieces(tmp_path: Path) -> None:
    file = tmp_path / "session.vmrec"
    data = os.urandom(1 << 16) * (MAX_PIECE_BYTES // (1 << 16)) + b"rest"
    with Recorder(file) as recorder:
        recorder.write(memoryview(data))
    pieces = [piece for _, piece in Player(file).pieces()]
    assert [len(piece) for piece in pieces] == [MAX_PIECE_BYTES, 4, 0]
    assert b"".join(pieces) == data


def test_what_is_cut_is_told(tmp_path: Path) -> None:
    file = tmp_path / "session.vmrec"
    with Recorder(file) as recorder:
        recorder.write(b"abcdef")
    whole = file.read_bytes()
    for length, cut in ((len(whole), False), (len(whole) - 12, False), (len(whole) - 1, True)):
        file.write_bytes(whole[:length])
        player = Player(file)
        list(player.pieces())
        assert player.cut is cut
    file.write_bytes(whole[:-13])
    player = Player(file)
    assert [data for _, data in player.pieces()] == [b"abcde"]
    assert player.cut


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
