"""What real servers send in each encoding and pixel format, compared with their screen."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vmconnect.vnc import _kernel
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.jobs import Jobs, Kind
from vmconnect.vnc.pixel_format import OURS, PixelFormat

from .conftest import Qemu, RealServer
from .test_servers import Drawing
from .writer import FORMATS

PATIENCE = 30.0
QUALITY = -32
LOSSLESS = 0
# What a colour of a pixel format may differ from the screen's.
STEPS = {"565": 8, "332": 85, "565 big": 8, "555": 8, "map": 255}

Picture = NDArray[np.uint8]


class Watching:
    """A kernel that notes what it draws."""

    def __init__(self) -> None:
        self.kinds: set[Kind] = set()
        self.Format: Any = _kernel.Format
        self.measure_hextile: Any = _kernel.measure_hextile

    def Table(self, jobs: Jobs) -> tuple[Jobs, Any]:  # noqa: N802 (the kernel's name for it)
        return jobs, _kernel.Table(jobs)

    def scan(self, *arguments: Any) -> tuple[int, int, int]:
        unwrapped: Any = [*arguments[:6], arguments[6][1], *arguments[7:]]
        return _kernel.scan(*unwrapped)

    def gather(
        self, data: memoryview, table: Any, count: int, stream: int
    ) -> tuple[bytes | memoryview, int]:
        return _kernel.gather(data, table[1], count, stream)

    def draw(self, data: memoryview, form: Any, table: Any, *rest: Any) -> tuple[int, int, int]:
        self.kinds |= {Kind(kind) for kind in table[0]["kind"][: rest[1]].tolist()}
        return _kernel.draw(data, form, table[1], *rest)


def screen() -> NDArray[np.uint32]:
    """Return a picture with something for every method: flat, text-like, smooth, noise."""
    chance = np.random.default_rng(5)
    picture: Picture = np.full((480, 640, 3), (30, 60, 90), np.uint8)
    picture[10:60, 10:300] = chance.choice(np.array([[0, 0, 0], [250, 250, 250]]), (50, 290))
    picture[70:130, 10:300] = chance.integers(0, 255, (9, 3))[chance.integers(0, 9, (60, 290))]
    picture[150:280, 20:200, 0] = np.arange(180)
    picture[150:280, 20:200, 1] = np.arange(130)[:, None]
    picture[300:400, 100:400] = chance.integers(0, 256, (100, 300, 3))
    for stripe in range(0, 200, 8):
        picture[20:440, 420 + stripe : 424 + stripe] = (stripe, 255 - stripe, 128)
    words = np.zeros((480, 640), np.uint32)
    for channel in range(3):
        words = words << np.uint32(8) | picture[:, :, channel]
    return words


def decode_until(
    address: Path,
    numbers: Sequence[int],
    form: PixelFormat,
    truth: Callable[[], Picture],
    tolerance: float,
) -> Watching:
    """Connect with these encodings until the picture is as it should be.

    ``tolerance`` bounds each colour's difference, and the mean of all to a tenth of it.
    """
    kernel = Watching()
    engine = Engine(encodings=numbers, pixel_format=form, kernel=kernel)
    end = time.monotonic() + PATIENCE
    worst = mean = float("inf")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(str(address))
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                count = connection.recv_into(engine.next_buffer())
                assert count, engine.receive_end()
                engine.received(count)
            if out := engine.data_to_send():
                connection.sendall(out)
            if engine.framebuffer.drawn and not engine.rectangles_left:
                expected = truth()
                if engine.framebuffer.rgb().shape != expected.shape:
                    continue
                difference = np.abs(engine.framebuffer.rgb().astype(int) - expected)
                worst, mean = float(difference.max()), float(difference.mean())
                if worst <= tolerance and mean <= tolerance / 10:
                    engine.receive_end()
                    return kernel
    pytest.fail(f"off by up to {worst}, {mean:.2f} on average; drawn as {kernel.kinds}")


def as_rgb(words: NDArray[np.uint32]) -> Picture:
    return np.stack([words >> 16 & 255, words >> 8 & 255, words & 255], -1).astype(np.uint8)


@pytest.fixture
def painted(xtigervnc: Callable[..., RealServer]) -> Iterator[RealServer]:
    server = xtigervnc("-SecurityTypes", "None", "-ac")
    drawing = Drawing(server.display)
    for y in range(0, 480, 60):
        drawing.put(0, y, screen()[y : y + 60])
    drawing.sync()
    yield server
    drawing.close()


@pytest.fixture
def x11vnc(painted: RealServer, directory: Path) -> Iterator[Path]:
    if shutil.which("x11vnc") is None:
        pytest.skip("needs x11vnc (apt install x11vnc)")
    address = directory / "x11vnc"
    command = [
        "x11vnc",
        "-display",
        f":{painted.display}",
        "-unixsock",
        str(address),
        "-rfbport",
        "0",
    ]
    command += ["-forever", "-shared", "-nopw", "-noipv6", "-quiet", "-nocursor", "-norc"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        end = time.monotonic() + PATIENCE
        while not address.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield address
        process.kill()


def truth_of_screen() -> Picture:
    return as_rgb(screen())


Case = tuple[list[int], set[Kind], int]
"""Encodings that are offered, what at least must be drawn then, and how exactly."""

XTIGERVNC: list[Case] = [
    # The network writes where the kernel would draw.
    ([0], set(), LOSSLESS),
    ([2], {Kind.RRE}, LOSSLESS),
    ([5], {Kind.HEXTILE}, LOSSLESS),
    ([16], {Kind.ZRLE}, LOSSLESS),
    ([7], {Kind.FILL, Kind.INDICES, Kind.TPIXELS}, LOSSLESS),
    ([7, QUALITY + 8], {Kind.IMAGE}, 60),
]


def test_xtigervnc(painted: RealServer) -> None:
    for numbers, kinds, tolerance in XTIGERVNC:
        seen = decode_until(painted.address, [*numbers, -224], OURS, truth_of_screen, tolerance)
        assert kinds <= seen.kinds, numbers


@pytest.mark.parametrize("form", ["rgb", "32 big", "32 high", "565", "565 big", "332"])
def test_xtigervnc_in_pixel_formats(painted: RealServer, form: str) -> None:
    for number in (0, 2, 5, 7, 16):
        # The mean is not bounded by more: colours are rounded down, and by much.
        tolerance = STEPS.get(form, LOSSLESS) * 10
        decode_until(painted.address, [number, -224], FORMATS[form], truth_of_screen, tolerance)


# libvncserver's, one server for all: it is slow to start.
X11VNC: list[Case] = [
    ([0], set(), LOSSLESS),
    ([2], {Kind.RRE}, LOSSLESS),
    ([4], {Kind.CORRE}, LOSSLESS),
    ([5], {Kind.HEXTILE}, LOSSLESS),
    ([6], {Kind.PIXELS}, LOSSLESS),
    ([7], {Kind.FILL, Kind.TPIXELS}, LOSSLESS),
    ([7, -256], {Kind.TPIXELS}, LOSSLESS),
    ([7, QUALITY + 9], {Kind.IMAGE}, 255),
    ([16], {Kind.ZRLE}, LOSSLESS),
    *(([17, QUALITY + quality], {Kind.ZYWRLE}, 255) for quality in (9, 7, 4, 0)),
    ([17], {Kind.ZYWRLE}, 255),
]


def test_x11vnc(x11vnc: Path) -> None:
    for numbers, kinds, tolerance in X11VNC:
        seen = decode_until(x11vnc, [*numbers, -224], OURS, truth_of_screen, tolerance)
        assert kinds <= seen.kinds, numbers


def screen_of(machine: Qemu) -> Callable[[], Picture]:
    def dump() -> Picture:
        file = machine.directory / "screen.ppm"
        machine.qmp("screendump", filename=str(file))
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))

    return dump


QEMU: list[Case] = [
    ([0], set(), LOSSLESS),
    ([5], {Kind.HEXTILE}, LOSSLESS),
    ([6], {Kind.PIXELS}, LOSSLESS),
    ([7], {Kind.FILL, Kind.BITS}, LOSSLESS),
    ([16], {Kind.ZRLE}, LOSSLESS),
    ([17], {Kind.ZRLE}, LOSSLESS),
    ([17, QUALITY + 5], {Kind.ZYWRLE}, LOSSLESS),
    ([-260], {Kind.FILL, Kind.IMAGE}, LOSSLESS),
]


def test_qemu(qemu: Callable[..., Qemu]) -> None:
    machine = qemu("-vga", "std", vnc=",lossy=on")
    # The firmware says that there is nothing to boot, and stays at that.
    time.sleep(4)
    for numbers, kinds, tolerance in QEMU:
        offered = [*numbers, -223]
        seen = decode_until(machine.address, offered, OURS, screen_of(machine), tolerance)
        assert kinds <= seen.kinds, numbers


def test_qemu_in_pixel_formats(qemu: Callable[..., Qemu]) -> None:
    machine = qemu("-vga", "std")
    time.sleep(4)
    # Not "32 big": QEMU 7.2 sends its bytes one place off.
    for form in ("rgb", "565", "565 big", "332", "map"):
        for number in (0, 5, 7, 16):
            tolerance = STEPS.get(form, LOSSLESS) * 10
            offered = [number, -223]
            truth = screen_of(machine)
            decode_until(machine.address, offered, FORMATS[form], truth, tolerance)
