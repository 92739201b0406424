"""Extensions of RFB against real servers: QEMU and Xtigervnc."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from functools import partial

from vmconnect.vnc import Console
from vmconnect.vnc.events import Event, UpdateDone
from vmconnect.vnc.extensions.audio import SampleFormat
from vmconnect.vnc.extensions.xvp import PowerAction

from .conftest import Qemu, RealServer
from .test_servers import Drawing
from .wire import noise

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
        console.request_update()
        console.wait_for_update(PATIENCE)
        assert console.alive
