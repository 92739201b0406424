"""What a server says after the handshake, as scripts, and cut anywhere."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.errors import RfbError, VmconnectError
from vmconnect.vnc import server_messages
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import (
    Bell,
    CursorShape,
    Damage,
    Event,
    LedState,
    NameChanged,
    PointerMode,
    Resized,
    ResizeReason,
    ResizeStatus,
    ScancodesAccepted,
    Screen,
    ServerCutText,
    UpdateDone,
)
from vmconnect.vnc.numpy_kernel import NumpyKernel

from .wire import (
    Script,
    connected,
    copyrect,
    feed,
    hello,
    long,
    noise,
    raw,
    rectangle,
    request,
    string,
    update,
    words,
)

INCREMENTAL = request(True, 64, 48)
FULL = (Damage(0, 0, 64, 48),)


def screens(*heads: Screen) -> bytes:
    return bytes((len(heads), 0, 0, 0)) + b"".join(
        struct.pack(">IHHHHI", h.id, h.x, h.y, h.width, h.height, h.flags) for h in heads
    )


def test_raw_draws_and_asks_for_the_next() -> None:
    picture = noise(64, 48)
    script = Script(connected(64, 48))
    script >> update(raw(0, 0, picture)) << INCREMENTAL << UpdateDone(FULL, 1, 1)
    script.end()
    framebuffer = script.engine.framebuffer
    np.testing.assert_array_equal(framebuffer.pixels, picture)
    rgb = framebuffer.rgb().astype(np.uint32)
    np.testing.assert_array_equal(rgb[:, :, 0] << 16 | rgb[:, :, 1] << 8 | rgb[:, :, 2], picture)
    assert framebuffer.drawn
    assert framebuffer.generation == 1


def test_the_next_update_is_asked_for_as_soon_as_one_begins() -> None:
    script = Script(connected(64, 48))
    data = update(raw(0, 0, noise(64, 48)))
    script >> data[:4] << INCREMENTAL
    script >> data[4:] << UpdateDone(FULL, 1, 1)
    script.end()


def test_several_rectangles_are_one_update() -> None:
    script = Script(connected(64, 48))
    script >> update(raw(0, 0, noise(64, 48)), copyrect(8, 8, 16, 16, 0, 0)) << INCREMENTAL
    script << UpdateDone(FULL, 2, 1)
    script.end()
    pixels = script.engine.framebuffer.pixels
    np.testing.assert_array_equal(pixels[8:24, 8:24], noise(64, 48)[:16, :16])


def test_an_update_that_draws_nothing_is_not_told() -> None:
    script = Script(connected(64, 48))
    script >> update() << INCREMENTAL
    script >> update(rectangle(3, 3, 0, 5, 0)) << INCREMENTAL
    script.end()
    assert not script.engine.framebuffer.drawn


def test_last_rect_ends_the_update() -> None:
    script = Script(connected(64, 48))
    data = update(raw(0, 0, noise(64, 48)), rectangle(0, 0, 0, 0, -224), count=65535)
    script >> data << INCREMENTAL << UpdateDone(FULL, 2, 1)
    script >> b"\2" << Bell()
    script.end()


def test_without_pull_nothing_is_asked_for() -> None:
    script = Script(connected(64, 48, pull=False))
    script >> update(rectangle(0, 0, 9, 9, -223)) << Resized(9, 9, True)
    script.end()


def test_desktop_size() -> None:
    script = Script(connected(64, 48))
    script >> update(raw(0, 0, noise(64, 48))) << INCREMENTAL << UpdateDone(FULL, 1, 1)
    script >> update(rectangle(0, 0, 32, 16, -223))
    script << INCREMENTAL << request(False, 32, 16) << Resized(32, 16, True)
    script.end()
    assert script.engine.framebuffer.pixels.shape == (16, 32)
    assert not script.engine.framebuffer.drawn
    assert not script.engine.framebuffer.pixels.any()


def test_the_same_size_is_no_reason_to_ask_for_all() -> None:
    head = Screen(7, 0, 0, 64, 48, 3)
    script = Script(connected(64, 48))
    script >> update(rectangle(0, 0, 64, 48, -308, screens(head))) << INCREMENTAL
    script << Resized(64, 48, False, (head,))
    script.end()
    assert script.engine.resizable
    assert script.engine.screens == (head,)


def test_extended_desktop_size_from_another_client() -> None:
    heads = Screen(1, 0, 0, 32, 48), Screen(2, 32, 0, 8, 48)
    script = Script(connected(64, 48))
    script >> update(rectangle(2, 0, 40, 48, -308, screens(*heads)))
    script << INCREMENTAL << request(False, 40, 48)
    script << Resized(40, 48, True, heads, ResizeReason.OTHER_CLIENT)
    script.end()


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (1, ResizeStatus.PROHIBITED),
        (3, ResizeStatus.INVALID_LAYOUT),
        (4, ResizeStatus.FORWARDED),
        (99, ResizeStatus.UNKNOWN),
    ],
)
def test_a_refused_size_changes_nothing(number: int, status: ResizeStatus) -> None:
    script = Script(connected(64, 48))
    # Width and height are undefined then, and may be absurd.
    script >> update(rectangle(1, number, 60000, 60000, -308, screens())) << INCREMENTAL
    script << Resized(64, 48, False, (), ResizeReason.THIS_CLIENT, status)
    script.end()


def test_cursor() -> None:
    pixels = struct.pack("<6I", 0x010203, 0x040506, 0, 0xFF0000, 0x00FF00, 0x0000FF)
    mask = bytes((0b10100000, 0b01000000))
    rgba = bytes.fromhex("010203ff04050600000000ffff00000000ff00ff0000ff00")
    script = Script(connected(64, 48))
    script >> update(rectangle(1, 2, 3, 2, -239, pixels + mask)) << INCREMENTAL
    script << CursorShape(3, 2, 1, 2, rgba)
    script >> update(rectangle(0, 0, 0, 0, -239)) << INCREMENTAL << CursorShape(0, 0, 0, 0, b"")
    script.end()


def test_cursor_with_alpha() -> None:
    # Red, half of it and none of it, multiplied with its alpha.
    sent = bytes.fromhex("ff0000ff8000008000000000")
    straight = bytes.fromhex("ff0000ffff00008000000000")
    script = Script(connected(64, 48))
    script >> update(rectangle(0, 0, 3, 1, -314, long(0) + sent)) << INCREMENTAL
    script << CursorShape(3, 1, 0, 0, straight)
    script.end()


def test_cursor_with_alpha_not_multiplied() -> None:
    sent = bytes.fromhex("ff000080ffffff01")
    script = Script(connected(64, 48))
    script >> update(rectangle(0, 0, 2, 1, -314, long(0) + sent)) << INCREMENTAL
    script << CursorShape(2, 1, 0, 0, sent)
    script.end()


def test_cursor_with_alpha_as_qemu_writes_it() -> None:
    engine = Engine(pull=False)
    engine.receive(hello(64, 48, b"QEMU (web01)"))
    engine.data_to_send()
    script = Script(engine)
    sent = bytes.fromhex("0000ffff")
    script >> update(rectangle(0, 0, 1, 1, -314, long(0) + sent))
    script << CursorShape(1, 1, 0, 0, bytes.fromhex("ff0000ff"))
    script.end()


def test_what_qemu_tells_of_itself() -> None:
    script = Script(connected(64, 48))
    script >> update(rectangle(0, 0, 64, 48, -258)) << INCREMENTAL << ScancodesAccepted()
    script >> update(rectangle(0, 0, 64, 48, -257)) << INCREMENTAL << PointerMode(False)
    script >> update(rectangle(1, 0, 64, 48, -257)) << INCREMENTAL << PointerMode(True)
    script >> update(rectangle(0, 0, 1, 1, -261, b"\xf6")) << INCREMENTAL
    script << LedState(scroll_lock=False, num_lock=True, caps_lock=True)
    script.end()
    assert script.engine.scancodes
    assert script.engine.absolute


def test_desktop_name() -> None:
    script = Script(connected(64, 48))
    script >> update(rectangle(0, 0, 0, 0, -307, string("Büro\n".encode())))
    script << INCREMENTAL << NameChanged("Büro")
    script.end()
    assert script.engine.name == "Büro"


def test_colour_maps_are_skipped() -> None:
    script = Script(connected(64, 48))
    script >> b"\1\0" + words(0, 65535) + bytes(65535 * 6) + b"\2" << Bell()
    script.end()


def test_cut_text() -> None:
    script = Script(connected(64, 48))
    script >> b"\3\0\0\0" + string(b"caf\xe9") << ServerCutText("café")
    script.end()


def test_a_long_cut_text_is_shortened_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_messages, "MAX_CUT_TEXT_BYTES", 4)
    script = Script(connected(64, 48))
    script >> b"\3\0\0\0" + string(b"caf\xe9 au lait") << ServerCutText("café", 8)
    script >> b"\2" << Bell()
    script.end()


PREFIX = len(hello(64, 48))


@pytest.mark.parametrize(
    ("data", "text", "offset"),
    [
        (b"\x07", "message type: unknown message type 7", 1),
        (
            update(rectangle(60, 0, 5, 1, 0)),
            r"FramebufferUpdate: a rectangle 5x1 at 60,0 \(Raw\) outside the 64x48 screen",
            16,
        ),
        (update(rectangle(0, 48, 1, 1, 1, words(0, 0))), r"\(CopyRect\) outside", 16),
        (update(copyrect(0, 0, 2, 2, 63, 0)), r"2x2 at 0,0 \(COPY\): a part of it lies outside", 4),
        (update(rectangle(0, 0, 1, 1, 99)), "unknown encoding 99 of a rectangle 1x1 at 0,0", 16),
        (update(rectangle(0, 0, 20000, 1, -223)), "a screen of 20000x1", 16),
        (update(rectangle(0, 0, 1025, 1, -239)), "a pointer of 1025x1", 16),
        (update(rectangle(0, 0, 1, 1025, -314)), "a pointer of 1x1025", 16),
        (update(rectangle(0, 0, 1, 1, -314, long(7))), "a pointer in encoding 7", 20),
        (update(rectangle(0, 0, 0, 0, -307, long(1 << 30))), "a name of 1073741824", 20),
        (b"\3\0\0\0" + long(0xFFFFFFFD), "ServerCutText: an extended clipboard of 3", 8),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_what_the_protocol_does_not_allow(
    data: bytes, text: str, offset: int, together: bool
) -> None:
    engine = connected(64, 48)
    with pytest.raises(RfbError, match=text) as caught:
        feed(engine, data, [] if together else range(len(data)))
    assert caught.value.offset == PREFIX + offset


def test_what_happened_before_an_error_is_told() -> None:
    engine = connected(64, 48)
    with pytest.raises(RfbError):
        engine.receive(b"\2\2\x99")
    assert engine.events() == [Bell(), Bell()]


def test_the_end_in_an_update() -> None:
    engine = connected(64, 48)
    engine.receive(update(raw(0, 0, noise(64, 48)))[:-1])
    assert "closed the connection while FramebufferUpdate" in str(engine.receive_end())
    # Nobody waits for the rest of it.
    assert engine.framebuffer.snapshot(0).shape == (48, 64)


def test_a_large_recording_is_read_where_it_lies() -> None:
    engine = connected(1024, 1024, pull=False)
    capacity = len(engine.inbox.window()[0])
    data = update(*(raw(0, 0, noise(1023, 1024)) for _ in range(3)))
    assert len(data) > 8 * capacity
    engine.receive(memoryview(data))
    assert len(engine.inbox.window()[0]) == capacity
    assert engine.framebuffer.generation == 1


def test_whole_rows_come_straight_into_the_framebuffer() -> None:
    engine = connected(256, 48)
    engine.receive(update(rectangle(0, 8, 256, 40, 0)))
    target = engine.next_buffer()
    assert len(target) == 256 * 40 * 4
    assert np.shares_memory(np.frombuffer(target, np.uint8), engine.framebuffer.pixels)


# Property tests: any valid stream, cut anywhere.

WIDTH, HEIGHT = 24, 16


@st.composite
def areas(draw: st.DrawFn) -> tuple[int, int, int, int]:
    x = draw(st.integers(0, WIDTH))
    y = draw(st.integers(0, HEIGHT))
    return x, y, draw(st.integers(0, WIDTH - x)), draw(st.integers(0, HEIGHT - y))


@st.composite
def raws(draw: st.DrawFn) -> bytes:
    x, y, width, height = draw(areas())
    return raw(x, y, noise(width, height, draw(st.integers(0, 9))))


@st.composite
def copyrects(draw: st.DrawFn) -> bytes:
    x, y, width, height = draw(areas())
    from_x = draw(st.integers(0, WIDTH - width))
    from_y = draw(st.integers(0, HEIGHT - height))
    return copyrect(x, y, width, height, from_x, from_y)


@st.composite
def cursors(draw: st.DrawFn) -> bytes:
    width, height = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    size = width * height * 4
    if draw(st.booleans()):
        data = draw(st.binary(min_size=size, max_size=size))
        return rectangle(1, 1, width, height, -314, long(0) + data)
    size += (width + 7) // 8 * height
    return rectangle(0, 0, width, height, -239, draw(st.binary(min_size=size, max_size=size)))


def extended(width: int, height: int) -> bytes:
    return rectangle(0, 0, width, height, -308, screens(Screen(1, 0, 0, width, height)))


sizes = st.sampled_from([(WIDTH, HEIGHT), (WIDTH + 3, HEIGHT + 1)])
rectangles = st.one_of(
    raws(),
    copyrects(),
    cursors(),
    st.sampled_from([rectangle(0, 0, 0, 0, -258), rectangle(0, 0, 1, 1, -261, b"\1")]),
    st.builds(lambda name: rectangle(0, 0, 0, 0, -307, string(name)), st.binary(max_size=9)),
    st.builds(lambda size: rectangle(0, 0, size[0], size[1], -223), sizes),
    st.builds(lambda size: extended(*size), sizes),
)
messages = st.one_of(
    st.lists(rectangles, max_size=6).map(lambda several: update(*several)),
    st.lists(rectangles, max_size=3).map(
        lambda several: update(*several, rectangle(0, 0, 0, 0, -224), count=65535)
    ),
    st.just(b"\2"),
    st.binary(max_size=40).map(lambda text: b"\3\0\0\0" + string(text)),
    st.integers(0, 5).map(lambda count: b"\1\0" + words(0, count) + bytes(count * 6)),
)


def decoded(data: bytes, cuts: list[int], compiled: bool) -> tuple[list[Event], bytes, bytes]:
    engine = Engine() if compiled else Engine(kernel=NumpyKernel())
    events = feed(engine, data, cuts)
    return events, engine.data_to_send(), engine.framebuffer.pixels.tobytes()


@given(
    st.lists(messages, max_size=8).map(b"".join),
    st.lists(st.integers(0, 1 << 30), max_size=12),
    st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_cuts_change_nothing(data: bytes, cuts: list[int], compiled: bool) -> None:
    stream = hello(WIDTH, HEIGHT) + data
    at_once = decoded(stream, [], True)
    assert decoded(stream, cuts, compiled) == at_once


@given(st.lists(messages, max_size=4).map(b"".join))
@settings(deadline=None, max_examples=30)
def test_bytes_one_at_a_time_change_nothing(data: bytes) -> None:
    stream = hello(WIDTH, HEIGHT) + data
    assert decoded(stream, list(range(len(stream))), True) == decoded(stream, [], True)


@given(
    st.lists(messages, max_size=3).map(b"".join),
    st.binary(max_size=64),
    st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), max_size=6),
    st.lists(st.integers(0, 1 << 30), max_size=6),
)
@settings(deadline=None, max_examples=200)
def test_garbage_raises_only_our_errors(
    data: bytes, tail: bytes, flips: list[tuple[int, int]], cuts: list[int]
) -> None:
    body = bytearray(data + tail)
    for place, value in flips:
        if body:
            body[place % len(body)] = value
    results = []
    for pieces in ([], cuts):
        engine = connected(WIDTH, HEIGHT)
        told: list[Event] = []
        try:
            told = feed(engine, bytes(body), pieces)
            failure = None
        except VmconnectError as error:
            failure = str(error)
        # Whatever lengths the server claims: what waits to be read is bounded.
        assert len(engine.inbox.window()[0]) < server_messages.MAX_CUT_TEXT_BYTES + (1 << 18)
        results.append((failure, engine.framebuffer.pixels.shape))
        assert failure is not None or isinstance(told, list)
    assert results[0] == results[1]
