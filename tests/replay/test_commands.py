"""``vmconnect record``, ``replay`` and ``console --record``, on real servers and displays."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.replay.tape import Tape
from tests.ui.xvfb import Display, xvfb
from tests.vnc.conftest import Qemu, RealServer
from tests.vnc.test_server_encodings import SMOOTH, SMOOTH_SIZE, as_rgb, screen
from tests.vnc.test_servers import Drawing
from tests.vnc.wire import noise, raw, update
from vmconnect.deadline import Deadline
from vmconnect.replay import Replay, frame_at
from vmconnect.vnc.framebuffer import rgb

PATIENCE = 60.0

Picture = NDArray[np.uint8]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "vmconnect", *map(str, arguments)]


def environment(display: str | None = None) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "WAYLAND_DISPLAY"}
    env.pop("DISPLAY", None)
    return env if display is None else {**env, "DISPLAY": display}


def vmconnect(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextlib.contextmanager
def running(
    *arguments: str | Path, display: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command(*arguments),
        env=environment(display),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(holds: Callable[[], bool]) -> None:
    deadline = Deadline(PATIENCE)
    while not holds():
        deadline.check("waiting")
        time.sleep(0.05)


def drawn(file: Path) -> Picture | None:
    """Return the last whole screen of a recording that goes on."""
    if not file.exists() or file.stat().st_size < 100:
        return None
    replay = Replay(file)
    replay.read()
    return rgb(replay.pixels()) if replay.drawn else None


def shows(file: Path, picture: Picture) -> bool:
    seen = drawn(file)
    return seen is not None and seen.shape == picture.shape and bool((seen == picture).all())


@pytest.fixture
def server(xtigervnc: Callable[..., RealServer]) -> RealServer:
    return xtigervnc("-SecurityTypes", "None", "-ac")


def target(server: RealServer) -> str:
    return f"vnc+unix:{server.address}"


def test_a_session_is_recorded_and_replayed(server: RealServer, tmp_path: Path) -> None:
    file, png = tmp_path / "session.vmrec", tmp_path / "last.png"
    words = screen()
    with running("record", target(server), "-o", file) as process:
        until(lambda: drawn(file) is not None)
        drawing = Drawing(server.display)
        for y in range(0, 480, 60):
            drawing.put(0, y, words[y : y + 60])
        drawing.sync()
        until(lambda: shows(file, as_rgb(words)))
        drawing.close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert b" updates, " in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    assert vmconnect("replay", file, "--png", png).returncode == 0
    with server.open() as console, Image.open(png) as image:
        np.testing.assert_array_equal(np.asarray(image), console.rgb())

    info = vmconnect("replay", file, "--info")
    assert "640x480" in info.stdout
    fields = json.loads(vmconnect("replay", file, "--json").stdout)
    assert fields["sizes"] == [[640, 480]]
    assert fields["updates"] == count_updates(file)
    assert sum(fields["rectangles"].values()) >= fields["updates"]
    assert fields["trouble"] is None

    video = tmp_path / "session.mp4"
    result = vmconnect("replay", file, "--video", video, "--fps", "10")
    assert result.returncode == 0, result.stderr
    with av.open(str(video)) as container:
        frames = [each.to_ndarray(format="rgb24") for each in container.decode(video=0)]
    assert len(frames) == math.ceil(fields["seconds"] * 10) + 1
    difference = np.abs(frames[-1].astype(int) - as_rgb(words))
    # Of noise, 4:2:0 leaves little: the rest is as it was.
    assert np.median(difference) <= 4
    assert difference[:10].mean() <= 3


def count_updates(file: Path) -> int:
    replay = Replay(file)
    replay.read()
    return replay.updates


def test_a_screen_that_changes_its_size(
    qemu: Callable[..., Qemu], directory: Path, tmp_path: Path
) -> None:
    """From QEMU's own first picture over the firmware's text to graphics."""
    disk = directory / "disk"
    disk.write_bytes(SMOOTH.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    machine = qemu("-S", "-vga", "std", "-drive", f"file={disk},format=raw,if=ide,snapshot=on")
    file, dump = tmp_path / "boot.vmrec", directory / "screen.ppm"
    with running("record", f"vnc+unix:{machine.address}", "-o", file) as process:
        until(lambda: drawn(file) is not None)
        machine.qmp("cont")

        def settled() -> bool:
            seen = drawn(file)
            return seen is not None and seen.shape[:2] == SMOOTH_SIZE and bool(seen[-1, 0].any())

        until(settled)
        machine.qmp("screendump", filename=str(dump))
        with Image.open(dump) as image:
            truth = np.asarray(image.convert("RGB"))
        until(lambda: shows(file, truth))
        machine.stop()
        _, said = process.communicate(timeout=PATIENCE)
    # The connection's end is the recording's.
    assert process.returncode == 0, said
    assert b"closed the connection" in said
    np.testing.assert_array_equal(rgb(frame_at(Replay(file)).pixels), truth)
    sizes = json.loads(vmconnect("replay", file, "--json").stdout)["sizes"]
    assert len(sizes) >= 2
    video = tmp_path / "boot.mkv"
    assert vmconnect("replay", file, "--video", video, "--fps", "5").returncode == 0
    with av.open(str(video)) as container:
        last = [each.to_ndarray(format="rgb24") for each in container.decode(video=0)][-1]
    room = max(height for _, height in sizes), max(width for width, _ in sizes)
    assert last.shape[:2] == room
    top, left = ((side - own) // 2 for side, own in zip(room, truth.shape[:2], strict=True))
    middle = last[top : top + truth.shape[0], left : left + truth.shape[1]]
    assert np.abs(middle.astype(int) - truth).mean() <= 3
    frames = tmp_path / "frames"
    assert vmconnect("replay", file, "--frames", frames, "--every", "0.1").returncode == 0
    shapes = set()
    for path in frames.iterdir():
        with Image.open(path) as image:
            shapes.add(image.size)
    assert shapes <= {tuple(size) for size in sizes}


def test_for_a_time(server: RealServer, tmp_path: Path) -> None:
    """What is shown on the way, on a terminal."""
    file = tmp_path / "session.vmrec"
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        command("record", target(server), "-o", file, "--time", "1.5"),
        env={**environment(), "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        said = b""
        with contextlib.suppress(OSError):  # The end of a terminal.
            while data := os.read(controller, 4096):
                said += data
        os.close(controller)
        assert process.wait(PATIENCE) == 0
    assert b"Recording " in said
    assert b" updates, " in said
    replay = Replay(file)
    replay.read()
    assert replay.at >= 1.0


def test_files_that_exist(server: RealServer, tmp_path: Path) -> None:
    file = tmp_path / "session.vmrec"
    file.write_bytes(b"old")
    ask = "record", target(server), "-o", file, "--time", "0.2"
    result = vmconnect(*ask)
    assert (result.returncode, file.read_bytes()) == (1, b"old")
    assert "exists" in result.stderr
    # It stays as it was, too, if there is nothing to record.
    assert vmconnect("record", "vnc+unix:/none", "-o", file, "--force").returncode == 1
    assert file.read_bytes() == b"old"
    assert vmconnect(*ask, "--force").returncode == 0
    assert drawn(file) is not None


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ([], ["no display to open a window on", "--png"]),
        (["--at", "nan"], ["nan is no time"]),
        (["--speed", "0"], ["0 is not from 0.01 to 1000"]),
        (["--fps", "1e9"], ["1e9 is not from"]),
        (["--every", "0"], ["0 is no time"]),
        (["--text"], ["no VGA text screen"]),
        (["--video", "film.gif"], ["film.gif is no video's name"]),
        (["--video", "film.mp4", "--speed", "max"], ["no speed max"]),
        (["--png", "a", "--info"], ["not allowed with"]),
    ],
)
def test_what_replay_refuses(
    tape: Callable[..., Tape], option: list[str], words: list[str]
) -> None:
    made = tape(8, 6)
    made.show(1.0, 1)
    result = vmconnect("replay", made.path, *option)
    assert result.returncode in {1, 2}
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "nothing is drawn"),
        (b"no recording at all, but a text that goes on for longer than a head", "at byte"),
        (b"vmconnect-rfb 1\n" + bytes(16), "impossible pixel format"),
        (b"vmconnect-rfb 1\nabc", "ends in its head"),
    ],
)
def test_what_is_no_recording(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    result = vmconnect("replay", file, "--png", tmp_path / "out.png")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert words in result.stderr
    assert not (tmp_path / "out.png").exists()


def test_what_came_before_damage_counts(tape: Callable[..., Tape], tmp_path: Path) -> None:
    made = tape(8, 6)
    made.show(1.0, 0x102030)
    made.say(2.0, b"\x66")
    for option in (["--png", tmp_path / "a.png"], ["--frames", tmp_path / "frames"], ["--info"]):
        result = vmconnect("replay", made.path, *option)
        assert result.returncode == 1
        assert "session.vmrec: message type: unknown message type 102" in result.stderr
    with Image.open(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == (0x10, 0x20, 0x30)
    assert len(list((tmp_path / "frames").iterdir())) == 1


def test_the_text_of_a_screen(qemu: Callable[..., Qemu], tmp_path: Path) -> None:
    machine = qemu("-vga", "std")
    file = tmp_path / "boot.vmrec"
    with running("record", f"vnc+unix:{machine.address}", "-o", file):
        until(lambda: file.exists() and "SeaBIOS" in vmconnect("replay", file, "--text").stdout)


def window_of(display: Display, process: subprocess.Popen[bytes]) -> str:
    return display.window(process, Deadline(PATIENCE))


def visible(display: Display, window: str) -> Picture:
    x, y, width, height = display.area(window)
    return rgb(display.pixels()[y : y + height, x : x + width])


def title(display: Display, window: str) -> str:
    return display.xdotool("getwindowname", window).strip()


@pytest.mark.parametrize("form", ["ours", "rgb"])
def test_the_window(tape: Callable[..., Tape], form: str) -> None:
    """Whatever the order of colours; keys and buttons are nobody's; it follows the size."""
    made = tape(64, 48, form)
    made.show(0.1, 0x000001)
    made.resize(0.2, 320, 200)
    pixels = noise(320, 200)
    made.say(0.3, update(raw(0, 0, pixels)))
    # As words of 0x00BBGGRR they mean the same bytes the other way round.
    truth = rgb(pixels) if form == "ours" else rgb(pixels)[:, :, ::-1]
    with (
        xvfb() as display,
        running("replay", made.path, "--speed", "max", display=display.name) as process,
    ):
        window = window_of(display, process)
        until(lambda: display.area(window)[2:] == (320, 200))
        until(lambda: bool((visible(display, window) == truth).all()))
        display.xdotool("mousemove", "--window", window, "10", "10", "click", "1", "key", "a")
        assert title(display, window) == "session.vmrec - desk (the end) - vmconnect"
        display.close(window)
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, b"")


def test_the_window_of_what_is_damaged(tape: Callable[..., Tape]) -> None:
    made = tape(64, 48)
    made.show(0.1, 0x40F0C0)
    made.say(0.2, b"\x66")
    with (
        xvfb() as display,
        running("replay", made.path, "--at", "0.1", display=display.name) as process,
    ):
        window = window_of(display, process)
        until(lambda: bool((visible(display, window) == (0x40, 0xF0, 0xC0)).all()))
        until(lambda: "damaged here" in title(display, window))
        display.close(window)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert b"unknown message type 102" in said


def test_a_window_s_session_is_recorded(server: RealServer, tmp_path: Path) -> None:
    file = tmp_path / "session.vmrec"
    ask = "console", target(server), "--record", file
    with xvfb() as display, running(*ask, display=display.name) as process:
        window = window_of(display, process)
        words = screen()
        drawing = Drawing(server.display)
        drawing.put(0, 0, words[:60])
        drawing.sync()
        until(lambda: bool((visible(display, window)[:60] == as_rgb(words)[:60]).all()))
        drawing.close()
        display.close(window)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        with running(*ask, display=display.name) as again:
            _, said = again.communicate(timeout=PATIENCE)
    assert b"exists" in said
    last = drawn(file)
    assert last is not None
    np.testing.assert_array_equal(last[:60], as_rgb(words)[:60])
