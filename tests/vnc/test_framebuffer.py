"""The framebuffer, its snapshots and PNG files."""

import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.errors import DeadlineError, ResourceError
from vmconnect.vnc.framebuffer import Framebuffer, Pixels, rgb
from vmconnect.vnc.png import encode_png

from .wire import Script, connected, hello, noise, raw, rectangle, update


def decode_png(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read a PNG of 8-bit RGB rows with filter 0, checking every checksum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    position = 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        body = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        assert checksum == zlib.crc32(kind + body)
        chunks[kind] = body
        position += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
@settings(deadline=None)
def test_png_gives_the_picture_back(width: int, height: int, seed: int) -> None:
    picture = rgb(noise(width, height, seed))
    np.testing.assert_array_equal(decode_png(encode_png(picture)), picture)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (4, 4), (4, 4, 4)])
def test_png_of_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        encode_png(np.zeros(shape, np.uint8))


def test_rgb_leaves_the_top_byte_out() -> None:
    pixels = np.array([[0xFF112233, 0x00AABBCC]], np.uint32)
    assert rgb(pixels).tolist() == [[[0x11, 0x22, 0x33], [0xAA, 0xBB, 0xCC]]]
    surface = np.zeros((1, 4), np.uint32)
    surface[:, :2] = pixels
    assert rgb(surface[:, :2]).tolist() == rgb(pixels).tolist()


def test_a_snapshot_waits_for_the_first_picture() -> None:
    engine = connected(8, 8)
    framebuffer = engine.framebuffer
    with pytest.raises(DeadlineError, match="the screen did not come"):
        framebuffer.snapshot(0.01)
    engine.receive(update(raw(0, 0, noise(8, 8) | np.uint32(0x7F000000))))
    np.testing.assert_array_equal(framebuffer.snapshot(0), noise(8, 8))


def test_a_snapshot_is_never_half_an_update() -> None:
    engine = connected(8, 8)
    framebuffer = engine.framebuffer
    engine.receive(update(raw(0, 0, noise(8, 8, 1))))
    data = update(raw(0, 0, noise(8, 4, 2)), raw(0, 4, noise(8, 4, 2)))
    engine.receive(data[:200])
    with pytest.raises(DeadlineError, match="an update of the screen"):
        framebuffer.snapshot(0.01)
    copies: list[Pixels] = []
    threads = [
        threading.Thread(target=lambda: copies.append(framebuffer.snapshot(30))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    while framebuffer._waiting < 2:
        pass
    # The next update begins in the same breath: who waits gets the state between the two.
    engine.receive(data[200:] + update(raw(0, 0, noise(8, 8, 3)))[:100])
    for thread in threads:
        thread.join()
    for copy in copies:
        np.testing.assert_array_equal(copy[:4], noise(8, 4, 2))
        np.testing.assert_array_equal(copy[4:], noise(8, 4, 2))
    assert len(copies) == 2
    assert not np.shares_memory(copies[0], copies[1])


def test_after_the_end_a_snapshot_is_what_is_there() -> None:
    engine = connected(8, 8)
    engine.receive_end()
    assert not engine.framebuffer.snapshot(0).any()


def test_others_may_own_the_pixels() -> None:
    surface = np.zeros((16, 100), np.uint32)
    framebuffer = Framebuffer(lambda width, height: surface[:height, :width])
    engine_script = Script(connected(8, 8))
    engine_script.engine.framebuffer = framebuffer
    framebuffer.resize(8, 8)
    engine_script.engine.receive(update(raw(0, 0, noise(8, 8))))
    np.testing.assert_array_equal(surface[:8, :8], noise(8, 8))
    engine_script.engine.receive(update(rectangle(0, 0, 9, 9, -223), raw(1, 1, noise(8, 8, 2))))
    np.testing.assert_array_equal(surface[1:9, 1:9], noise(8, 8, 2))
    assert not surface[:, 9:].any()


def test_no_memory() -> None:
    def refuse(_width: int, _height: int) -> Pixels:
        raise MemoryError

    framebuffer = Framebuffer(refuse)
    with pytest.raises(ResourceError, match="no memory for a screen of 4x3"):
        framebuffer.resize(4, 3)


def test_a_screen_that_is_only_claimed_takes_no_memory() -> None:
    engine = connected(8, 8)
    engine.receive(hello(8, 8)[:0] + update(rectangle(0, 0, 16384, 16384, -223)))
    assert engine.framebuffer.pixels.shape == (16384, 16384)
