"""Baseline JPEGs by our own decoder, compared with libjpeg-turbo to the last bit."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vmconnect.vnc._kernel import JpegDecoder

WAYS = {"one by one": 0, "in vectors": 1, "in pairs": 2}
SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}

Picture = NDArray[np.uint8]


def picture(width: int, height: int, seed: int = 1) -> Picture:
    """Return something smooth, something flat, and noise of full range."""
    chance = np.random.default_rng(seed)
    made = np.zeros((height, width, 3), np.uint8)
    made[:] = (40, 200, 90)
    made[height // 3 :, :, 0] = np.linspace(0, 255, width, dtype=np.uint8)
    made[:, width // 3 :, 2] = np.linspace(255, 0, height, dtype=np.uint8)[:, None]
    part = made[height // 2 :, width // 2 :]
    part[:] = chance.integers(0, 2, part.shape) * 255
    return made


def encoded(image: Picture, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def truth(data: bytes, swapped: bool) -> NDArray[np.uint32]:
    words = simplejpeg.decode_jpeg(data, "RGBX" if swapped else "BGRX").view(np.uint32)
    return np.asarray(words[:, :, 0] & np.uint32(0xFFFFFF))


def decoded(data: bytes, swapped: bool, how: int) -> NDArray[np.uint32]:
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    surface = np.full((height + 2, width + 2), 0xDEADBEEF, np.uint32)
    assert JpegDecoder().decode(data, surface[1:-1, 1:-1], swapped, how)
    around = np.ones(surface.shape, bool)
    around[1:-1, 1:-1] = False
    assert (surface[around] == 0xDEADBEEF).all()
    return surface[1:-1, 1:-1]


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS.values(), ids=SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [1, 30, 80, 95, 100])
def test_it_is_libjpeg_turbo_s(how: int, subsampling: int, quality: int) -> None:
    for width, height in [(64, 48), (1, 90), (90, 1), (17, 33), (5, 4), (3, 3), (16, 16), (200, 9)]:
        data = encoded(picture(width, height), quality=quality, subsampling=subsampling)
        for swapped in (False, True):
            np.testing.assert_array_equal(decoded(data, swapped, how), truth(data, swapped))


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "options", [{"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"optimize": True}]
)
def test_restarts_and_tables_of_its_own(how: int, options: dict[str, Any]) -> None:
    for subsampling in SUBSAMPLINGS.values():
        data = encoded(picture(130, 50), quality=90, subsampling=subsampling, **options)
        np.testing.assert_array_equal(decoded(data, True, how), truth(data, True))


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_grey(how: int) -> None:
    for width, height in [(64, 48), (1, 1), (9, 17)]:
        data = encoded(picture(width, height), "L", quality=85)
        np.testing.assert_array_equal(decoded(data, False, how), truth(data, False))


def test_one_decoder_for_many() -> None:
    """Tables are kept from one to the next, but only where the next has defined the same."""
    decoder = JpegDecoder()
    for quality in (80, 80, 20, 80):
        for optimize in (False, True):
            data = encoded(picture(40, 30), quality=quality, optimize=optimize)
            words = np.empty((30, 40), np.uint32)
            assert decoder.decode(data, words, True)
            np.testing.assert_array_equal(words, truth(data, True))
    start = data.index(b"\xff\xc4")
    (length,) = struct.unpack_from(">H", data, start + 2)
    lacking = data[:start] + data[start + 2 + length :]
    assert not decoder.decode(lacking, words, True)


@pytest.mark.parametrize(
    "data",
    [
        encoded(picture(20, 10), progressive=True),
        encoded(picture(20, 10), "CMYK"),
        encoded(picture(20, 11)),
        encoded(picture(21, 10)),
        encoded(picture(20, 10), keep_rgb=True),
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
    ],
    ids=["progressive", "four colours", "high", "wide", "RGB", "empty", "start", "nothing in it"],
)
def test_what_is_left_to_others(data: bytes) -> None:
    assert not JpegDecoder().decode(data, np.zeros((10, 20), np.uint32), True)


def test_what_is_cut_short() -> None:
    for subsampling in SUBSAMPLINGS.values():
        data = encoded(picture(20, 10), subsampling=subsampling, restart_marker_blocks=2)
        words = np.zeros((10, 20), np.uint32)
        assert JpegDecoder().decode(data, words, True)
        for length in range(len(data) - 1):
            assert not JpegDecoder().decode(data[:length], words, True)


_WHOLE = [
    encoded(picture(20, 10), quality=quality, subsampling=subsampling, restart_marker_blocks=blocks)
    for quality in (20, 95)
    for subsampling in SUBSAMPLINGS.values()
    for blocks in (0, 3)
]


@given(
    st.sampled_from(_WHOLE),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_what_is_broken(data: bytes, changes: list[tuple[int, int]]) -> None:
    """It is refused or drawn, in every way alike, and nothing else is touched."""
    broken = bytearray(data)
    for place, value in changes:
        broken[place % len(broken)] = value
    surface = np.full((3, 12, 22), 0xDEADBEEF, np.uint32)
    decoder = JpegDecoder()
    done = {decoder.decode(bytes(broken), surface[how, 1:-1, 1:-1], True, how) for how in range(3)}
    assert len(done) == 1
    around = np.ones(surface.shape, bool)
    around[:, 1:-1, 1:-1] = False
    assert (surface[around] == 0xDEADBEEF).all()


def test_what_its_caller_may_not_ask() -> None:
    data = encoded(picture(20, 10))
    words = np.zeros((20, 40), np.uint32)
    with pytest.raises(ValueError, match="contiguous"):
        JpegDecoder().decode(data, words[:10, ::2], True)
    with pytest.raises(ValueError, match="how"):
        JpegDecoder().decode(data, words[:10, :20], True, 3)
    assert not JpegDecoder().decode(data, words[:0], True)
