"""The frames of a recording: at which times, of which pixels, in which files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.replay.tape import Tape, flat
from tests.vnc.wire import raw, rectangle, server_init, update
from vmconnect.errors import ResourceError, RfbError
from vmconnect.replay import Frame, Replay, frame_at, frames, write_frames, write_png

RED, GREEN, BLUE = 0xFF0000, 0x00FF00, 0x0000FF

Tapes = Callable[..., Tape]


def shown(frame: Frame) -> int:
    colours = np.unique(frame.pixels)
    assert len(colours) == 1
    return int(colours[0])


def test_the_screen_at_multiples_of_a_time(tape: Tapes) -> None:
    made = tape(8, 6)
    for at, colour in ((0.1, RED), (0.4, GREEN), (1.0, BLUE), (2.5, RED), (2.6, GREEN)):
        made.show(at, colour)
    made.say(9.0, b"")
    seen = [(frame.number, frame.at, shown(frame)) for frame in frames(Replay(made.path), 0.5)]
    assert seen == [(1, 0.5, GREEN), (2, 1.0, BLUE), (5, 2.5, RED), (6, 3.0, GREEN)]


def test_half_an_update_is_no_frame(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(0.1, RED)
    made.show_in_parts(0.9, 2.1, GREEN)
    seen = [(frame.number, shown(frame)) for frame in frames(Replay(made.path), 1.0)]
    assert seen == [(1, RED), (3, GREEN)]
    assert shown(frame_at(Replay(made.path), 0.5)) == RED
    assert shown(frame_at(Replay(made.path), 1.0)) == RED
    assert shown(frame_at(Replay(made.path), 2.1)) == GREEN


def test_updates_without_a_pause_between(tape: Tapes) -> None:
    """At every multiple one is half drawn: each piece ends one and begins the next."""
    made = tape(8, 6)
    made.show(0.1, RED)
    said = b"".join(update(raw(0, 0, flat(8, 6, colour))) for colour in range(1, 9))
    length = len(said) // 8
    for i in range(9):
        made.say(0.5 + i, said[max(0, i * length - 100) : (i + 1) * length - 100])
    seen = [(frame.number, shown(frame)) for frame in frames(Replay(made.path), 1.0)]
    assert seen == [(1, RED), *((n, n - 1) for n in range(2, 10))]


def test_the_last_frame_and_the_first(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(5.0, RED)
    made.show(6.0, GREEN)
    assert shown(frame_at(Replay(made.path))) == GREEN
    first = frame_at(Replay(made.path), 0.0)
    assert (shown(first), first.at) == (RED, 5.0)
    assert shown(frame_at(Replay(made.path), 1e6)) == GREEN


def test_another_size(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(0.5, RED)
    made.resize(1.0, 5, 3)
    made.show(3.0, GREEN)
    seen = [(frame.number, frame.pixels.shape) for frame in frames(Replay(made.path), 1.0)]
    assert seen == [(1, (6, 8)), (3, (3, 5))]
    assert frame_at(Replay(made.path), 1.5).pixels.shape == (6, 8)
    assert frame_at(Replay(made.path), 3.0).pixels.shape == (3, 5)


def test_a_size_that_comes_back(tape: Tapes) -> None:
    """Of what was there before, nothing is left."""
    made = tape(8, 6)
    made.show(0.5, RED)
    made.resize(1.0, 5, 3)
    made.resize(1.1, 8, 6)
    made.say(2.0, update(raw(0, 0, flat(8, 1, GREEN))))
    last = frame_at(Replay(made.path)).pixels
    assert (last[0] == GREEN).all()
    assert not last[1:].any()


def test_a_size_that_is_never_drawn(tape: Tapes) -> None:
    """The picture before is the last that anybody saw."""
    made = tape(8, 6)
    made.show(0.5, RED)
    made.resize(1.0, 5, 3)
    last = frame_at(Replay(made.path))
    assert (last.pixels.shape, shown(last)) == ((6, 8), RED)
    assert [frame.number for frame in frames(Replay(made.path), 1.0)] == [1]


@pytest.mark.parametrize("form", ["ours", "rgb", "565", "32 big"])
def test_pixels_are_red_green_blue_whatever_they_were(tape: Tapes, form: str) -> None:
    made = tape(1, 1, form)
    pixel = {"ours": "80 40 c0 00", "rgb": "c0 40 80 00", "565": "10 c2", "32 big": "00 c0 40 80"}
    # 565 has 0xc210: 24 of 31, 16 of 63, 16 of 31.
    made.say(1.0, update(rectangle(0, 0, 1, 1, 0, bytes.fromhex(pixel[form]))))
    red, green, blue = frame_at(Replay(made.path)).pixels.view(np.uint8)[0, 2::-1].tolist()
    assert abs(red - 0xC0) <= 8
    assert abs(green - 0x40) <= 4
    assert abs(blue - 0x80) <= 8


def test_tigervnc_recordings(tmp_path: Path) -> None:
    file = tmp_path / "session.rfb"
    pixels = update(rectangle(0, 0, 1, 1, 0, bytes.fromhex("c0408000")))
    file.write_bytes(server_init(1, 1) + pixels)
    assert frame_at(Replay(file)).pixels.tolist() == [[0xC04080]]


# What is cut, damaged, or no recording of anything.


def test_what_came_before_a_cut_counts(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(1.0, RED)
    made.show(2.0, GREEN)
    made.cut(3)
    replay = Replay(made.path)
    assert (frame_at(replay).pixels[:-1] == GREEN).all()
    with pytest.raises(RfbError, match=r"session\.vmrec: .*ends in the midst"):
        raise_trouble(replay)
    assert [frame.number for frame in frames(Replay(made.path), 1.0)] == [1, 2]


def raise_trouble(replay: Replay) -> None:
    assert replay.trouble is not None
    raise replay.trouble


def test_a_head_that_is_cut(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(1.0, RED)
    with made.path.open("ab") as file:
        file.write(bytes(5))
    replay = Replay(made.path)
    assert shown(frame_at(replay)) == RED
    assert "midst" in str(replay.trouble)


def test_what_the_server_was_not_allowed_to_send(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(1.0, RED)
    made.say(2.0, b"\x77")
    made.show(3.0, GREEN)
    replay = Replay(made.path)
    assert shown(frame_at(replay)) == RED
    with pytest.raises(RfbError, match=r"session\.vmrec: .*unknown message type 119"):
        raise_trouble(replay)


def test_half_of_the_first_update(tape: Tapes) -> None:
    made = tape(8, 6)
    made.show(1.0, RED)
    made.cut(40)
    assert (frame_at(Replay(made.path)).pixels[:4] == RED).all()
    assert len(list(frames(Replay(made.path), 1.0))) == 1


@pytest.mark.parametrize("seconds", [[2.0, 1.0], [400 * 86400.0], [(1 << 64) / 1e9 - 2048]])
def test_times_that_cannot_be(tape: Tapes, seconds: list[float]) -> None:
    made = tape(8, 6)
    made.show(0.5, RED)
    for at in seconds:
        made.show(at, GREEN)
    replay = Replay(made.path)
    frame_at(replay)
    assert "is damaged" in str(replay.trouble)


def test_nothing_to_show(tape: Tapes) -> None:
    made = tape(8, 6)
    for ask in (lambda: frame_at(Replay(made.path)), lambda: list(frames(Replay(made.path), 1.0))):
        with pytest.raises(ResourceError, match="nothing is drawn in this recording"):
            ask()
    made.path.write_bytes(made.path.read_bytes()[:-30])
    with pytest.raises(RfbError, match="ends in the midst"):
        frame_at(Replay(made.path))


_PIECES = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 0xFFFFFF), st.booleans()), min_size=1, max_size=8
)


@given(_PIECES, st.floats(0.01, 2))
def test_each_frame_is_the_last_whole_screen_until_then(
    pieces: list[tuple[float, int, bool]], every: float
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = Tape(Path(directory) / "session.vmrec", 4, 3)
        at, whole = 0.0, [(0.0, 0)]
        for pause, colour, parted in pieces:
            begun, at = at, at + pause
            if parted:
                made.show_in_parts(begun, at, colour)
            else:
                made.show(at, colour)
            whole.append((round(at * 1e9) / 1e9, colour))
        seen = list(frames(Replay(made.path), every))
    numbers = [frame.number for frame in seen]
    assert numbers == sorted(set(numbers))
    for frame in seen:
        # Where a multiple falls on an update to the last bit, either is right.
        near = [colour for when, colour in whole if when <= frame.at + 1e-9]
        before = [colour for when, colour in whole if when <= frame.at - 1e-9]
        assert shown(frame) in {near[-1], before[-1] if before else 0}
    assert shown(seen[-1]) == whole[-1][1]


# Files.


def test_png_files(tape: Tapes, tmp_path: Path) -> None:
    made = tape(8, 6)
    made.show(1.0, 0x102030)
    frame, path = frame_at(Replay(made.path)), tmp_path / "frame.png"
    write_png(frame, path, made.path)
    with Image.open(path) as image:
        assert image.size == (8, 6)
        assert image.getpixel((3, 3)) == (0x10, 0x20, 0x30)
    path.write_bytes(b"old")
    with pytest.raises(ResourceError, match="exists"):
        write_png(frame, path, made.path)
    assert path.read_bytes() == b"old"
    write_png(frame, path, made.path, overwrite=True)
    assert path.read_bytes() != b"old"


def test_the_recording_is_not_overwritten(tape: Tapes, tmp_path: Path) -> None:
    made = tape(8, 6)
    made.show(1.0, RED)
    before = made.path.read_bytes()
    link = tmp_path / "link.png"
    link.symlink_to(made.path)
    for path in (made.path, link):
        with pytest.raises(ResourceError, match="is the recording itself"):
            write_png(frame_at(Replay(made.path)), path, made.path, overwrite=True)
    assert made.path.read_bytes() == before


def test_frames_in_a_directory(tape: Tapes, tmp_path: Path) -> None:
    made = tape(8, 6)
    for at, colour in ((0.1, RED), (2.2, GREEN), (7000.25, BLUE)):
        made.show(at, colour)
    room = tmp_path / "frames"
    assert write_frames(Replay(made.path), room, 0.5) == 3
    assert sorted(path.name for path in room.iterdir()) == [
        "00001-000000.500s.png",
        "00002-000002.500s.png",
        "00003-007000.500s.png",
    ]
    with pytest.raises(ResourceError, match="is not empty"):
        write_frames(Replay(made.path), room, 0.5)
    with pytest.raises(ResourceError, match="cannot write"):
        write_frames(Replay(made.path), tmp_path / "no" / "where", 0.5)
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(ResourceError, match="cannot write"):
        write_frames(Replay(made.path), file, 0.5)


def test_nothing_drawn_leaves_no_directory(tape: Tapes, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="nothing is drawn"):
        write_frames(Replay(tape(8, 6).path), tmp_path / "frames", 0.5)
    assert not (tmp_path / "frames").exists()


def test_a_full_disk(tape: Tapes, tmp_path: Path) -> None:
    made = tape(8, 6)
    made.show(1.0, RED)
    full = tmp_path / "full.png"
    full.symlink_to("/dev/full")
    with pytest.raises(ResourceError, match=r"cannot write .*No space left"):
        write_png(frame_at(Replay(made.path)), full, made.path, overwrite=True)
