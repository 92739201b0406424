"""Rectangles that are pictures: JPEG and PNG in Tight, and JPEG by itself."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image

from vmconnect.errors import RfbError
from vmconnect.vnc.encodings import jpeg
from vmconnect.vnc.layout import Layout
from vmconnect.vnc.pictures import PictureError, decode_jpeg, decode_png
from vmconnect.vnc.pixel_format import OURS

from .reference import Bytes, Reference
from .test_encodings import HEIGHT, KERNELS, WIDTH, connected, expected
from .wire import feed, rectangle, update
from .writer import FORMATS, Writer

LAYOUT = Layout.of(OURS)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("form", ["ours", "rgb", "grb", "565"])
@pytest.mark.parametrize(("encoding", "tolerance"), [("tight_jpeg", 3), ("tight_png", 0)])
@pytest.mark.parametrize("threads", [1, 2])
def test_pictures_in_tight(
    encoding: str, tolerance: int, form: str, kernel: str, threads: int
) -> None:
    writer = Writer(random.Random(3), FORMATS[form], WIDTH, HEIGHT)
    places = [(0, 0, WIDTH, HEIGHT), (3, 4, 1, 9), (20, 30, 64, 40), (20, 30, 16, 16)]
    reference = Reference(WIDTH, HEIGHT, writer.form)
    rectangles = [getattr(writer, encoding)(*place) for place in places]
    for one in rectangles:
        reference.rectangle(Bytes(one))
    engine = connected(form, kernel, threads)
    feed(engine, update(*rectangles), [700, 1500])
    difference = engine.framebuffer.rgb().astype(int) - expected(reference)
    assert np.abs(difference).max() <= tolerance
    engine.receive_end()


def without_tables(data: bytes) -> bytes:
    """Return a JPEG without its quantization and Huffman tables."""
    kept, at = data[:2], 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        if data[at + 1] not in {0xDB, 0xC4}:
            kept += data[at : at + 2 + length]
        at += 2 + length
    return kept + data[at:]


@pytest.mark.parametrize("cuts", [[], list(range(0, 9000, 7))])
def test_jpeg_by_itself(cuts: list[int]) -> None:
    writer = Writer(random.Random(3), OURS, WIDTH, HEIGHT)
    whole = writer.file(64, 40, "JPEG", quality=90, restart_marker_blocks=4)
    second = without_tables(whole)
    assert len(second) < len(whole)
    engine = connected("ours", "compiled")
    places = [(0, 0, whole), (70, 0, second), (0, 45, whole)]
    feed(engine, update(*(rectangle(x, y, 64, 40, 21, data) for x, y, data in places)), cuts)
    truth = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB")).astype(int)
    for x, y, _ in places:
        drawn = engine.framebuffer.rgb()[y : y + 40, x : x + 64]
        assert np.abs(drawn - truth).max() <= 3
    assert engine.inbox.available == 0


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\x00\x00", "no JPEG"),
        (b"\xff\xd8\x00\x00", "a broken JPEG"),
        (b"\xff\xd8\xff\xe0\x00\x01", "a broken JPEG"),
        (b"\xff\xd8\xff\xd9", "its JPEG is broken"),
    ],
)
def test_no_jpeg(body: bytes, text: str) -> None:
    with pytest.raises(RfbError, match=text):
        connected("ours", "compiled").receive(update(rectangle(0, 0, 9, 9, 21, body)))


def test_an_endless_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "MAX_JPEG_BYTES", 1000)
    engine = connected("ours", "compiled")
    with pytest.raises(RfbError, match="more than 1000"):
        engine.receive(update(rectangle(0, 0, 9, 9, 21, b"\xff\xd8\xff\xda\0\2" + bytes(2000))))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 20)])
def test_png_of_every_kind(mode: str, size: tuple[int, int]) -> None:
    width, height = size
    colours = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    colours[height // 2 :] = np.arange(width, dtype=np.uint8)[:, None]
    image = Image.fromarray(colours).convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    picture = np.zeros((height, width), np.uint32)
    decode_png(memoryview(file.getvalue()), picture, LAYOUT)
    truth = np.asarray(image.convert("RGBA").convert("RGB")).astype(np.uint32)
    words = truth[:, :, 0] << np.uint32(16) | truth[:, :, 1] << np.uint32(8) | truth[:, :, 2]
    np.testing.assert_array_equal(picture, words)


def test_pictures_of_another_size() -> None:
    writer = Writer(random.Random(3), OURS, WIDTH, HEIGHT)
    for kind, decode in (("JPEG", decode_jpeg), ("PNG", decode_png)):
        data = writer.file(8, 6, kind)
        for shape in ((6, 7), (7, 8), (5, 8), (8, 6)):
            with pytest.raises(PictureError):
                decode(memoryview(data), np.zeros(shape, np.uint32), LAYOUT)
        for length in range(0, len(data) - 1, 5):
            with pytest.raises(PictureError):
                decode(memoryview(data[:length]), np.zeros((6, 8), np.uint32), LAYOUT)
