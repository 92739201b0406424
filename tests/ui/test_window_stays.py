"""The window outlives its machine: real QEMUs, a real X server, and what a person sees and does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import vmconnect
from tests.session.restartable import Restartable, restartable
from tests.ui.xvfb import Display, xvfb
from vmconnect.deadline import Deadline
from vmconnect.paths import runtime_directory

WAIT = 60.0


@pytest.fixture
def web01(monkeypatch: pytest.MonkeyPatch) -> Iterator[Restartable]:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        with restartable(runtime_directory()) as machine:
            yield machine


class Shown:
    """``vmconnect console``, and its window."""

    def __init__(self, display: Display, *words: str):
        self.display = display
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vmconnect", "console", *words],
            env={**os.environ, "DISPLAY": display.name},
            stderr=subprocess.PIPE,
        )
        self._number = ""

    @property
    def number(self) -> str:
        self._number = self._number or self.display.window(self.process, Deadline(WAIT))
        return self._number

    def title(self) -> str:
        return self.display.xdotool("getwindowname", self.number).strip()

    def until_titled(self, *titles: str) -> None:
        deadline = Deadline(WAIT)
        while (title := self.title()) not in titles:
            deadline.check(f"waiting for the title to be {titles}, it is {title}")
            time.sleep(0.02)

    def close(self) -> tuple[int, bytes]:
        """Close the window, as a person does, and return the exit code and what is said."""
        self.display.close(self.number)
        _out, err = self.process.communicate(timeout=WAIT)
        return self.process.returncode, err


@contextlib.contextmanager
def shown(*words: str) -> Iterator[Shown]:
    with xvfb() as display:
        window = Shown(display, *words)
        try:
            yield window
        finally:
            window.process.kill()
            window.process.communicate()


CONNECTED, OFF = "web01 - vmconnect", "web01 - off, waiting - vmconnect"


def test_a_key_is_pressed_at_boot_after_the_machine_was_killed(web01: Restartable) -> None:
    """Just when a viewer that has died with its QEMU would be needed."""
    web01.start()
    with shown("web01") as window:
        window.until_titled(CONNECTED)
        number, picture = window.number, look(window)
        web01.kill()
        window.until_titled(OFF)
        assert not np.array_equal(look(window), picture)
        # The firmware waits a moment for Escape, to show its menu of boot devices.
        web01.start("-boot", "menu=on,splash-time=10000", vnc=f"unix:{web01.directory}/b")
        window.until_titled(CONNECTED)
        assert window.number == number
        with vmconnect.connect("web01") as session:
            console = session.console()
            console.wait_for(lambda each: "Press ESC for boot menu" in text(each), WAIT)
            window.display.xdotool("mousemove", "--window", number, "100", "100")
            window.display.xdotool("key", "Escape")
            console.wait_for(lambda each: "Select boot device" in text(each), WAIT)
        assert window.close() == (0, b"")
    (web01.directory / "b").unlink()


def text(console: vmconnect.Console) -> str:
    return "\n".join(console.text(WAIT) or [])


def look(window: Shown) -> NDArray[np.uint32]:
    x, y, width, height = window.display.area(window.number)
    return window.display.pixels()[y : y + height, x : x + width]


def test_a_window_on_a_machine_that_is_off(web01: Restartable) -> None:
    web01.start()
    web01.kill()
    with shown("web01") as window:
        window.until_titled(OFF)
        web01.start()
        window.until_titled(CONNECTED)
        web01.kill()
        window.until_titled(OFF)
        # It can be closed while it waits.
        assert window.close() == (0, b"")


def test_a_window_on_a_machine_that_is_not_there_yet(web01: Restartable) -> None:
    with shown("--wait", "web01") as window:
        assert window.process.stderr is not None
        assert window.process.stderr.readline() == b"vmconnect: waiting for web01\n"
        web01.start()
        window.until_titled(CONNECTED)
        assert window.close() == (0, b"")


def test_another_machine_is_not_shown(web01: Restartable) -> None:
    web01.start()
    with shown("web01") as window:
        window.until_titled(CONNECTED)
        web01.kill()
        web01.start(identity="99999999-9999-4999-8999-999999999999")
        _out, err = window.process.communicate(timeout=WAIT)
    assert window.process.returncode == 1
    assert err.startswith(b"vmconnect: web01: another machine is in its place")


def test_a_recording_ends_with_its_connection(web01: Restartable, tmp_path: Path) -> None:
    file = tmp_path / "seen.rfb"
    web01.start()
    with shown("--record", str(file), "web01") as window:
        window.until_titled(CONNECTED)
        web01.kill()
        window.until_titled(OFF)
        web01.start()
        window.until_titled(CONNECTED)
        code, err = window.close()
    assert code == 0
    assert err.startswith(f"vmconnect: {file} ends here: ".encode())
    from vmconnect.vnc.recording import Player

    player = Player(file)
    engine = player.engine()
    events = [event for told in player.play(engine, speed=None) for event in told]
    assert events
    assert not player.cut
