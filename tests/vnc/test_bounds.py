"""Every length that a server declares is compared with a bound before memory is taken."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest

from vmconnect.errors import ResourceError, RfbError
from vmconnect.vnc import _kernel, pictures
from vmconnect.vnc import engine as engine_module
from vmconnect.vnc.damage import CAPACITY
from vmconnect.vnc.encodings import ENCODINGS, jpeg
from vmconnect.vnc.engine import MAX_NAME_BYTES, Engine
from vmconnect.vnc.events import Bell, UpdateDone
from vmconnect.vnc.extensions.clipboard import Clipboard
from vmconnect.vnc.extensions.fence import fence
from vmconnect.vnc.inbox import Inbox
from vmconnect.vnc.jobs import MOST_COVERED
from vmconnect.vnc.numpy_kernel import NumpyKernel
from vmconnect.vnc.pixel_format import OURS
from vmconnect.vnc.server_messages import MAX_CUT_TEXT_BYTES
from vmconnect.vnc.walk import Kernel

from .wire import connected, feed, hello, long, rectangle, server_init, update, words
from .writer import FORMATS, Writer

MEBI = 1 << 20
ASK = 1 << 31
KERNELS: list[Kernel] = [_kernel, NumpyKernel()]


def refused(data: bytes, kernel: Kernel = _kernel, *, together: bool = True) -> RfbError:
    """Return the error of an engine with a screen of 640x480, which has still to be small."""
    engine = Engine(kernel=kernel)
    engine.receive(hello(640, 480))
    with pytest.raises(RfbError) as caught:
        feed(engine, data, [] if together else range(len(data)))
    assert caught.value.offset is not None
    assert caught.value.offset > len(hello(640, 480))
    assert len(engine.inbox.window()[0]) <= 2 * MEBI
    return caught.value


# What we would send.


def test_fences_that_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_UNSENT_BYTES", 1000)
    engine = connected(64, 48)
    one = fence(ASK, b"x" * 41)
    engine.receive(one * 20)
    assert len(engine.data_to_send()) == 1000
    with pytest.raises(RfbError, match="Fence: answers of more than 1000 bytes") as caught:
        engine.receive(one * 21)
    assert caught.value.offset == engine.inbox.offset
    assert len(engine.data_to_send()) == 1000


def test_our_clipboard_is_not_given_for_ever() -> None:
    engine = connected(64, 48)
    noise = random.Random(1).choices([chr(i) for i in range(33, 0x2000)], k=MEBI)
    engine.clipboard.server = 0
    assert len(engine.clipboard.cut("".join(noise))) > MEBI
    asking = b"\3\0\0\0" + struct.pack(">iI", -4, 1 << 25 | 1)
    with pytest.raises(RfbError, match="answers of more than"):
        engine.receive(asking * 100)
    assert len(engine.data_to_send()) <= engine_module.MAX_UNSENT_BYTES


def test_our_clipboard_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clipboard = Clipboard()
    engine = connected(64, 48)
    engine.clipboard = clipboard
    given = clipboard.cut("ours")
    monkeypatch.setattr(zlib, "compress", None)
    engine.receive((b"\3\0\0\0" + struct.pack(">iI", -4, 1 << 25 | 1)) * 3)
    assert engine.data_to_send() == given * 3


# What is to come.


@pytest.mark.parametrize("together", [True, False])
def test_memory_is_taken_for_what_has_come(together: bool) -> None:
    engine = Engine()
    engine.receive(hello(8000, 8000))
    # ZYWRLE is waited for; ZRLE would be drawn as it comes.
    head = update(rectangle(0, 0, 8000, 8000, 17, long(280 * MEBI)))
    feed(engine, head, [] if together else range(len(head)))
    held = []
    for _ in range(40):
        engine.receive(bytes(MEBI))
        held.append(len(engine.inbox.window()[0]))
    assert engine.inbox.available >= 40 * MEBI
    assert held[0] <= 17 * MEBI
    assert max(held) <= 100 * MEBI
    # Room that grows by doubling is moved a few times only.
    assert len(set(held)) < 6


def test_room_for_what_comes_is_made_ahead() -> None:
    inbox = Inbox()
    next(inbox.need(100 * MEBI))
    inbox.next_buffer()
    assert 16 * MEBI <= len(inbox.window()[0]) <= 17 * MEBI


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("body", "encoding", "told"),
    [
        (long(10_000), 6, "10000 bytes of Zlib data, for at most 400"),
        (long(1 << 31), 16, "2147483648 bytes of ZRLE data"),
        (long(10_000), 17, "10000 bytes of ZYWRLE data"),
        (b"\0" + b"\xff\xff\xff", 7, "4194303 bytes of Tight data, for 300"),
        (b"\x40\1\7" + bytes(24) + b"\xff\xff\xff", 7, "bytes of Tight data, for 100"),
        (b"\xa0" + b"\x01", 7, "1 bytes of Tight data for 300"),
        (long(101), 2, "101 subrectangles of a rectangle 10x10"),
        (long(1 << 31), 4, "2147483648 subrectangles"),
    ],
)
def test_declared_lengths(body: bytes, encoding: int, told: str, together: bool) -> None:
    error = refused(update(rectangle(1, 2, 10, 10, encoding, body)), together=together)
    assert told in str(error)
    assert "FramebufferUpdate" in str(error)


@pytest.mark.parametrize("encoding", [-239, -240, -314, 0x574D5664])
@pytest.mark.parametrize("size", [(1025, 1), (1, 1025), (65535, 65535)])
def test_pointers(encoding: int, size: tuple[int, int]) -> None:
    error = refused(update(rectangle(0, 0, *size, encoding)))
    assert f"a pointer of {size[0]}x{size[1]}" in str(error)


@pytest.mark.parametrize("encoding", [-223, -308])
@pytest.mark.parametrize("size", [(16385, 1), (1, 16385), (65535, 65535)])
def test_screens(encoding: int, size: tuple[int, int]) -> None:
    error = refused(update(rectangle(0, 0, *size, encoding, bytes(4))))
    assert f"a screen of {size[0]}x{size[1]}" in str(error)


@pytest.mark.parametrize("first_and_count", [(0, 257), (256, 1), (65535, 65535), (255, 2)])
def test_colour_maps(first_and_count: tuple[int, int]) -> None:
    engine = Engine(pixel_format=FORMATS["map"])
    engine.receive(hello(64, 48))
    first, count = first_and_count
    with pytest.raises(RfbError, match=f"SetColourMapEntries: {count} colours from number {first}"):
        engine.receive(b"\1\0" + words(first, count) + bytes(6 * count))


@pytest.mark.parametrize("together", [True, False])
def test_a_clipboard_without_end(together: bool) -> None:
    """What is kept of it has come; the rest is read past and told of."""
    engine = connected(64, 48)
    feed(engine, b"\3\0\0\0" + long((1 << 31) - 1), [] if together else range(8))
    held = []
    for _ in range(40):
        engine.receive(bytes(MEBI))
        held.append(len(engine.inbox.window()[0]))
    assert max(held) <= MAX_CUT_TEXT_BYTES + MEBI


@pytest.mark.parametrize("message", [b"", update(count=1)])
def test_names(message: bytes) -> None:
    if message:
        error = refused(message + rectangle(0, 0, 0, 0, -307, long(MAX_NAME_BYTES + 1)))
        assert f"a name of {MAX_NAME_BYTES + 1} bytes" in str(error)
    init = server_init(8, 8)[:-8] + long(MAX_NAME_BYTES + 1)
    with pytest.raises(RfbError, match=f"a name of {MAX_NAME_BYTES + 1} bytes"):
        Engine().receive(b"RFB 003.008\n\1\1" + long(0) + init)


def test_the_most_rectangles_there_can_be() -> None:
    """They are counted by 16 bits, and what is told of them is bounded."""
    engine = connected(640, 480)
    one = b"".join(rectangle(i % 640, 7 * i % 480, 1, 1, 0, bytes(4)) for i in range(65535))
    done, bell = engine.receive(update(one, count=65535) + b"\2")
    assert isinstance(done, UpdateDone)
    assert done.rectangles == 65535
    assert len(done.damage) <= CAPACITY
    assert bell == Bell()


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("place", [(640, 0, 1, 1), (0, 480, 1, 1), (600, 0, 41, 1), (0, 0, 1, 481)])
@pytest.mark.parametrize("number", [n for n, encoding in ENCODINGS.items() if encoding.draws])
def test_rectangles_outside_the_screen(
    number: int, place: tuple[int, int, int, int], together: bool
) -> None:
    error = refused(update(rectangle(*place, number, bytes(4))), together=together)
    assert "outside the 640x480 screen" in str(error)


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = connected(64, 48)

    def many(_most: int) -> int:
        raise MemoryError

    monkeypatch.setattr(engine.walk, "many", many)
    with pytest.raises(ResourceError, match="no memory for what FramebufferUpdate brings"):
        engine.receive(update(count=1))


# What is drawn.


RGB = b"abc"
PALETTES = [
    # Tight: three colours, and an index for a fourth; Tight has no place for more than 256.
    (7, b"\x40\1\2" + RGB * 3 + b"\0\1\2\3\0\0\0\0\0\0", "a colour is not in its palette"),
    # TRLE: packed, in runs, and those before when there are none.
    (15, b"\3" + RGB * 3 + b"\xff" * 30, "a colour is not in its palette"),
    (15, b"\x82" + RGB * 2 + b"\2" * 100, "a colour is not in its palette"),
    (15, b"\x82" + RGB * 2 + b"\xff\x63", "a colour is not in its palette"),
    (15, b"\x7f" + bytes(100), "of a kind that does not exist"),
    (15, b"\x81" + bytes(100), "of a kind that does not exist"),
    (15, b"\x11" + RGB * 17 + bytes(100), "of a kind that does not exist"),
]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("encoding", "body", "told"), PALETTES)
def test_palettes(encoding: int, body: bytes, told: str, kernel: Kernel, together: bool) -> None:
    height = 1 if encoding == 7 else 10
    data = update(rectangle(0, 0, 10, height, encoding, body))
    assert told in str(refused(data, kernel, together=together))
    if encoding == 15:
        stream = zlib.compressobj()
        packed = stream.compress(body) + stream.flush(zlib.Z_SYNC_FLUSH)
        data = update(rectangle(0, 0, 10, 10, 16, long(len(packed)) + packed))
        assert "(ZRLE)" in str(refused(data, kernel, together=together))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("tile", [b"\x80\1\2\3", b"\x82\1\2\3\4\5\6\x80"])
def test_a_run_without_end(tile: bytes, kernel: Kernel, together: bool) -> None:
    data = update(rectangle(0, 0, 16, 16, 15, tile + b"\xff" * 9))
    assert "a run of pixels goes past the end" in str(refused(data, kernel, together=together))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("encoding", "places"), [(2, ">HHHH"), (4, ">BBBB")])
def test_parts_that_cover_each_other(kernel: Kernel, encoding: int, places: str) -> None:
    whole = bytes(4) + struct.pack(places, 0, 0, 20, 10)
    allowed = long(MOST_COVERED) + bytes(4) + whole * MOST_COVERED
    engine = Engine(kernel=kernel)
    engine.receive(hello(640, 480))
    assert engine.receive(update(rectangle(0, 0, 20, 10, encoding, allowed)))
    least = bytes(4) + struct.pack(places, 19, 9, 1, 1)
    more = long(MOST_COVERED + 1) + bytes(4) + whole * MOST_COVERED + least
    error = refused(update(rectangle(0, 0, 20, 10, encoding, more)), kernel)
    assert "its parts cover it more than 16 times over" in str(error)


def picture(kind: str, side: int = 32) -> bytes:
    return Writer(random.Random(1), OURS, 640, 480).file(side, side, kind)


def tight(body: bytes, control: int, encoding: int, side: int = 32) -> bytes:
    length = bytes((len(body) & 127 | 128, len(body) >> 7 & 127 | 128, len(body) >> 14))
    return update(rectangle(0, 0, side, side, encoding, bytes((control,)) + length + body))


def test_scans_of_a_jpeg() -> None:
    file = picture("JPEG")
    assert connected(640, 480).receive(tight(file, 0x90, 7))
    many = file[:-2] + b"\xff\xda\0\2" * pictures.MAX_SCANS + file[-2:]
    for data in (tight(many, 0x90, 7), update(rectangle(0, 0, 32, 32, 21, many))):
        assert "its JPEG has 101 scans" in str(refused(data))


def test_tables_of_a_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "MAX_TABLE_BYTES", 1000)
    file = picture("JPEG")
    assert connected(640, 480).receive(update(rectangle(0, 0, 32, 32, 21, file)))
    table = b"\xff\xdb\0\x43\0" + b"\1" * 64
    many = file[:2] + table * 16 + file[2:]
    error = refused(update(rectangle(0, 0, 32, 32, 21, many)))
    assert "a JPEG with quantization tables of more than 1000 bytes" in str(error)


def test_pixels_of_a_png(monkeypatch: pytest.MonkeyPatch) -> None:
    file = picture("PNG")
    monkeypatch.setattr(pictures, "MAX_PNG_PIXELS", 1024)
    assert connected(640, 480).receive(tight(file, 0xA0, -260))
    monkeypatch.setattr(pictures, "MAX_PNG_PIXELS", 1023)
    assert "its PNG has more than 1023 pixels" in str(refused(tight(file, 0xA0, -260)))


# Which of a batch is at fault.


def zrle(stream: zlib._Compress, x: int, tile: bytes) -> bytes:
    data = stream.compress(tile) + stream.flush(zlib.Z_SYNC_FLUSH)
    return rectangle(x, 0, 8, 8, 16, long(len(data)) + data)


SOLID = b"\1abc"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"\1ab", "its data end too soon"),
        (b"\1abcd", "its data go on past its end"),
        (b"\1abc" + bytes(9999), "it inflates to more than it should"),
        (b"\x81", "a tile of it is of a kind that does not exist"),
        (None, "its zlib stream is broken"),
    ],
)
def test_the_rectangle_at_fault_is_named(
    bad: bytes | None, told: str, kernel: Kernel, together: bool, threads: int
) -> None:
    stream = zlib.compressobj()
    rectangles = [zrle(stream, 10 * i, SOLID) for i in range(4)]
    fault = sum(len(one) for one in rectangles)
    if bad is None:
        rectangles.append(rectangle(40, 0, 8, 8, 16, long(6) + b"\xff" * 6))
    else:
        rectangles.append(zrle(stream, 40, bad))
    # What a rectangle lacks must not be taken from the next.
    rectangles += [zrle(stream, 10 * i, SOLID) for i in range(5, 9)]
    engine = Engine(kernel=kernel, threads=threads)
    engine.receive(hello(640, 480))
    begin = engine.inbox.offset
    data = update(*rectangles)
    where = r"FramebufferUpdate: a rectangle 8x8 at 40,0 \(ZRLE\)"
    with pytest.raises(RfbError, match=f"{where}: {told}") as caught:
        feed(engine, data, [] if together else range(len(data)))
    assert caught.value.offset == begin + 4 + fault
    # Those before it are drawn.
    assert (engine.framebuffer.pixels[:8, 30:38] == engine.framebuffer.pixels[0, 0]).all()
    assert np.count_nonzero(engine.framebuffer.pixels[:8, :38]) == 4 * 64
