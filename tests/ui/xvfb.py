"""A real X server without a screen, and what a person at it would see and do."""

import contextlib
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import Xlib.display
import Xlib.protocol.event
from numpy.typing import NDArray

from vmconnect.deadline import Deadline

__all__ = ["Display", "xvfb"]


class Display:
    """An Xvfb: its name, its pixels, and xdotool's hands."""

    def __init__(self, name: str, framebuffer: Path):
        self.name = name
        self._framebuffer = framebuffer
        self.env = {**os.environ, "DISPLAY": name}

    def pixels(self) -> NDArray[np.uint32]:
        """Return the screen, (height, width) words of 0x00RRGGBB, off its XWD file."""
        data = self._framebuffer.read_bytes()
        header = struct.unpack(">25I", data[:100])
        start, width, height, stride, colours = (header[n] for n in (0, 4, 5, 12, 19))
        image = np.frombuffer(data, np.uint8, stride * height, start + colours * 12)
        words = image.reshape(height, stride)[:, : width * 4].copy().view("<u4")
        return (words & 0xFFFFFF).astype(np.uint32)

    def xdotool(self, *arguments: str) -> str:
        """Run xdotool and return what it prints."""
        return subprocess.run(
            ["xdotool", *arguments], env=self.env, capture_output=True, text=True, check=True
        ).stdout

    def window(self, process: subprocess.Popen[bytes], deadline: Deadline) -> str:
        """Wait for the window of a process of ours and return its number."""
        while True:
            deadline.check("waiting for the window")
            assert process.poll() is None, process.communicate()
            found = subprocess.run(
                ["xdotool", "search", "--onlyvisible", "--class", "vmconnect"],
                env=self.env,
                capture_output=True,
                text=True,
                check=False,
            ).stdout.split()
            if found:
                return found[0]

    def close(self, window: str) -> None:
        """Ask a window to close, as its frame's button does (ICCCM, section 4.2.8.1)."""
        connection = Xlib.display.Display(self.name)
        protocols, delete = (
            connection.intern_atom(name) for name in ("WM_PROTOCOLS", "WM_DELETE_WINDOW")
        )
        target = connection.create_resource_object("window", int(window))
        target.send_event(
            Xlib.protocol.event.ClientMessage(
                window=target, client_type=protocols, data=(32, [delete, 0, 0, 0, 0])
            )
        )
        connection.sync()
        connection.close()

    def area(self, window: str) -> tuple[int, int, int, int]:
        """Return a window's x, y, width and height."""
        words = dict(
            line.split("=") for line in self.xdotool("getwindowgeometry", "--shell", window).split()
        )
        return int(words["X"]), int(words["Y"]), int(words["WIDTH"]), int(words["HEIGHT"])


@contextlib.contextmanager
def xvfb(size: str = "1280x1024x24") -> Iterator[Display]:
    """Run an Xvfb for the time of a ``with`` block; it chooses its own number."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as directory:
        ours, theirs = os.pipe()
        server = subprocess.Popen(
            [
                *("Xvfb", "-displayfd", str(theirs), "-screen", "0", size),
                # Without -noreset it starts anew, and drops who is just connecting, each time
                # that its last client (an xdotool) goes.
                *("-fbdir", directory, "-nolisten", "tcp", "-noreset"),
            ],
            pass_fds=[theirs],
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        try:
            with os.fdopen(ours) as answer:
                number = answer.readline().strip()
            assert number, "Xvfb did not start"
            yield Display(f":{number}", Path(directory) / "Xvfb_screen0")
        finally:
            server.terminate()
            server.wait()
