"""A VNC server that says what a recording says, to one client at a time, whatever it is asked."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmconnect.vnc.pixel_format import PixelFormat

CLIENTS = Path(__file__).parent / "clients"

_PIECE = 1 << 18
_PATIENCE_S = 600.0
_INIT = struct.Struct(">HH16sI")


@dataclass(frozen=True)
class Client:
    """A client to measure: its name and the command that takes ADDRESS FORMAT PICTURE."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What a client said of itself, and its screen: (height, width, 3) bytes or nothing."""

    cpu_seconds: float
    memory_bytes: int
    updates: list[int]
    picture: NDArray[np.uint8]


class ClientError(Exception):
    """A client did not do it, and why."""


def python_client(name: str, module: str) -> Client:
    """Return a client that is a module of `bench.clients`."""
    return Client(name, (sys.executable, "-m", f"bench.clients.{module}"))


def libvncclient(directory: Path) -> Client:
    """Compile the client of libvncclient (Debian: libvncserver-dev) and return it."""
    program = directory / "libvncclient"
    source = CLIENTS / "libvncclient.c"
    subprocess.run(["cc", "-O2", "-o", program, source, "-lvncclient"], check=True)
    return Client("libvncclient", (str(program),))


def server_init(width: int, height: int, form: PixelFormat, name: bytes = b"bench") -> bytes:
    """Return a ServerInit message (RFC 6143, section 7.3.2)."""
    return _INIT.pack(width, height, form.pack(), len(name)) + name


def shake_hands(peer: socket.socket) -> None:
    """Let a client in without a login, up to its ClientInit."""
    peer.sendall(b"RFB 003.008\n")
    _take(peer, 12)
    peer.sendall(b"\1\1")
    _take(peer, 1)
    peer.sendall(bytes(4))
    _take(peer, 1)


def send(peer: socket.socket, data: memoryview | bytes) -> None:
    """Send all and hang up, while what the client says is thrown away."""
    drainer = threading.Thread(target=drain, args=(peer,))
    drainer.start()
    try:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            peer.sendall(view[start : start + _PIECE])
        peer.shutdown(socket.SHUT_WR)
    finally:
        drainer.join()


def serve(client: Client, form: PixelFormat, speak: Callable[[socket.socket], None]) -> Run:
    """Run a client once, and ``speak`` to it when it is let in.

    Raises ClientError if the client fails.
    """
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="vmc-"))
        address, picture = Path(name, "vnc"), Path(name, "picture")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen(1)
            listener.settimeout(0.5)
            command = (*client.command, str(address), form.pack().hex(), str(picture))
            # Not a pipe: nobody reads it before the client has hung up, and figures may be many.
            said = stack.enter_context(Path(name, "figures").open("w+b"))
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.PIPE
            ) as process:
                try:
                    # A client that ends before it connects has something to say.
                    if (peer := _accepted(listener, process)) is not None:
                        with peer, contextlib.suppress(ConnectionError):
                            peer.settimeout(_PATIENCE_S)
                            shake_hands(peer)
                            speak(peer)
                    _, errors = process.communicate(timeout=_PATIENCE_S)
                finally:
                    process.kill()
            said.seek(0)
            out = said.read()
        if process.returncode or not out:
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            raise ClientError(f"{client.name}: {last[0] if last else process.returncode}")
        pixels = np.frombuffer(picture.read_bytes(), np.uint8)
    return Run(**json.loads(out), picture=pixels)


def drain(peer: socket.socket) -> None:
    """Throw away what a client says, until it hangs up."""
    with contextlib.suppress(OSError):
        while peer.recv(1 << 16):
            pass


def _accepted(listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket | None:
    """Return a client's connection, None if its process has ended without one."""
    while process.poll() is None:
        with contextlib.suppress(TimeoutError):
            return listener.accept()[0]
    return None


def _take(peer: socket.socket, count: int) -> None:
    while count:
        data = peer.recv(count)
        if not data:
            raise ConnectionResetError("the client hung up")
        count -= len(data)
