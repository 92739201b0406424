"""TightVNC's X server for the tests, on loopback: it knows no UNIX sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["TightVnc", "tightvnc"]

START_SECONDS = 30.0
_FIRST_DISPLAY = 200
_SOCKETS = Path("/tmp/.X11-unix")


@dataclasses.dataclass(frozen=True)
class TightVnc:
    """Where it listens, for VNC clients and for X11's."""

    port: int
    display: int


@contextlib.contextmanager
def tightvnc(*options: str) -> Iterator[TightVnc]:
    """Run an X server of 640x480 pixels."""
    if shutil.which("Xtightvnc") is None:
        pytest.skip("needs TightVNC (apt install tightvncserver xfonts-base)")
    display = _FIRST_DISPLAY
    while (_SOCKETS / f"X{display}").exists() or Path(f"/tmp/.X{display}-lock").exists():
        display += 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["Xtightvnc", f":{display}", "-rfbport", str(port), "-localhost"]
    command += ["-geometry", "640x480", "-depth", "24", "-ac", "-nolisten", "tcp", *options]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                assert process.poll() is None, command
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                assert time.monotonic() < end
                time.sleep(0.02)
            yield TightVnc(port, display)
        finally:
            # It takes its socket and its lock away.
            process.terminate()
            process.wait()
