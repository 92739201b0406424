"""What real servers send in each encoding and pixel format, compared with their screen."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from Xlib import X

from vmconnect.vnc import _kernel
from vmconnect.vnc.encodings import FINE_QUALITIES, QUALITIES
from vmconnect.vnc.encodings.tight import TIGHT
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.jobs import WIRE, Jobs, Kind
from vmconnect.vnc.messages import key_event, pointer_event
from vmconnect.vnc.pixel_format import OURS, PixelFormat

from .conftest import Qemu, RealServer
from .support import ENCODINGS, LOSSLESS
from .test_servers import Drawing
from .tightvnc import tightvnc
from .wayvnc import desktop, wayvnc
from .writer import FORMATS
from .x11 import x11_client

PATIENCE = 30.0
# What a colour of a pixel format may differ from the screen's.
STEPS = {"565": 8, "332": 85, "565 big": 8, "555": 8, "map": 255}

Picture = NDArray[np.uint8]


class Watching:
    """A kernel that notes what it draws, but for Raw, which comes as it is."""

    def __init__(self) -> None:
        self.kinds: set[Kind] = set()
        self.Format: Any = _kernel.Format

    def Table(self, jobs: Jobs) -> tuple[Jobs, Any]:  # noqa: N802 (the kernel's name for it)
        return jobs, _kernel.Table(jobs)

    def scan(self, *arguments: Any) -> tuple[int, int, int]:
        unwrapped: Any = [*arguments[:6], arguments[6][1], *arguments[7:]]
        return _kernel.scan(*unwrapped)

    def gather(
        self, data: memoryview, table: Any, count: int, stream: int
    ) -> tuple[bytes | memoryview, int]:
        return _kernel.gather(data, table[1], count, stream)

    def draw_hextile(self, *arguments: Any) -> tuple[int, int, int]:
        self.kinds.add(Kind.HEXTILE)
        return _kernel.draw_hextile(*arguments)

    def draw_zrle(self, *arguments: Any) -> tuple[int, int, int]:
        self.kinds.add(Kind.ZRLE)
        return _kernel.draw_zrle(*arguments)

    def draw(self, data: memoryview, form: Any, table: Any, *rest: Any) -> tuple[int, int, int]:
        jobs = table[0][: rest[1]]
        raw = (jobs["kind"] == Kind.PIXELS) & (jobs["source"] == WIRE)
        self.kinds |= {Kind(kind) for kind in jobs["kind"][~raw].tolist()}
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


def connect(address: Path | int) -> socket.socket:
    """Connect to a UNIX socket, or to a port of this host."""
    if isinstance(address, int):
        return socket.create_connection(("127.0.0.1", address))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(address))
    return connection


def decode_until(
    address: Path | int,
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
    with connect(address) as connection:
        connection.settimeout(1.0)
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


@contextlib.contextmanager
def paint(display: int) -> Iterator[Drawing]:
    """Show the screen on an X server, whose client stays connected: it would else be reset."""
    drawing = Drawing(display)
    for y in range(0, 480, 60):
        drawing.put(0, y, screen()[y : y + 60])
    drawing.sync()
    yield drawing
    drawing.close()


@pytest.fixture
def painted(xtigervnc: Callable[..., RealServer]) -> Iterator[RealServer]:
    server = xtigervnc("-SecurityTypes", "None", "-ac")
    with paint(server.display):
        yield server


@contextlib.contextmanager
def serving(display: int, directory: Path) -> Iterator[Path]:
    """Serve an X display by x11vnc."""
    if shutil.which("x11vnc") is None:
        pytest.skip("needs x11vnc (apt install x11vnc)")
    address = directory / "x11vnc"
    command = ["x11vnc", "-display", f":{display}", "-unixsock", str(address), "-rfbport", "0"]
    # Shared memory of System V outlives its processes: enough of it, and nobody gets more.
    command += ["-forever", "-shared", "-nopw", "-noipv6", "-quiet", "-nocursor", "-norc", "-noshm"]
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


@pytest.fixture
def x11vnc(painted: RealServer, directory: Path) -> Iterator[Path]:
    with serving(painted.display, directory) as address:
        yield address


def truth_of_screen() -> Picture:
    return as_rgb(screen())


def check(
    server: str,
    address: Path | int,
    truth: Callable[[], Picture],
    pseudo: tuple[int, ...] = (-224,),
) -> None:
    """Offer each encoding alone, and look at what comes."""
    for name, case in ENCODINGS[server].items():
        if Kind.COPY in case.kinds:
            continue
        offers = [*case.offers, *pseudo]
        seen = decode_until(address, offers, OURS, truth, case.tolerance)
        assert case.kinds <= seen.kinds, name
        assert bool(seen.kinds) == bool(case.kinds), f"{name}: {seen.kinds}"


def test_xtigervnc(painted: RealServer) -> None:
    check("xtigervnc", painted.address, truth_of_screen)


def check_copies(server: str, address: Path | int, display: int) -> None:
    """Move a part of the screen, and look for CopyRect."""
    drawing = Drawing(display)
    moved = truth_of_screen()
    moved[200:250, 300:400] = moved[20:70, 10:110]

    def truth() -> Picture:
        # Asked for when the first picture is drawn.
        drawing.copy(10, 20, 300, 200, 100, 50)
        drawing.sync()
        return moved

    case = ENCODINGS[server]["CopyRect"]
    seen = decode_until(address, [*case.offers, -224], OURS, truth, case.tolerance)
    assert seen.kinds == case.kinds
    drawing.close()


def test_xtigervnc_copies(painted: RealServer) -> None:
    check_copies("xtigervnc", painted.address, painted.display)


@pytest.mark.parametrize("form", ["rgb", "32 big", "32 high", "565", "565 big", "332"])
def test_xtigervnc_in_pixel_formats(painted: RealServer, form: str) -> None:
    for number in (0, 2, 5, 7, 16):
        # The mean is not bounded by more: colours are rounded down, and by much.
        tolerance = STEPS.get(form, LOSSLESS) * 10
        decode_until(painted.address, [number, -224], FORMATS[form], truth_of_screen, tolerance)


def test_xtigervnc_s_fine_qualities(painted: RealServer) -> None:
    """One goes before the coarse one beside it."""

    def loss(percent: int) -> float:
        offers = (TIGHT.number, -224, QUALITIES[9], FINE_QUALITIES[percent])
        engine = Engine(encodings=offers)
        with connect(painted.address) as connection:
            connection.settimeout(PATIENCE)
            while not engine.framebuffer.drawn or engine.rectangles_left:
                pump(connection, engine)
        engine.receive_end()
        return float(np.abs(engine.framebuffer.rgb().astype(int) - truth_of_screen()).mean())

    assert loss(5) > 4 * loss(95) > 0


def test_tightvnc() -> None:
    # It would draw the pointer.
    with tightvnc("-nocursor") as server, paint(server.display):
        check("tightvnc", server.port, truth_of_screen)
        check_copies("tightvnc", server.port, server.display)
        with paint(server.display):
            for form in ("rgb", "32 big", "10 bits", "565", "565 big", "332", "map"):
                for number in (0, 2, 4, 5, 6, 7):
                    tolerance = STEPS.get(form, LOSSLESS) * 10
                    offered = [number, -224]
                    decode_until(server.port, offered, FORMATS[form], truth_of_screen, tolerance)


def test_x11vnc(x11vnc: Path) -> None:
    check("x11vnc", x11vnc, truth_of_screen)


def test_ten_bits_a_colour(directory: Path) -> None:
    """A screen of depth 30, in its own pixel format and in ours."""
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb (apt install xvfb)")
    reader, writer = os.pipe()
    command = ["Xvfb", "-screen", "0", "640x480x30", "-ac", "-displayfd", str(writer)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, pass_fds=[writer]) as xvfb:
        os.close(writer)
        try:
            with os.fdopen(reader) as lines:
                display = int(lines.readline())
            check_ten_bits(display, directory)
        finally:
            xvfb.kill()


def check_ten_bits(display: int, directory: Path) -> None:
    form = FORMATS["10 bits"]
    words = np.random.default_rng(3).integers(0, 1 << 30, (40, 640), dtype=np.uint32)
    words[20:] = words[0, 0]
    drawing = Drawing(display, depth=30)
    drawing.put(0, 100, words)
    drawing.sync()
    channels = [words >> np.uint32(shift) & np.uint32(1023) for shift in form.shifts]
    truth = np.zeros((480, 640, 3), np.uint8)
    truth[100:140] = np.rint(np.stack(channels, -1) * (255 / 1023))
    with serving(display, directory) as address:
        for number in (0, 2, 4, 5, 6, 7, 16):
            decode_until(address, [number, -224], form, lambda: truth, LOSSLESS)
        # The server divides in its own way.
        decode_until(address, [7, -224], OURS, lambda: truth, 10)
    drawing.close()


def test_x11vnc_copies(painted: RealServer, x11vnc: Path) -> None:
    """It looks for windows that scroll when a key is pressed, and soon."""
    # Without a client's own pointer it copies with one that -nocursor leaves it without, and dies.
    case = ENCODINGS["x11vnc"]["CopyRect"]
    kernel = Watching()
    engine = Engine(encodings=(*case.offers, -224, -239), kernel=kernel)
    down, up = key_event(True, DOWN), key_event(False, DOWN)
    end = time.monotonic() + PATIENCE
    with scrolling(painted.display) as screenshot, connect(x11vnc) as connection:
        connection.settimeout(0.1)
        while not engine.framebuffer.drawn or kernel.kinds != case.kinds:
            if engine.framebuffer.drawn and not engine.rectangles_left:
                connection.sendall(pointer_event(0, *INSIDE) + down + up)
            pump(connection, engine)
            assert time.monotonic() < end
        while not np.array_equal(engine.framebuffer.rgb(), screenshot()):
            pump(connection, engine)
            assert time.monotonic() < end
    engine.receive_end()


DOWN = 0xFF54
INSIDE = 200, 200


def pump(connection: socket.socket, engine: Engine) -> None:
    """Take what comes within the connection's time-out, and answer."""
    with contextlib.suppress(TimeoutError):
        engine.received(connection.recv_into(engine.next_buffer()))
    connection.sendall(engine.data_to_send())


@contextlib.contextmanager
def scrolling(display: int) -> Iterator[Callable[[], Picture]]:
    """Show a window that scrolls with every key; give what takes a picture of the screen."""
    with x11_client(display) as x11:
        root = x11.screen().root
        window = root.create_window(
            *(50, 40, 400, 300, 0, x11.screen().root_depth),
            *(X.InputOutput, X.CopyFromParent),
            background_pixel=0x336699,
            event_mask=X.KeyPressMask,
            override_redirect=1,
        )
        window.map()
        x11.sync()
        window.set_input_focus(X.RevertToParent, X.CurrentTime)
        pen = window.create_gc(foreground=0xFFCC00, graphics_exposures=0)
        for y in range(0, 300, 10):
            window.fill_rectangle(pen, y * 7 % 200, y, 150, 5)
        x11.sync()
        over = threading.Event()

        def scroll() -> None:
            while not over.is_set():
                if x11.pending_events():
                    x11.next_event()
                    window.copy_area(pen, window, 0, 20, 400, 280, 0, 0)
                    window.clear_area(0, 280, 400, 20)
                    x11.sync()
                time.sleep(0.001)

        def screenshot() -> Picture:
            image = root.get_image(0, 0, 640, 480, X.ZPixmap, 0xFFFFFFFF)
            return as_rgb(np.frombuffer(image.data, "<u4").reshape(480, 640))

        thread = threading.Thread(target=scroll)
        thread.start()
        try:
            yield screenshot
        finally:
            over.set()
            thread.join()


def screen_of(machine: Qemu) -> Callable[[], Picture]:
    def dump() -> Picture:
        file = machine.directory / "screen.ppm"
        machine.qmp("screendump", filename=str(file))
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))

    return dump


# What boots from a disk of this one sector: 320x200 pixels in 192 greys that run into each other.
# fmt: off
SMOOTH = bytes((
    0xB8, 0x13, 0x00, 0xCD, 0x10,        # mov ax, 13h; int 10h: the graphics mode
    0xBA, 0xC8, 0x03, 0x30, 0xC0, 0xEE,  # mov dx, 3c8h; xor al, al; out dx, al: the palette
    0x42, 0x31, 0xC9,                    # inc dx; xor cx, cx
    0x88, 0xC8,                          # grey: mov al, cl
    0xC0, 0xE8, 0x02, 0xEE,              # shr al, 2; out dx, al: red
    0x88, 0xC8, 0xFE, 0xC0,              # mov al, cl; inc al
    0xC0, 0xE8, 0x02, 0xEE,              # shr al, 2; out dx, al: green
    0x88, 0xC8, 0x04, 0x02,              # mov al, cl; add al, 2
    0xC0, 0xE8, 0x02, 0xEE,              # shr al, 2; out dx, al: blue
    0xFE, 0xC1, 0x75, 0xE6,              # inc cl; jnz grey
    0x68, 0x00, 0xA0, 0x07, 0x31, 0xFF,  # push a000h; pop es; xor di, di
    0x31, 0xDB, 0x31, 0xC9,              # xor bx, bx; line: xor cx, cx
    0x89, 0xC8, 0x01, 0xD8,              # pixel: mov ax, cx; add ax, bx
    0xD1, 0xE8, 0xAA,                    # shr ax, 1; stosb
    0x41, 0x81, 0xF9, 0x40, 0x01,        # inc cx; cmp cx, 320
    0x75, 0xF2,                          # jne pixel
    0x43, 0x81, 0xFB, 0xC8, 0x00,        # inc bx; cmp bx, 200
    0x75, 0xE9,                          # jne line
    0xEB, 0xFE,                          # stop: jmp stop
))
# fmt: on
SMOOTH_SIZE = 400, 640


@pytest.fixture
def smooth(directory: Path) -> Path:
    """A disk with which QEMU shows a picture that is worth a JPEG."""
    disk = directory / "disk"
    disk.write_bytes(SMOOTH.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    return disk


def test_qemu(qemu: Callable[..., Qemu], smooth: Path) -> None:
    drive = f"file={smooth},format=raw,if=ide,snapshot=on"
    machine = qemu("-vga", "std", "-drive", drive, vnc=",lossy=on")
    truth = screen_of(machine)
    end = time.monotonic() + PATIENCE
    while (dump := truth()).shape[:2] != SMOOTH_SIZE or not dump[-1, 0].any():
        assert time.monotonic() < end, dump.shape
        time.sleep(0.2)
    check("qemu", machine.address, truth, (-223,))


def test_wayvnc(directory: Path) -> None:
    picture = directory / "picture.png"
    Image.fromarray(truth_of_screen()).save(picture)
    with desktop(directory, picture, 640, 480) as display, wayvnc(directory, display) as address:
        check("wayvnc", address, truth_of_screen, (-223,))


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
