"""The console against real servers: QEMU and Xtigervnc."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vmconnect.errors import AuthenticationError, ConnectionLostError, UnsupportedError
from vmconnect.vnc import Console
from vmconnect.vnc.events import Event, Resized, ResizeStatus, ScancodesAccepted, Screen
from vmconnect.vnc.framebuffer import Pixels

from .conftest import Qemu, RealServer
from .wire import noise

PATIENCE = 30.0
FIRMWARE_SIZE = 720, 400


def read_ppm(path: Path) -> Pixels:
    """Read a PPM file of QEMU's screendump as words of 0x00RRGGBB."""
    magic, width, height, depth, body = path.read_bytes().split(maxsplit=4)
    assert (magic, depth) == (b"P6", b"255")
    rgb = np.frombuffer(body, np.uint8).reshape(int(height), int(width), 3).astype(np.uint32)
    pixels: Pixels = (rgb << np.array([16, 8, 0], np.uint32)).sum(axis=2, dtype=np.uint32)
    return pixels


def wait_for_text(console: Console) -> None:
    """Wait until the firmware has written some lines."""
    console.wait_for(
        lambda console: (
            console.size == FIRMWARE_SIZE
            and int(np.count_nonzero(console.framebuffer.pixels)) > 2000
        ),
        PATIENCE,
    )


def wait_for_picture(console: Console, expected: Callable[[], Pixels]) -> None:
    """Wait until the console shows what it should, to the last pixel."""
    end = time.monotonic() + PATIENCE
    while True:
        shown, wanted = console.pixels(), expected()
        if np.array_equal(shown, wanted):
            return
        if time.monotonic() > end:
            np.testing.assert_array_equal(shown, wanted)
        time.sleep(0.05)


def test_qemu_screen_is_its_screendump(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-vga", "std", "-S")
    with server.open() as console:
        before = console.size
        events: list[Event] = []
        console.subscribe(events.append)
        server.qmp("cont")
        wait_for_text(console)
        if before != FIRMWARE_SIZE:
            assert any(isinstance(event, Resized) and event.changed for event in events)
        server.qmp("stop")
        dump = server.directory / "dump.ppm"

        def screendump() -> Pixels:
            server.qmp("screendump", filename=str(dump))
            return read_ppm(dump)

        # The text cursor blinks even now: its two phases are as good as each other.
        wait_for_picture(console, screendump)
        assert np.count_nonzero(console.pixels()) > 2000
        assert console.desktop_name == "QEMU"
        with pytest.raises(UnsupportedError, match="takes no such size"):
            console.resize(800, 600, PATIENCE)


def test_qemu_says_what_it_can(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-vga", "std", "-name", "web01")
    with server.open() as console:
        assert console.desktop_name == "QEMU (web01)"
        # All this has come when open() returns, or keys would go out in two ways.
        assert console._engine.scancodes
        assert console._engine.leds is not None
        assert not console.mouse.absolute
        assert console.screens[0].width == console.width


def test_qemu_takes_scancodes(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-vga", "std")
    with server.open() as console:
        wait_for_text(console)
        with server.monitor_events() as events:
            console.keyboard.press("ctrl", "alt", "delete")
            assert any(event == "RESET" for event in events)


SYMBOLS = "Aa Zz 09 ~!@#$%^&*()_+ `-=[];',. {}:<>?|"


def test_qemu_takes_what_is_typed(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-vga", "none", "-monitor", "vc")
    with server.open() as console:
        console.pixels(PATIENCE)
        console.type(f'screendump "{server.directory}/{SYMBOLS}"\n')
        wanted = server.directory / SYMBOLS
        end = time.monotonic() + PATIENCE
        while not wanted.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert sorted(path.name for path in server.directory.iterdir()) == [SYMBOLS, "qmp", "vnc"]
        # It may be gone before the last key is let go.
        with pytest.raises(ConnectionLostError):
            console.type("quit\n")
            console.wait_for(lambda _: False, PATIENCE)
        assert server.process.wait(PATIENCE) == 0


def test_qemu_password(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-vga", "std", "-object", "secret,id=p,data=s3cret", vnc=",password-secret=p")
    with server.open("s3cret") as console:
        assert console.pixels(PATIENCE).size
    # Only eight characters count.
    with pytest.raises(AuthenticationError, match="real: the VNC server refuses the login"):
        server.open("s3cret-")
    with pytest.raises(AuthenticationError, match="asks for a password"):
        server.open()


def test_qemu_goes_away(qemu: Callable[..., Qemu]) -> None:
    server = qemu("-vga", "std")
    with server.open() as console:
        server.stop()
        with pytest.raises(ConnectionLostError):
            console.wait_for(lambda _: False, PATIENCE)
        assert isinstance(console.reason, ConnectionLostError)


class Drawing:
    """An X11 client that draws on the root window (X Window System Protocol, version 11)."""

    def __init__(self, display: int, depth: int = 24):
        self._depth = depth
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(f"/tmp/.X11-unix/X{display}")
        self._socket.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0))
        success, units = struct.unpack("<B5xH", self._read(8))
        assert success == 1
        setup = self._read(units * 4)
        self._gc = struct.unpack_from("<I", setup, 4)[0]
        vendor, formats = struct.unpack_from("<H3xB", setup, 16)
        self._root = struct.unpack_from("<I", setup, 32 + (vendor + 3) // 4 * 4 + formats * 8)[0]
        # GraphicsExposures off: nobody reads them.
        self._ask(55, 0, struct.pack("<IIII", self._gc, self._root, 1 << 16, 0))

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            assert piece
            data += piece
        return data

    def _ask(self, opcode: int, detail: int, body: bytes) -> None:
        self._socket.sendall(struct.pack("<BBH", opcode, detail, 1 + len(body) // 4) + body)

    def put(self, x: int, y: int, pixels: Pixels) -> None:
        """PutImage, ZPixmap."""
        height, width = pixels.shape
        head = struct.pack("<IIHHhhBBxx", self._root, self._gc, width, height, x, y, 0, self._depth)
        self._ask(72, 2, head + pixels.astype("<u4").tobytes())

    def copy(  # noqa: PLR0917 (the protocol's)
        self, from_x: int, from_y: int, x: int, y: int, width: int, height: int
    ) -> None:
        """CopyArea."""
        places = struct.pack("<hhhhHH", from_x, from_y, x, y, width, height)
        self._ask(62, 0, struct.pack("<III", self._root, self._root, self._gc) + places)

    def sync(self) -> None:
        """GetInputFocus, for its reply."""
        self._ask(43, 0, b"")
        assert self._read(32)[0] == 1

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def drawing(xtigervnc: Callable[..., RealServer]) -> Iterator[tuple[RealServer, Drawing]]:
    server = xtigervnc("-SecurityTypes", "None", "-ac")
    drawing = Drawing(server.display)
    yield server, drawing
    drawing.close()


def test_xtigervnc_pictures_and_copies(drawing: tuple[RealServer, Drawing]) -> None:
    server, x11 = drawing
    with server.open() as console:
        assert console.size == (640, 480)
        x11.put(0, 0, noise(320, 200))
        x11.sync()
        expected = np.zeros((480, 640), np.uint32)
        expected[:200, :320] = noise(320, 200)
        expected_rest = console.pixels()[300, 500]
        expected[200:], expected[:200, 320:] = expected_rest, expected_rest
        wait_for_picture(console, lambda: expected)
        for from_x, from_y, x, y in ((0, 0, 10, 7), (10, 7, 0, 3), (5, 5, 300, 250)):
            x11.copy(from_x, from_y, x, y, 300, 190)
            x11.sync()
            source = expected[from_y : from_y + 190, from_x : from_x + 300].copy()
            expected[y : y + 190, x : x + 300] = source
            wait_for_picture(console, lambda: expected)


def test_xtigervnc_takes_another_size(drawing: tuple[RealServer, Drawing]) -> None:
    server, x11 = drawing
    with server.open() as console:
        for size in ((800, 600), (333, 222)):
            assert console.resize(*size, PATIENCE) is ResizeStatus.OK
            assert console.size == size
            assert console.pixels(PATIENCE).shape == size[::-1]
        x11.put(300, 200, noise(33, 22))
        x11.sync()
        expected = console.pixels()
        expected[200:, 300:] = noise(33, 22)
        wait_for_picture(console, lambda: expected)


def test_xtigervnc_takes_two_heads(drawing: tuple[RealServer, Drawing]) -> None:
    server, _ = drawing
    with server.open() as console:
        (only,) = console.screens
        heads = Screen(only.id, 0, 0, 500, 400), Screen(only.id + 1, 500, 0, 300, 400)
        assert console.resize(800, 400, PATIENCE, screens=heads) is ResizeStatus.OK
        assert console.size == (800, 400)
        areas = sorted((head.x, head.width, head.height) for head in console.screens)
        assert areas == [(0, 500, 400), (500, 300, 400)]
        # One that lies outside.
        with pytest.raises(UnsupportedError, match="takes no such size"):
            console.resize(800, 400, PATIENCE, screens=[Screen(only.id, 700, 0, 300, 400)])
        with pytest.raises(UnsupportedError, match="no screen can be 70000x400 with 1 heads"):
            console.request_size(70000, 400)
        with pytest.raises(UnsupportedError, match="with 256 heads"):
            console.request_size(800, 400, heads[:1] * 256)
        assert console.alive


def test_xtigervnc_takes_no_scancodes_unless_it_says_so(
    drawing: tuple[RealServer, Drawing],
) -> None:
    server, _ = drawing
    with server.open() as console:
        events: list[Event] = []
        console.subscribe(events.append)
        told = any(isinstance(event, ScancodesAccepted) for event in events)
        assert console._engine.scancodes or not told
        console.keyboard.press("a")
        console.mouse.click()
        console.refresh(PATIENCE)
        assert console.alive


def test_xtigervnc_password(xtigervnc: Callable[..., RealServer], directory: Path) -> None:
    file = directory / "passwd"
    obfuscated = subprocess.run(
        ["vncpasswd", "-f"], input=b"s3cret!", stdout=subprocess.PIPE, check=True
    )
    file.write_bytes(obfuscated.stdout)
    server = xtigervnc("-SecurityTypes", "VncAuth", "-PasswordFile", str(file))
    with server.open("s3cret!") as console:
        assert console.pixels(PATIENCE).shape == (480, 640)
    with pytest.raises(AuthenticationError, match="refuses the login with VncAuth"):
        server.open("s3cret?")
    # Xtigervnc shuts out who has been wrong too often; what it says then is a ConnectError.
