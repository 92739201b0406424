"""Videos: read back by PyAV, they have the size, the frames and about the pixels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.replay.tape import Tape
from vmconnect.errors import MissingDependencyError, ResourceError, RfbError, UnsupportedError
from vmconnect.replay import Replay, summarize, video, write_video
from vmconnect.replay.video import FORMATS

Tapes = Callable[..., Tape]

COLOURS = {"red": 0xE01020, "green": 0x10D040, "grey": 0x808080, "black": 0}
# What 4:2:0, two roundings and the quantiser make of a flat colour.
TOLERANCE = 10


def make(made: Tape, path: Path, **options: float) -> int:
    return write_video(Replay(made.path), path, summarize(made.path), **options)  # type: ignore[arg-type]


def read(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.color_range == 1
        frames = container.decode(stream)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


def assert_colour(area: NDArray[np.uint8], colour: str) -> None:
    truth = np.array([COLOURS[colour] >> shift & 255 for shift in (16, 8, 0)])
    assert np.abs(area.astype(int) - truth).max() <= TOLERANCE


@pytest.mark.parametrize("suffix", FORMATS)
def test_each_format(tape: Tapes, tmp_path: Path, suffix: str) -> None:
    made = tape(64, 48)
    made.show(0.0, COLOURS["red"])
    made.show(1.0, COLOURS["green"])
    made.show(1.5, COLOURS["grey"])
    made.say(2.0, b"")
    path = tmp_path / f"film{suffix}"
    assert make(made, path, fps=10) == 21
    seen = read(path)
    assert len(seen) == 21
    assert {frame.shape for frame in seen} == {(48, 64, 3)}
    for number, frame in enumerate(seen):
        assert_colour(frame, "red" if number < 10 else "green" if number < 15 else "grey")
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 10


@pytest.mark.parametrize("sizes", [((64, 48), (33, 57)), ((35, 47), (36, 20)), ((1, 1), (42, 34))])
def test_screens_of_several_sizes(
    tape: Tapes, tmp_path: Path, sizes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """Both have room, neither is scaled, and what is round them is black."""
    (first_width, first_height), (width, height) = sizes
    made = tape(first_width, first_height)
    made.show(0.1, COLOURS["red"])
    made.resize(1.0, width, height)
    made.show(1.2, COLOURS["green"])
    made.say(2.0, b"")
    path = tmp_path / "film.mp4"
    assert make(made, path, fps=5) == 11
    seen = read(path)
    room = tuple(max(sides) + max(sides) % 2 for sides in zip(*sizes, strict=True))
    assert {frame.shape for frame in seen} == {(room[1], room[0], 3)}
    assert_colour(seen[0], "black")
    check_middle(seen[3], first_width, first_height, "red")
    check_middle(seen[5], first_width, first_height, "red")
    check_middle(seen[-1], width, height, "green")


def check_middle(frame: NDArray[np.uint8], width: int, height: int, colour: str) -> None:
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    area = frame[top : top + height, left : left + width]
    # Chroma is for two pixels: at the edges it is shared with the black.
    if width > 4 and height > 4:
        assert_colour(area[2:-2, 2:-2], colour)
    rows, columns = np.ones(frame.shape[0], bool), np.ones(frame.shape[1], bool)
    rows[max(0, top - 2) : top + height + 2] = False
    columns[max(0, left - 2) : left + width + 2] = False
    assert_colour(frame[rows], "black") if rows.any() else None
    assert_colour(frame[:, columns], "black") if columns.any() else None


@pytest.mark.parametrize("width", range(34, 50, 2))
def test_no_column_is_left_out(tape: Tapes, tmp_path: Path, width: int) -> None:
    made = tape(width, 34)
    made.show(0.0, COLOURS["red"])
    path = tmp_path / "film.mkv"
    make(made, path)
    assert_colour(read(path)[0], "red")


def test_faster_and_slower(tape: Tapes, tmp_path: Path) -> None:
    made = tape(16, 16)
    made.show(0.5, COLOURS["red"])
    made.say(60.0, b"")
    assert make(made, tmp_path / "fast.mp4", speed=30, fps=10) == 21
    assert make(made, tmp_path / "slow.mp4", speed=0.5, fps=1) == 121
    assert len(read(tmp_path / "fast.mp4")) == 21


def test_of_a_recording_that_is_cut(tape: Tapes, tmp_path: Path) -> None:
    made = tape(16, 16)
    made.show(0.0, COLOURS["red"])
    made.show(1.0, COLOURS["green"])
    made.cut(10)
    replay, path = Replay(made.path), tmp_path / "film.mp4"
    summary = summarize(made.path)
    assert write_video(replay, path, summary, fps=4) == 5
    assert isinstance(replay.trouble, RfbError)
    seen = read(path)
    assert_colour(seen[0], "red")
    assert_colour(seen[-1][:12], "green")


def test_what_cannot_be_written(tape: Tapes, tmp_path: Path) -> None:
    made = tape(16, 16)
    made.show(0.0, COLOURS["red"])
    with pytest.raises(UnsupportedError, match=r"film\.gif is no video's name .*\.mp4, \.mkv"):
        make(made, tmp_path / "film.gif")
    with pytest.raises(ResourceError, match="cannot write"):
        make(made, tmp_path / "no" / "film.mp4")
    old = tmp_path / "old.mp4"
    old.write_bytes(b"old")
    with pytest.raises(ResourceError, match="exists"):
        make(made, old)
    assert old.read_bytes() == b"old"
    for suffix in FORMATS:
        full = tmp_path / f"full{suffix}"
        full.symlink_to("/dev/full")
        with pytest.raises(ResourceError, match=r"cannot write .*No space left"):
            make(made, full, overwrite=True)
    made.path.rename(tmp_path / "session.mp4")
    made.path = tmp_path / "session.mp4"
    with pytest.raises(ResourceError, match="is the recording itself"):
        make(made, made.path, overwrite=True)


def test_what_would_be_too_large(
    tape: Tapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tape(16, 16)
    made.show(0.0, COLOURS["red"])
    made.say(300 * 86400.0, b"")
    with pytest.raises(ResourceError, match="more than 10000000 frames"):
        make(made, tmp_path / "long.mp4")
    monkeypatch.setattr(video, "MAX_PIXELS", 255)
    with pytest.raises(ResourceError, match="no video has frames of 16x16"):
        make(made, tmp_path / "large.mp4")
    assert not list(tmp_path.glob("*.mp4"))


def test_nothing_is_left_of_one_that_fails(
    tape: Tapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tape(16, 16)
    made.show(0.0, COLOURS["red"])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vmconnect.replay.video.frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(made, tmp_path / "film.mp4")
    assert not (tmp_path / "film.mp4").exists()


def test_of_nothing(tape: Tapes, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="nothing is drawn"):
        make(tape(16, 16), tmp_path / "film.mp4")
    assert not (tmp_path / "film.mp4").exists()


def test_without_pyav(tape: Tapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV is hidden: the package cannot be installed and not."""
    made = tape(16, 16)
    made.show(0.0, COLOURS["red"])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vmconnect\[video\]'"):
        make(made, tmp_path / "film.mp4")
