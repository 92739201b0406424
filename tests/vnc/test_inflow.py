"""Large rectangles of zlib data, which are drawn as they come."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest

from vmconnect.errors import ClosedError, RfbError
from vmconnect.vnc import _kernel
from vmconnect.vnc.encodings.inflow import LARGE_BYTES
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.inflate import PIECE_BYTES
from vmconnect.vnc.jobs import LARGE_INFLATED
from vmconnect.vnc.numpy_kernel import NumpyKernel
from vmconnect.vnc.walk import Kernel

from .reference import Bytes, Reference
from .wire import feed, hello, long, rectangle, update
from .writer import FORMATS, Writer, colour_map

WIDTH, HEIGHT = 640, 560

KERNELS: dict[str, Kernel] = {"compiled": _kernel, "numpy": NumpyKernel()}


@pytest.mark.parametrize("cut", [None, 70_001, 977])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("form", ["ours", "565 big", "map"])
@pytest.mark.parametrize("encoding", ["zlib", "zrle"])
def test_they_are_as_the_plain_decoder_has_them(
    encoding: str, form: str, kernel: str, cut: int | None
) -> None:
    chance = random.Random(f"{encoding} {form}")
    writer = Writer(chance, FORMATS[form], WIDTH, HEIGHT)
    write = getattr(writer, encoding)
    # Small ones of the same stream before and behind it.
    rectangles = [write(3, 5, 40, 30), write(0, 0, WIDTH, HEIGHT), write(9, 9, 70, 80)]
    assert len(rectangles[1]) > LARGE_BYTES
    message, colours = colour_map(random.Random(1))
    reference = Reference(WIDTH, HEIGHT, FORMATS[form], colours)
    for one in rectangles:
        reference.rectangle(Bytes(one))
    engine = Engine(pixel_format=FORMATS[form], kernel=KERNELS[kernel])
    engine.receive(hello(WIDTH, HEIGHT))
    data = message + update(*rectangles)
    feed(engine, data, range(cut, len(data), cut) if cut else [])
    expected = np.array(reference.screen, np.uint8).reshape(HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(engine.framebuffer.rgb(), expected)


def connected(kernel: str) -> Engine:
    engine = Engine(kernel=KERNELS[kernel])
    engine.receive(hello(WIDTH, HEIGHT))
    engine.data_to_send()
    return engine


def large(encoding: int, data: bytes) -> bytes:
    return update(rectangle(0, 0, WIDTH, HEIGHT, encoding, long(len(data)) + data))


def compressed(data: bytes) -> bytes:
    stream = zlib.compressobj(1)
    return stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)


NOISE = random.Random(3).randbytes(64 * 64 * 3)
RAW = b"\0" + NOISE
SHORT_RAW = b"\0" + NOISE[: 64 * 48 * 3]
# The last row of tiles has 48 pixels of height.
SCREEN = RAW * 80 + SHORT_RAW * 10


@pytest.mark.parametrize("cut", [None, 5_003])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("encoding", "plain", "told"),
    [
        (16, SCREEN[:-1], "its data end too soon"),
        (16, SCREEN + b"x", "its data go on past its end"),
        (16, SCREEN + bytes(LARGE_INFLATED), "it inflates to more than it should"),
        (16, RAW * 3 + b"\x81" + SCREEN, "a tile of it is of a kind that does not exist"),
        (16, RAW * 3 + b"\x82" + bytes(6) + b"\x7f" + SCREEN, "a colour is not in its palette"),
        (6, bytes(WIDTH * HEIGHT * 4 - 1), "its data end too soon"),
        (6, bytes(WIDTH * HEIGHT * 4 + PIECE_BYTES), "it inflates to more than it should"),
    ],
)
def test_what_is_wrong_is_told(
    encoding: int, plain: bytes, told: str, kernel: str, cut: int | None
) -> None:
    engine = connected(kernel)
    header = engine.inbox.offset + 4
    data = large(encoding, compressed(plain))
    where = rf"FramebufferUpdate: a rectangle {WIDTH}x{HEIGHT} at 0,0 \(.*\): "
    with pytest.raises(RfbError, match=where + told) as caught:
        feed(engine, data, range(cut, len(data), cut) if cut else [])
    assert caught.value.offset == header


def test_a_broken_stream_is_told_when_it_breaks() -> None:
    engine = connected("compiled")
    data = large(6, compressed(random.Random(4).randbytes(LARGE_INFLATED)))
    data = data[:300_000] + b"\xff" * (len(data) - 300_000)
    with pytest.raises(RfbError, match="its zlib stream is broken"):
        engine.receive(data[:500_000])


def test_rows_are_drawn_before_all_has_come() -> None:
    engine = connected("compiled")
    picture = np.random.default_rng(5).integers(0, 1 << 24, (HEIGHT, WIDTH), np.uint32)
    data = large(6, compressed(picture.tobytes()))
    engine.receive(data[: len(data) // 2])
    drawn = (engine.framebuffer.pixels == picture).all(axis=1)
    assert drawn[: HEIGHT // 3].all()
    assert not drawn[-1]
    # All that has come is inflated: no more waits than a piece.
    assert engine.inbox.available < LARGE_BYTES
    engine.receive(data[len(data) // 2 :])
    assert (engine.framebuffer.pixels == picture).all()


def test_a_console_that_is_closed_ends_it() -> None:
    engine = connected("compiled")
    data = large(6, compressed(random.Random(6).randbytes(WIDTH * HEIGHT * 4)))
    engine.receive(data[:200_000])
    engine.cancel()
    with pytest.raises(ClosedError):
        engine.receive(data[200_000:])
