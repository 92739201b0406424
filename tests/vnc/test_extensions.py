"""What servers say beyond RFC 6143: fences, continuous updates, clipboard, sound, power."""

from __future__ import annotations

import contextlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.errors import RfbError
from vmconnect.vnc.encodings import COMPRESSIONS, FINE_QUALITIES, OFFERED
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import (
    AudioData,
    AudioOffered,
    AudioState,
    CursorShape,
    Damage,
    LedState,
    PointerMoved,
    PowerOffered,
    PowerRefused,
    Resized,
    ServerCutText,
    UpdateDone,
)
from vmconnect.vnc.extensions import clipboard
from vmconnect.vnc.extensions.audio import MAX_AUDIO_BYTES, SampleFormat, audio_enable, audio_format
from vmconnect.vnc.extensions.continuous_updates import enable_continuous_updates
from vmconnect.vnc.extensions.fence import fence
from vmconnect.vnc.extensions.xvp import PowerAction, xvp
from vmconnect.vnc.messages import extended_pointer_event, pointer_event, set_encodings
from vmconnect.vnc.mouse import Mouse
from vmconnect.vnc.pixel_format import PixelFormat

from .wire import Script, connected, hello, long, noise, raw, rectangle, request, update

CAPS, REQUEST, PEEK, NOTIFY, PROVIDE = (1 << bit for bit in range(24, 29))
ALL = CAPS | REQUEST | PEEK | NOTIFY | PROVIDE
TEXT, RTF = 1, 2


# Fences and continuous updates.


def test_a_fence_is_answered_after_what_came_before_it() -> None:
    script = Script(connected(64, 48))
    picture = update(raw(0, 0, noise(64, 48)))
    script >> picture + fence(1 << 31 | 0b111, b"when?")
    script << request(True, 64, 48) << fence(0b011, b"when?")
    script << UpdateDone((Damage(0, 0, 64, 48),), 1, 1)
    script.end()


def test_an_answer_to_a_fence_is_not_answered() -> None:
    script = Script(connected(64, 48))
    script >> fence(0, b"") >> fence(3, b"x" * 64)
    script.end()


def test_a_fence_with_too_much_in_it() -> None:
    with pytest.raises(RfbError, match="Fence: a payload of 65 bytes"):
        connected(64, 48).receive(fence(1 << 31, b"x" * 65))


def test_updates_come_unasked_where_the_server_offers_it() -> None:
    script = Script(connected(64, 48))
    script >> b"\x96" << enable_continuous_updates(True, 64, 48)
    script >> update(raw(0, 0, noise(64, 48))) << UpdateDone((Damage(0, 0, 64, 48),), 1, 1)
    script >> b"\x96"  # the end of some that were replaced
    script >> update(rectangle(0, 0, 32, 16, -223))
    script << enable_continuous_updates(True, 32, 16) << request(False, 32, 16)
    script << Resized(32, 16, True)
    script.end()


def test_who_pulls_nothing_is_sent_nothing_unasked() -> None:
    script = Script(connected(64, 48, pull=False))
    script >> b"\x96"
    script.end()


def test_preferences_can_change() -> None:
    engine = connected(64, 48)
    numbers = (7, FINE_QUALITIES[80], COMPRESSIONS[1])
    engine.offer(numbers)
    assert engine.data_to_send() == set_encodings((7, -432, -255))


# The clipboard.


def extended(flags: int, body: bytes = b"") -> bytes:
    return struct.pack(">BxxxiI", 3, -4 - len(body), flags) + body


def ours(flags: int, body: bytes = b"") -> bytes:
    return struct.pack(">BxxxiI", 6, -4 - len(body), flags) + body


def packed(*texts: bytes) -> bytes:
    return zlib.compress(b"".join(long(len(text)) + text for text in texts))


def capable() -> Script:
    script = Script(connected(64, 48))
    script >> extended(ALL | TEXT | RTF, long(1 << 20) + long(0)) << ours(ALL | TEXT, long(0))
    return script


def test_a_new_text_of_the_machine_is_asked_for_and_read() -> None:
    script = capable()
    script >> extended(NOTIFY | TEXT) << ours(REQUEST | TEXT)
    script >> extended(NOTIFY | RTF)  # not for us
    script >> extended(PROVIDE | TEXT | RTF, packed("a\r\nπ 漢\0".encode(), b"{rtf}"))
    script << ServerCutText("a\nπ 漢")
    script.end()


def test_a_text_of_ours_is_told_of_and_given() -> None:
    script = capable()
    script >> extended(REQUEST | TEXT)  # of which there is none yet
    script >> extended(PEEK) << ours(NOTIFY)
    assert script.engine.clipboard.cut("x\ny €") == ours(NOTIFY | TEXT)
    script >> extended(PEEK) << ours(NOTIFY | TEXT)
    script >> extended(REQUEST | TEXT)
    sent = script._sent
    flags, body = struct.unpack_from(">I", sent, 8)[0], sent[12:]
    assert flags == PROVIDE | TEXT
    assert zlib.decompress(body) == long(9) + "x\r\ny €\0".encode()


def test_a_server_that_cannot_be_told_is_given_at_once() -> None:
    script = Script(connected(64, 48))
    script >> extended(CAPS | PROVIDE | TEXT, long(1000)) << ours(ALL | TEXT, long(0))
    message = script.engine.clipboard.cut("now")
    assert zlib.decompress(message[12:]) == long(4) + b"now\0"
    script >> extended(NOTIFY | TEXT)  # It takes no requests.
    script.end()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (extended(CAPS | TEXT | RTF, long(5)), "sizes are missing"),
        (extended(PROVIDE | TEXT, b"no zlib"), "does not inflate"),
        (extended(PROVIDE | TEXT, packed()), "ends too soon"),
        (extended(PROVIDE | TEXT, zlib.compress(long(50) + b"short")), "ends too soon"),
        (struct.pack(">Bxxxi", 3, -1), "of 1 bytes"),
    ],
)
def test_a_broken_clipboard_breaks_the_connection(message: bytes, told: str) -> None:
    with pytest.raises(RfbError, match=told):
        connected(64, 48).receive(message)


def test_a_bomb_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipboard, "MAX_CLIPBOARD_BYTES", 10_000)
    script = capable()
    script >> extended(PROVIDE | TEXT, packed(b"x" * 1_000_000))
    script << ServerCutText("x" * 9996, 1_000_000 - 9996)
    # And one that does not even come compressed is not taken at all.
    script >> extended(PROVIDE | TEXT, bytes(20_000)) << ServerCutText("", 20_004)
    script.end()


@given(st.text(), st.booleans())
@settings(deadline=None)
def test_any_text_comes_through(text: str, terminated: bool) -> None:
    text = text.replace("\0", "").replace("\r", "")
    wire = text.replace("\n", "\r\n").encode("utf-8", "replace") + b"\0" * terminated
    (event,) = connected(8, 8).receive(extended(PROVIDE | TEXT, packed(wire)))
    assert event == ServerCutText(wire.decode().removesuffix("\0").replace("\r\n", "\n"))


@given(st.integers(0, 2**32 - 1), st.binary(max_size=60))
def test_any_extended_clipboard_is_read_or_refused(flags: int, body: bytes) -> None:
    engine = connected(8, 8)
    with contextlib.suppress(RfbError):
        engine.receive(extended(flags, body))
        assert engine.inbox.available == 0


# Sound and power.


def test_sound() -> None:
    script = Script(connected(64, 48))
    script >> update(rectangle(0, 0, 0, 0, -259)) << request(True, 64, 48) << AudioOffered()
    assert script.engine.audible
    script >> b"\xff\1\0\1" << AudioState(True)
    script >> b"\xff\1\0\2" + long(4) + b"abcd" << AudioData(b"abcd")
    script >> b"\xff\1\0\0" << AudioState(False)
    script.end()
    assert audio_enable(True) + audio_enable(False) == b"\xff\1\0\0\xff\1\0\1"
    assert audio_format(SampleFormat.S16, 2, 44100) == b"\xff\1\0\2\3\2" + long(44100)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"\xff\0\0\1", "unknown QEMU message 0"),
        (b"\xff\1\0\3", "unknown operation 3"),
        (b"\xff\1\0\2" + long(MAX_AUDIO_BYTES + 1), "bytes of sound"),
    ],
)
def test_broken_sound(message: bytes, told: str) -> None:
    with pytest.raises(RfbError, match=told):
        connected(64, 48).receive(message)


def test_power() -> None:
    script = Script(connected(64, 48))
    script >> b"\xfa\0\1\1" << PowerOffered() >> b"\xfa\0\1\0" << PowerRefused()
    script.end()
    assert script.engine.powerable
    assert xvp(PowerAction.RESET) == b"\xfa\0\1\4"


# The pointer, the lights, the format.


def rgba(event: CursorShape) -> list[list[int]]:
    return np.frombuffer(event.rgba, np.uint8).reshape(-1, 4).tolist()


def cursor_of(engine: Engine, data: bytes) -> CursorShape:
    (event,) = engine.receive(update(data))
    assert isinstance(event, CursorShape)
    return event


def test_a_pointer_of_two_colours() -> None:
    body = bytes((1, 2, 3, 4, 5, 6)) + b"\x80\x40" + b"\xc0\x40"
    event = cursor_of(connected(64, 48), rectangle(1, 0, 2, 2, -240, body))
    assert (event.width, event.height, event.hotspot_x) == (2, 2, 1)
    assert rgba(event) == [[1, 2, 3, 255], [4, 5, 6, 255], [4, 5, 6, 0], [1, 2, 3, 255]]
    assert cursor_of(connected(64, 48), rectangle(0, 0, 0, 0, -240)).rgba == b""


def test_vmware_s_pointers() -> None:
    keep = struct.pack("<4I", 0, 0xFFFFFF, 0xFFFFFF, 0xFFFFFF)
    invert = struct.pack("<4I", 0x112233, 0, 0xFFFFFF, 0)
    event = cursor_of(connected(64, 48), rectangle(0, 1, 4, 1, 0x574D5664, b"\0\0" + keep + invert))
    assert rgba(event) == [[0x11, 0x22, 0x33, 255], [0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 0]]
    event = cursor_of(connected(64, 48), rectangle(0, 0, 1, 1, 0x574D5664, b"\1\0\1\2\3\4"))
    assert rgba(event) == [[1, 2, 3, 4]]
    with pytest.raises(RfbError, match="a pointer of kind 2"):
        connected(64, 48).receive(update(rectangle(0, 0, 1, 1, 0x574D5664, b"\2\0")))


def test_a_pointer_in_another_pixel_format() -> None:
    engine = Engine(pixel_format=PixelFormat(16, 16, False, True, 31, 63, 31, 11, 5, 0))
    engine.receive(hello(64, 48))
    engine.data_to_send()
    event = cursor_of(engine, rectangle(0, 0, 1, 1, -239, struct.pack("<H", 0xF81F) + b"\x80"))
    assert rgba(event) == [[255, 0, 255, 255]]


@pytest.mark.parametrize("number", [-232, 0x574D5666])
def test_where_the_pointer_is(number: int) -> None:
    script = Script(connected(64, 48))
    script >> update(rectangle(7, 9, 0, 0, number)) << request(True, 64, 48) << PointerMoved(7, 9)
    script.end()


def test_vmware_s_lights() -> None:
    script = Script(connected(64, 48))
    script >> update(rectangle(0, 0, 0, 0, 0x574D5668, long(6))) << request(True, 64, 48)
    script << LedState(False, True, True)
    script.end()


def test_the_server_changes_the_pixel_format() -> None:
    engine = connected(2, 1)
    rgb565 = PixelFormat(16, 16, False, True, 31, 63, 31, 11, 5, 0)
    engine.receive(update(rectangle(0, 0, 2, 1, 0x574D5669, rgb565.pack())))
    engine.receive(update(rectangle(0, 0, 2, 1, 0, struct.pack("<2H", 0xF800, 0x001F))))
    assert engine.framebuffer.pixels.tolist() == [[0xFF0000, 0x0000FF]]
    broken = rgb565.pack()
    with pytest.raises(RfbError):
        engine.receive(update(rectangle(0, 0, 2, 1, 0x574D5669, b"\x07" + broken[1:])))


def test_buttons_past_the_seventh() -> None:
    engine = connected(64, 48)
    sent: list[bytes] = []
    mouse = Mouse(engine, lambda data, _what: sent.append(data))
    mouse.click("back")
    assert sent == [pointer_event(0, 0, 0)] * 2
    engine.receive(update(rectangle(0, 0, 0, 0, -316)))
    sent.clear()
    mouse.down("left")
    mouse.click("forward")
    assert sent == [
        pointer_event(1, 0, 0),
        extended_pointer_event(1 | 1 << 8, 0, 0),
        pointer_event(1, 0, 0),
    ]
    assert sent[1] == b"\5\x81\0\0\0\0\2"


def test_what_is_offered_is_read() -> None:
    assert len(OFFERED) == len(set(OFFERED))
    assert {-312, -313, -309, 0xC0A1E5CE - 2**32} < set(OFFERED)
