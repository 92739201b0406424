"""Open H.264: no server here sends it without a GPU, so the tests are the server, by x264."""

from __future__ import annotations

import importlib.metadata
import random
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vmconnect.errors import ClosedError, MissingDependencyError, RfbError
from vmconnect.vnc import h264_streams, video_library
from vmconnect.vnc.encodings import ENCODINGS, OFFERED
from vmconnect.vnc.encodings.h264 import MAX_H264_BYTES
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Damage, UpdateDone
from vmconnect.vnc.h264_streams import MAX_FRAMES, MAX_STREAMS, MAX_UNITS, split_frames
from vmconnect.vnc.preference import Choice, Preference

from .h264_writer import (
    ENCODING,
    FULL,
    LIMITED,
    RESET,
    RESET_ALL,
    H264Writer,
    h264,
    parameters_of,
    picture,
)
from .wire import connected, feed, hello, long, raw, rectangle, update
from .writer import FORMATS

WIDTH, HEIGHT = 160, 96
Picture = NDArray[np.uint8]

# What 4:2:0 and the quantiser make of a smooth picture, on average and at the edges of its box.
MEAN, WORST = 3.0, 130


def shown(
    engine: Engine, x: int = 0, y: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> Picture:
    return engine.framebuffer.rgb()[y : y + size[1], x : x + size[0]]


def assert_like(seen: Picture, truth: Picture, mean: float = MEAN, worst: int = WORST) -> None:
    difference = np.abs(seen.astype(int) - truth)
    assert difference.mean() <= mean
    assert difference.max() <= worst


def unlike(seen: Picture, other: Picture) -> bool:
    return bool(np.abs(seen.astype(int) - other).mean() > 2 * MEAN)


def test_a_stream_goes_on() -> None:
    engine = connected(WIDTH, HEIGHT)
    writer = H264Writer(WIDTH, HEIGHT, profile="baseline")
    for seed in range(6):
        truth = picture(WIDTH, HEIGHT, seed)
        events = engine.receive(update(h264(0, 0, WIDTH, HEIGHT, writer.encode(truth))))
        assert events == [UpdateDone((Damage(0, 0, WIDTH, HEIGHT),), 1, seed + 1)]
        assert_like(shown(engine), truth)
        assert unlike(shown(engine), picture(WIDTH, HEIGHT, seed + 1))


@given(st.lists(st.integers(0, 100_000), max_size=12))
def test_bytes_may_be_cut_anywhere(cuts: list[int]) -> None:
    said = _INTERLEAVED
    engine = connected(WIDTH, HEIGHT)
    feed(engine, said, cuts)
    np.testing.assert_array_equal(engine.framebuffer.pixels, _interleaved_screen())


PLACES = [(0, 0, 64, 48), (64, 0, 96, 48), (32, 48, 64, 32), (0, 0, 64, 32)]


def _interleaved() -> bytes:
    writers = [H264Writer(width, height) for _, _, width, height in PLACES]
    said = b""
    for seed in range(3):
        rectangles = [
            h264(*place, writer.encode(picture(*place[2:], seed + i)))
            for i, (place, writer) in enumerate(zip(PLACES, writers, strict=True))
        ]
        said += update(*rectangles, raw(100, 60, np.full((4, 5), 0x102030, np.uint32)))
    return said


_INTERLEAVED = _interleaved()


def _interleaved_screen() -> NDArray[np.uint32]:
    engine = connected(WIDTH, HEIGHT)
    engine.receive(_INTERLEAVED)
    return engine.framebuffer.pixels


def test_each_rectangle_has_a_stream_of_its_own() -> None:
    """The last one overlaps the first, which goes on from its own picture, not the screen's."""
    engine = connected(WIDTH, HEIGHT)
    engine.receive(_INTERLEAVED)
    assert len(engine.h264_streams) == len(PLACES)
    for i, (x, y, width, height) in list(enumerate(PLACES))[1:]:
        assert_like(shown(engine, x, y, (width, height)), picture(width, height, 2 + i))
    assert_like(shown(engine, 0, 32, (64, 16)), picture(64, 48, 2)[32:])
    assert (shown(engine, 100, 60, (5, 4)) == (0x10, 0x20, 0x30)).all()
    assert not shown(engine, 96, 49, (4, 4)).any()


def test_several_frames_at_once() -> None:
    engine = connected(WIDTH, HEIGHT)
    writer = H264Writer(WIDTH, HEIGHT, x264opts="slices=4")
    frames = [writer.encode(picture(WIDTH, HEIGHT, seed)) for seed in range(5)]
    engine.receive(update(h264(0, 0, WIDTH, HEIGHT, b"".join(frames))))
    assert engine.framebuffer.generation == 1
    assert_like(shown(engine), picture(WIDTH, HEIGHT, 4))


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("counts", [(1,), (2, 1), (5,)])
def test_frames_are_told_apart(slices: int, counts: tuple[int, ...]) -> None:
    writer = H264Writer(WIDTH, HEIGHT, x264opts=f"slices={slices}:keyint=3:aud=1")
    for count in counts:
        frames = [writer.encode(picture(WIDTH, HEIGHT, seed)) for seed in range(count)]
        parts = split_frames(b"".join(frames))
        assert [part.data.strip(b"\0") for part in parts] == [
            frame.strip(b"\0") for frame in frames
        ]
        assert all(part.has_slices for part in parts)


@pytest.mark.parametrize("form", FORMATS)
def test_pixel_formats(form: str) -> None:
    engine = Engine(pixel_format=FORMATS[form])
    engine.receive(hello(WIDTH, HEIGHT))
    truth = picture(WIDTH, HEIGHT, 3)
    engine.receive(update(h264(0, 0, WIDTH, HEIGHT, H264Writer(WIDTH, HEIGHT).encode(truth))))
    assert_like(shown(engine), truth)


COLOURS = {
    "not signalled": None,
    "BT.709": (1, LIMITED),
    "BT.709 in full": (1, FULL),
    "BT.601": (5, LIMITED),
    "BT.601 in full": (6, FULL),
    "BT.2020": (9, LIMITED),
}


@pytest.mark.parametrize("colours", COLOURS.values(), ids=COLOURS)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
def test_colours_are_read_as_they_are_signalled(
    colours: tuple[int, int] | None, pixel_format: str
) -> None:
    for colour in [(255, 0, 0), (0, 200, 0), (20, 40, 250), (255, 255, 255), (0, 0, 0), (90,) * 3]:
        engine = connected(32, 32)
        truth = np.full((32, 32, 3), colour, np.uint8)
        writer = H264Writer(32, 32, pixel_format=pixel_format, colours=colours, qp="1")
        engine.receive(update(h264(0, 0, 32, 32, writer.encode(truth))))
        assert_like(shown(engine), truth, mean=3, worst=4)


@pytest.mark.parametrize("pixel_format", ["yuv422p", "yuv420p10le"])
def test_other_pixels_than_the_baseline_s(pixel_format: str) -> None:
    engine = connected(WIDTH, HEIGHT)
    truth = picture(WIDTH, HEIGHT)
    writer = H264Writer(WIDTH, HEIGHT, pixel_format=pixel_format)
    engine.receive(update(h264(0, 0, WIDTH, HEIGHT, writer.encode(truth))))
    assert_like(shown(engine), truth)


def test_rgb_without_losses() -> None:
    engine = connected(WIDTH, HEIGHT)
    truth = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    writer = H264Writer(WIDTH, HEIGHT, encoder="libx264rgb", pixel_format="rgb24", qp="0")
    engine.receive(update(h264(0, 0, WIDTH, HEIGHT, writer.encode(truth))))
    np.testing.assert_array_equal(shown(engine), truth)


# What begins anew, what waits for its beginning, what goes.


def test_a_stream_begins_anew() -> None:
    """After a reset the old stream's next frame is not shown, and a new one's first is."""
    for flags in (RESET, RESET_ALL, RESET | RESET_ALL, RESET | 0xFFFFFF00):
        engine = connected(WIDTH, HEIGHT)
        before = H264Writer(WIDTH, HEIGHT)
        engine.receive(update(h264(0, 0, WIDTH, HEIGHT, before.encode(picture(WIDTH, HEIGHT)))))
        stale = before.encode(picture(WIDTH, HEIGHT, 1))
        assert engine.receive(update(h264(0, 0, WIDTH, HEIGHT, stale, flags))) == []
        assert_like(shown(engine), picture(WIDTH, HEIGHT))
        after = H264Writer(WIDTH, HEIGHT).encode(picture(WIDTH, HEIGHT, 2))
        engine.receive(update(h264(0, 0, WIDTH, HEIGHT, after)))
        assert_like(shown(engine), picture(WIDTH, HEIGHT, 2))


def test_resets_without_data() -> None:
    engine = connected(WIDTH, HEIGHT)
    for x in (0, 64):
        frame = H264Writer(32, 32).encode(picture(32, 32))
        engine.receive(update(h264(x, 0, 32, 32, frame)))
    assert len(engine.h264_streams) == 2
    assert engine.receive(update(h264(0, 0, 32, 32, b""))) == []
    assert len(engine.h264_streams) == 2
    assert engine.receive(update(h264(0, 0, 32, 32, b"", RESET))) == []
    assert len(engine.h264_streams) == 1
    assert engine.receive(update(h264(9, 9, 9, 9, b"", RESET_ALL))) == []
    assert len(engine.h264_streams) == 0


def test_the_flags_that_are_unknown_mean_nothing() -> None:
    engine = connected(WIDTH, HEIGHT)
    writer = H264Writer(WIDTH, HEIGHT)
    for seed in range(3):
        frame = writer.encode(picture(WIDTH, HEIGHT, seed))
        engine.receive(update(h264(0, 0, WIDTH, HEIGHT, frame, 0xFFFFFFFC)))
        assert_like(shown(engine), picture(WIDTH, HEIGHT, seed))


def test_the_stream_without_news_for_longest_goes() -> None:
    engine = connected(16 * (MAX_STREAMS + 1), 16)
    writers = [H264Writer(16, 16) for _ in range(MAX_STREAMS + 1)]

    def frame(number: int, seed: int) -> bytes:
        data = writers[number].encode(picture(16, 16, seed))
        return update(h264(16 * number, 0, 16, 16, data))

    for number in range(MAX_STREAMS):
        engine.receive(frame(number, 0))
    engine.receive(frame(0, 1))  # So the second is the oldest now.
    engine.receive(frame(MAX_STREAMS, 0))
    assert len(engine.h264_streams) == MAX_STREAMS
    assert engine.receive(frame(1, 1)) == []
    assert engine.receive(frame(0, 2)) != []


def test_streams_are_bounded_by_their_pixels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h264_streams, "MAX_STREAM_PIXELS", 3 * 32 * 32)
    engine = connected(WIDTH, HEIGHT)
    for x in range(4):
        frame = H264Writer(32, 32).encode(picture(32, 32))
        engine.receive(update(h264(32 * x, 0, 32, 32, frame)))
    assert len(engine.h264_streams) == 3
    with pytest.raises(RfbError, match="more than 3072 pixels"):
        engine.receive(update(h264(0, 0, 64, 64, b"\0\0\1")))


def test_parameters_may_come_before_the_picture() -> None:
    engine = connected(WIDTH, HEIGHT)
    truth = picture(WIDTH, HEIGHT)
    parameters, slices = parameters_of(H264Writer(WIDTH, HEIGHT).encode(truth))
    assert engine.receive(update(h264(0, 0, WIDTH, HEIGHT, parameters))) == []
    engine.receive(update(h264(0, 0, WIDTH, HEIGHT, slices)))
    assert_like(shown(engine), truth)


def test_an_encoder_with_a_delay() -> None:
    """It is against rfbproto, which wants the baseline profile: pictures come late, all but two."""
    engine = connected(WIDTH, HEIGHT)
    writer = H264Writer(WIDTH, HEIGHT, preset="medium", tune="psnr", bf="2")
    frames = [writer.encode(picture(WIDTH, HEIGHT, seed)) for seed in range(12)] + [writer.end()]
    for frame in filter(None, frames):
        engine.receive(update(h264(0, 0, WIDTH, HEIGHT, frame)))
    last = [np.abs(shown(engine) - picture(WIDTH, HEIGHT, s).astype(int)).mean() for s in range(12)]
    assert int(np.argmin(last)) in range(8, 12)


# Sizes.


def test_a_larger_picture_is_cut() -> None:
    truth = picture(WIDTH, HEIGHT)
    engine = connected(WIDTH, HEIGHT)
    frame = H264Writer(WIDTH, HEIGHT).encode(truth)
    engine.receive(update(h264(10, 6, 75, 33, frame)))
    assert_like(shown(engine, 10, 6, (75, 33)), truth[:33, :75])
    assert not shown(engine)[:, 85:].any()
    assert not shown(engine)[39:].any()


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT - 2), (WIDTH - 2, HEIGHT), (16, 16)])
def test_a_smaller_picture_is_not_shown(size: tuple[int, int]) -> None:
    engine = connected(WIDTH, HEIGHT)
    frame = H264Writer(*size).encode(picture(*size))
    assert engine.receive(update(h264(0, 0, WIDTH, HEIGHT, frame))) == []
    assert not engine.framebuffer.pixels.any()


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (17, 16)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    width, height = size
    engine = connected(WIDTH, HEIGHT)
    truth = picture(32, 32)
    engine.receive(update(h264(5, 5, width, height, H264Writer(32, 32).encode(truth))))
    assert_like(shown(engine, 5, 5, size), truth[:height, :width], mean=5)
    assert not shown(engine)[:5].any()
    assert not shown(engine)[5 + height :].any()


@pytest.mark.parametrize("width", [*range(32, 50, 2), 1050])
@pytest.mark.parametrize("height", [32, 34])
def test_no_column_is_left_out(width: int, height: int) -> None:
    engine = connected(width, height)
    engine.framebuffer.pixels[:] = 0xFFFFFF
    truth = np.full((height, width, 3), (40, 90, 60), np.uint8)
    for _ in range(3):
        data = H264Writer(width, height).encode(truth)
        engine.receive(update(h264(0, 0, width, height, data)))
        assert_like(shown(engine, 0, 0, (width, height)), truth, worst=4)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_a_rectangle_without_pixels(size: tuple[int, int]) -> None:
    engine = connected(WIDTH, HEIGHT)
    frame = H264Writer(32, 32).encode(picture(32, 32))
    assert engine.receive(update(h264(5, 5, *size, frame))) == []
    assert not engine.framebuffer.pixels.any()


def test_a_huge_picture_gets_no_memory() -> None:
    """A picture of 4096x4096 for a rectangle of 16x16: refused by its parameters alone."""
    frame = H264Writer(4096, 4096).encode(np.zeros((4096, 4096, 3), np.uint8))
    refused(h264(3, 4, 16, 16, frame), r"a rectangle 16x16 at 3,4 \(H264\): .*larger than it")


# What is wrong.

WHOLE = H264Writer(WIDTH, HEIGHT).encode(picture(WIDTH, HEIGHT))


def refused(said: bytes, words: str) -> None:
    engine = connected(WIDTH, HEIGHT)
    with pytest.raises(RfbError, match=words) as caught:
        engine.receive(update(said))
    assert caught.value.offset is not None


@pytest.mark.parametrize("data", [b"x", b"garbage" * 100, b"\0\0\2" + WHOLE, WHOLE[2:], bytes(64)])
def test_garbage(data: bytes) -> None:
    refused(h264(0, 0, WIDTH, HEIGHT, data), "FramebufferUpdate: a rectangle .*it is no H.264")


def test_a_picture_that_is_broken() -> None:
    parameters, slices = parameters_of(WHOLE)
    for broken in (slices[:5], slices[:4] + b"\xff" * 40, slices[:-1][:6]):
        refused(h264(0, 0, WIDTH, HEIGHT, parameters + broken), "its H.264 is broken")


def test_too_much_at_once() -> None:
    refused(rectangle(0, 0, 8, 8, ENCODING, long(MAX_H264_BYTES + 1) + long(0)), "bytes of H.264")
    refused(h264(0, 0, WIDTH, HEIGHT, b"\0\0\1" * (MAX_UNITS + 1)), "NAL units at once")
    writer = H264Writer(16, 16)
    many = b"".join(writer.encode(picture(16, 16)) for _ in range(MAX_FRAMES + 1))
    refused(h264(0, 0, 16, 16, many), "65 frames at once")


def test_it_lies_in_the_screen() -> None:
    refused(h264(1, 0, WIDTH, HEIGHT, WHOLE), "outside the 160x96 screen")


def test_a_length_is_believed_when_the_bytes_have_come() -> None:
    engine = connected(WIDTH, HEIGHT)
    tracemalloc.start()
    head = long(MAX_H264_BYTES) + long(0)
    engine.receive(update(rectangle(0, 0, 8, 8, ENCODING, head)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * MAX_H264_BYTES
    assert "closed the connection" in str(engine.receive_end())


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=9),
    st.integers(0, 4000),
)
def test_what_is_broken_breaks_nothing_else(changes: list[tuple[int, int]], end: int) -> None:
    broken = bytearray(WHOLE[: max(40, end)])
    for place, value in changes:
        broken[place % len(broken)] = value
    engine = connected(WIDTH + 8, HEIGHT + 8)
    said = update(h264(4, 4, WIDTH, HEIGHT, bytes(broken)))
    try:
        engine.receive(said)
        engine.receive(update(h264(4, 4, WIDTH, HEIGHT, WHOLE, RESET)))
    except RfbError as error:
        assert error.offset is not None
    else:
        assert_like(shown(engine, 4, 4), picture(WIDTH, HEIGHT))
    around = np.ones((HEIGHT + 8, WIDTH + 8), bool)
    around[4:-4, 4:-4] = False
    assert not engine.framebuffer.pixels[around].any()


def test_a_console_that_is_closed_decodes_no_more() -> None:
    engine = connected(WIDTH, HEIGHT)
    said = update(h264(0, 0, WIDTH, HEIGHT, WHOLE))
    engine.receive(said[:-1])
    engine.cancel()
    with pytest.raises(ClosedError):
        engine.receive(said[-1:])


# What is asked for.


def test_it_is_offered_where_losses_are_allowed() -> None:
    assert ENCODING in ENCODINGS
    assert ENCODING not in OFFERED
    assert ENCODING not in Choice(7).numbers
    assert Choice(7, 6).numbers[:3] == (1, 7, ENCODING)
    chosen = Preference("h264").applied(Choice(7)).numbers
    assert chosen[:2] == (1, ENCODING)
    assert chosen.count(ENCODING) == 1
    assert Preference("h264").applied(Choice(7, 3, 9)).numbers.count(ENCODING) == 1


@pytest.mark.parametrize("version", [None, "17.1.0", "unknown"])
def test_without_pyav(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """PyAV is hidden, or said to be old: the package cannot be installed and not."""

    def installed(name: str) -> str:
        assert name == "av"
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr("importlib.metadata.version", installed)
    video_library.is_installed.cache_clear()
    try:
        assert ENCODING not in Choice(7, 6).numbers
        with pytest.raises(MissingDependencyError, match=r"pip install 'vmconnect\[video\]'"):
            Preference("h264")
        engine = connected(WIDTH, HEIGHT)
        with pytest.raises(MissingDependencyError, match=r"a screen in H\.264 needs PyAV 18"):
            engine.receive(update(h264(0, 0, WIDTH, HEIGHT, WHOLE)))
    finally:
        video_library.is_installed.cache_clear()


def test_pyav_is_imported_when_it_is_needed() -> None:
    code = "import sys, vmconnect.vnc.console; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_decoding_is_the_same_every_time() -> None:
    chance = random.Random(3)
    broken = bytearray(WHOLE)
    for _ in range(30):
        broken[chance.randrange(60, len(broken))] = chance.randrange(256)
    screens = []
    for _ in range(3):
        engine = connected(WIDTH, HEIGHT)
        engine.receive(update(h264(0, 0, WIDTH, HEIGHT, bytes(broken))))
        screens.append(engine.framebuffer.pixels.copy())
    for screen in screens[1:]:
        np.testing.assert_array_equal(screen, screens[0])
