"""Every encoding in every pixel format, against the plain decoder in `reference`."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vmconnect.errors import RfbError, VmconnectError
from vmconnect.vnc import _kernel
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.numpy_kernel import NumpyKernel
from vmconnect.vnc.walk import Kernel

from .reference import Bytes, Reference
from .wire import feed, hello, update
from .writer import FORMATS, Writer, colour_map

WIDTH, HEIGHT = 150, 90

KERNELS: dict[str, Kernel] = {"compiled": _kernel, "numpy": NumpyKernel()}


def connected(form: str, kernel: str, threads: int = 1) -> Engine:
    engine = Engine(pixel_format=FORMATS[form], kernel=KERNELS[kernel], threads=threads)
    engine.receive(hello(WIDTH, HEIGHT))
    return engine


def expected(reference: Reference) -> NDArray[np.uint8]:
    return np.array(reference.screen, np.uint8).reshape(HEIGHT, WIDTH, 3)


def check(writer: Writer, rectangles: list[bytes], engine: Engine, cuts: list[int]) -> None:
    """Decode an update by the engine and by the reference and compare."""
    chance = random.Random(1)
    message, colours = colour_map(chance)
    reference = Reference(WIDTH, HEIGHT, writer.form, colours)
    for one in rectangles:
        source = Bytes(one)
        reference.rectangle(source)
        assert source.done()
    feed(engine, message + update(*rectangles), cuts)
    assert engine.inbox.available == 0
    assert engine.rectangles_left == 0
    np.testing.assert_array_equal(engine.framebuffer.rgb(), expected(reference))
    engine.receive_end()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "encoding",
    ["raw", "copyrect", "rre", "corre", "hextile", "zlib", "tight", "trle", "zrle"],
)
def test_encoding(encoding: str, form: str, kernel: str) -> None:
    chance = random.Random(f"{encoding} {form}")
    writer = Writer(chance, FORMATS[form], WIDTH, HEIGHT)
    rectangles = [writer.raw(0, 0, WIDTH, HEIGHT)]
    rectangles += [getattr(writer, encoding)(*writer.place()) for _ in range(14)]
    check(writer, rectangles, connected(form, kernel), [])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("form", ["ours", "rgb", "grb"])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_zywrle(level: int, form: str, kernel: str) -> None:
    chance = random.Random(level)
    writer = Writer(chance, FORMATS[form], WIDTH, HEIGHT)
    places = [(0, 0, WIDTH, HEIGHT), (1, 1, 5, 3), *(writer.place() for _ in range(6))]
    rectangles = [(writer.zywrle if level else writer.zrle)(*place) for place in places]
    reference = Reference(WIDTH, HEIGHT, writer.form)
    reference.level = level
    engine = connected(form, kernel)
    engine.walk.wavelet_level = level
    for one in rectangles:
        reference.rectangle(Bytes(one))
        engine.receive(update(one))
        np.testing.assert_array_equal(engine.framebuffer.rgb(), expected(reference))


@given(
    st.integers(0, 1 << 64),
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from(["compiled", "compiled", "numpy"]),
    st.lists(st.integers(0, 1 << 30), max_size=12),
    st.sampled_from([1, 2, 3]),
)
@settings(deadline=None, max_examples=50)
def test_mixed_and_cut_anywhere(
    seed: int, form: str, kernel: str, cuts: list[int], threads: int
) -> None:
    writer = Writer(random.Random(seed), FORMATS[form], WIDTH, HEIGHT)
    rectangles = [writer.rectangles(1) for _ in range(12)]
    check(writer, rectangles, connected(form, kernel, threads), cuts)


@given(
    st.integers(0, 1 << 64),
    st.sampled_from(["ours", "ours", "10 bits", "565", "map"]),
    st.sampled_from(["compiled", "compiled", "numpy"]),
    st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=8),
    st.lists(st.integers(0, 1 << 30), max_size=3),
    st.sampled_from([1, 2]),
)
@settings(deadline=None, max_examples=200)
def test_garbage_raises_only_our_errors(  # noqa: PLR0917
    seed: int,
    form: str,
    kernel: str,
    flips: list[tuple[int, int]],
    cuts: list[int],
    threads: int,
) -> None:
    writer = Writer(random.Random(seed), FORMATS[form], WIDTH, HEIGHT)
    writer.encodings += [writer.tight_jpeg, writer.tight_png, writer.zywrle]
    writer.place = lambda: (3, 5, 70, 40)  # type: ignore[method-assign]
    data = bytearray(update(*(writer.rectangles(1) for _ in range(6))))
    for place, value in flips:
        data[place % len(data)] = value
    engine = connected(form, kernel, threads)
    engine.walk.wavelet_level = 2
    try:
        feed(engine, bytes(data), cuts)
    except RfbError as error:
        assert error.offset is not None
    except VmconnectError:
        pass
    else:
        engine.receive_end()
