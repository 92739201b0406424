"""Extensions of RFB against real servers: QEMU and Xtigervnc."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from vmconnect.vnc import Console
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import CursorShape, Event, LedState, UpdateDone
from vmconnect.vnc.extensions.audio import SampleFormat
from vmconnect.vnc.extensions.xvp import PowerAction
from vmconnect.vnc.messages import pointer_event
from vmconnect.vnc.states import State

from .conftest import Qemu, RealServer
from .test_server_encodings import connect
from .test_servers import Drawing
from .tightvnc import tightvnc
from .wire import noise
from .x11 import x11_client

Kind = TypeVar("Kind", bound=Event)

PATIENCE = 30.0
TEXT = "Grüße, 漢字\nπ €"


def xclip(server: RealServer, *arguments: str, text: str | None = None) -> str:
    """Own the clipboard of the server's X display, or read it."""
    return subprocess.run(
        ["xclip", "-selection", "clipboard", *arguments],
        env={**os.environ, "DISPLAY": f":{server.display}"},
        input=text,
        # An owner goes on in the background, and would hold a pipe.
        stdout=subprocess.DEVNULL if text is not None else subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout


def test_xtigervnc_sends_updates_unasked(xtigervnc: Callable[..., RealServer]) -> None:
    server = xtigervnc("-SecurityTypes", "None")
    with server.open() as console:
        console.wait_for(lambda _: console._engine.continuous, PATIENCE)
        updates: list[Event] = []
        console.subscribe(
            lambda event: updates.append(event) if isinstance(event, UpdateDone) else None
        )
        with contextlib.closing(Drawing(server.display)) as x11:
            for number in range(3):
                before = len(updates)
                x11.put(0, 0, noise(40, 30, number))
                x11.sync()
                drawn = partial(more_than, updates, before)
                console.wait_for(drawn, PATIENCE)


def more_than(updates: list[Event], before: int, _console: Console) -> bool:
    return len(updates) > before


def test_xtigervnc_s_clipboard_speaks_unicode(xtigervnc: Callable[..., RealServer]) -> None:
    server = xtigervnc("-SecurityTypes", "None")
    with server.open() as console:
        console.wait_for(lambda _: console.clipboard.unicode, PATIENCE)
        assert console.clipboard.text is None
        xclip(server, "-i", text=TEXT)
        console.wait_for(lambda _: console.clipboard.text == TEXT, PATIENCE)
        console.clipboard.put(TEXT * 2)
        while (told := xclip(server, "-o")) != TEXT * 2:
            assert told == TEXT
    assert server.process.poll() is None


def test_qemu_passes_a_text_from_one_console_to_another(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-vga", "std", "-S")
    with server.open() as ours, server.open() as theirs:
        for console in ours, theirs:
            console.wait_for(lambda console: console.clipboard.unicode, PATIENCE)
        for text in (TEXT, TEXT * 2):
            ours.clipboard.put(text)
            theirs.wait_for(partial(has_text, text), PATIENCE)


def has_text(text: str, console: Console) -> bool:
    return console.clipboard.text == text


def told(address: Path | int, number: int, kind: type[Kind]) -> Kind:
    """Offer one pseudo-encoding, and return the first event of a kind that shows something."""
    engine = Engine(encodings=(0, number))
    events: list[Event] = []
    with connect(address) as connection:
        connection.settimeout(PATIENCE)
        while engine.state is not State.NORMAL:
            events += engine.receive(connection.recv(4096))
            connection.sendall(engine.data_to_send())
        # Xtigervnc shows no pointer that has not moved.
        connection.sendall(pointer_event(0, 100, 100))
        while True:
            for event in events:
                if isinstance(event, kind) and not (
                    isinstance(event, CursorShape) and not event.rgba
                ):
                    engine.receive_end()
                    return event
            events += engine.receive(connection.recv(4096))
            connection.sendall(engine.data_to_send())


@contextlib.contextmanager
def pointer(display: int) -> Iterator[None]:
    """Give an X server's screen a pointer in black and white, which TigerVNC makes of XCursors."""
    with x11_client(display) as x11:
        root = x11.screen().root
        picture, mask = (root.create_pixmap(16, 16, 1) for _ in range(2))
        pen, rubber = (picture.create_gc(foreground=colour) for colour in (1, 0))
        for pixmap in picture, mask:
            pixmap.fill_rectangle(rubber, 0, 0, 16, 16)
        mask.fill_rectangle(pen, 0, 0, 9, 12)
        picture.fill_rectangle(pen, 2, 1, 4, 5)
        white, black = (0xFFFF,) * 3, (0,) * 3
        root.change_attributes(cursor=picture.create_cursor(mask, white, black, 3, 4))
        x11.sync()
        yield


def look(shape: CursorShape) -> dict[tuple[int, int], list[int]]:
    """Return what can be seen of a pointer, by the place from its hot spot."""
    rgba = np.frombuffer(shape.rgba, np.uint8).reshape(shape.height, shape.width, 4)
    return {
        (x - shape.hotspot_x, y - shape.hotspot_y): rgba[y, x].tolist()
        for y, x in np.argwhere(rgba[:, :, 3])
    }


@pytest.mark.parametrize("number", [-314, -239, -240, 0x574D5664])
def test_every_kind_of_pointer_looks_the_same(
    xtigervnc: Callable[..., RealServer], number: int
) -> None:
    server = xtigervnc("-SecurityTypes", "None", "-ac")
    white, black = [255] * 4, [0, 0, 0, 255]
    with pointer(server.display):
        assert look(told(server.address, number, CursorShape)) == {
            (x - 3, y - 4): white if 2 <= x < 6 and 1 <= y < 6 else black
            for x in range(9)
            for y in range(12)
        }


def test_tightvnc_s_pointers() -> None:
    with tightvnc() as server:
        shapes = [told(server.port, number, CursorShape) for number in (-239, -240)]
        assert look(shapes[0]) == look(shapes[1])
        assert look(shapes[0])


def test_both_kinds_of_lights(xtigervnc: Callable[..., RealServer]) -> None:
    server = xtigervnc("-SecurityTypes", "None")
    dark = LedState(False, False, False)
    assert told(server.address, -261, LedState) == dark
    with server.open() as console:
        console.keyboard.press("capslock")
        console.wait_for(lambda _: bool(console._engine.leds != dark), PATIENCE)
        assert told(server.address, 0x574D5668, LedState) == LedState(False, False, True)


def test_qemu_resets_its_machine(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-vga", "std", "-S", vnc=",power-control=on")
    with server.open() as console, server.monitor_events() as events:
        console.wait_for(lambda _: console._engine.powerable, PATIENCE)
        console.power(PowerAction.RESET)
        assert any(event == "RESET" for event in events)


def test_qemu_s_sound_can_be_turned_on_and_off(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-audiodev", "none,id=sound", "-vga", "std", "-S", vnc=",audiodev=sound")
    with server.open() as console:
        console.wait_for(lambda _: console._engine.audible, PATIENCE)
        console.listen(True, SampleFormat.S16, 2, 48000)
        console.listen(False)
        console.refresh(PATIENCE)
        assert console.alive
