"""Many simulated QMP monitors in one process, for what no host has enough QEMUs for.

Each answers as QEMU 7.2 does, byte for byte but for names, a machine that has a VNC display, a
serial port, a guest agent's channel and a CD-ROM drive; and each serves one client at a time.
There is nothing behind them. ::

    python -m tests.hypervisor.monitors DIRECTORY COUNT

prints a line when all listen, and serves until its standard input ends.
"""

from __future__ import annotations

import contextlib
import functools
import json
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vmconnect.deadline import Deadline

_GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": '
    b'"Debian 1:7.2+dfsg-7+deb12u18+b3"}, "capabilities": ["oob"]}}\r\n'
)
_READ_BYTES = 1 << 16


def uuid_of(number: int) -> str:
    """Return the UUID of a simulated machine."""
    return f"{number:08x}-0000-4000-8000-00000000abcd"


def _answers(base: str, name: str, number: int) -> dict[str, Any]:
    """Return what the machine's monitor says, by command, and by path for ``qom-list``."""
    return {
        "qmp_capabilities": {},
        "query-uuid": {"UUID": uuid_of(number)},
        "query-name": {"name": name},
        "query-status": {"status": "running", "singlestep": False, "running": True},
        "query-vnc-servers": [
            {
                "auth": "none",
                "clients": [],
                "server": [
                    {
                        "auth": "none",
                        "family": "unix",
                        "service": f"{base}.vnc",
                        "host": "",
                        "websocket": False,
                    }
                ],
                "id": "default",
            }
        ],
        "/machine/peripheral": [
            {"name": "type", "type": "string"},
            {"name": "cd0", "type": "child<ide-cd>"},
        ],
        "/machine/peripheral-anon": [
            {"name": "type", "type": "string"},
            {"name": "device[0]", "type": "child<virtio-serial-pci>"},
        ],
        "query-chardev": [
            {
                "frontend-open": True,
                "filename": f"unix:{base}.qmp,server=on",
                "label": "compat_monitor0",
            },
            {
                "frontend-open": True,
                "filename": f"disconnected:unix:{base}.serial,server=on",
                "label": "serial0",
            },
            {
                "frontend-open": False,
                "filename": f"disconnected:unix:{base}.qga,server=on",
                "label": "agent",
            },
        ],
    }


class _Monitor:
    """One machine's monitor: a listening socket, and its client if it has one."""

    def __init__(self, loop: _Loop, directory: Path, number: int):
        name = f"vm{number:04}"
        base = f"{directory}/{name}"
        self._loop = loop
        self._answers = {
            key: json.dumps(value).encode() for key, value in _answers(base, name, number).items()
        }
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(f"{base}.qmp")
        self._listener.listen(1)  # As QEMU does.
        self._client: socket.socket | None = None
        self._partial = b""
        loop.add(self._listener, self.accept, select.EPOLLIN | select.EPOLLONESHOT)

    def accept(self) -> None:
        """Take a client; who comes next waits until it has left."""
        self._client, _ = self._listener.accept()
        self._client.setblocking(False)
        self._client.send(_GREETING)
        self._loop.add(self._client, self.serve, select.EPOLLIN)
        self.serve()

    def serve(self) -> None:
        """Answer what has come."""
        assert self._client is not None
        try:
            data = self._client.recv(_READ_BYTES)
            *lines, self._partial = (self._partial + data).split(b"\n")
            self._client.sendall(b"".join(map(self._answer, lines)))
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._loop.remove(self._client)
            self._client.close()
            self._partial = b""
            self._loop.again(self._listener)

    def _answer(self, line: bytes) -> bytes:
        key, number = _asked(line)
        return b'{"return": %b, "id": %d}\r\n' % (self._answers[key], number)


class _Loop:
    """Waits for all sockets, with as little of its own as can be: it takes our processor too."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._poll.register(0, select.EPOLLIN)

    def add(self, sock: socket.socket, handler: Callable[[], None], events: int) -> None:
        self._handlers[sock.fileno()] = handler
        self._poll.register(sock, events)

    def again(self, sock: socket.socket) -> None:
        self._poll.modify(sock, select.EPOLLIN | select.EPOLLONESHOT)

    def remove(self, sock: socket.socket) -> None:
        self._poll.unregister(sock)

    def run(self) -> None:
        """Serve until standard input ends."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == 0:
                    return
                self._handlers[descriptor]()


@functools.lru_cache(maxsize=100)  # All clients ask the same; what serving takes is not measured.
def _asked(line: bytes) -> tuple[str, int]:
    """Return which answer is wanted, and the question's number."""
    asked = json.loads(line)
    command = asked["execute"]
    return asked["arguments"]["path"] if command == "qom-list" else command, asked["id"]


def serve(directory: Path, count: int) -> None:
    """Serve until standard input ends."""
    loop = _Loop()
    for number in range(1, count + 1):
        _Monitor(loop, directory, number)
    print(count, flush=True)
    loop.run()


@contextlib.contextmanager
def monitors(directory: Path, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve that many machines' monitors, vm0001.qmp and so on, from a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hypervisor.monitors", str(directory), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert int(process.stdout.readline()) == count
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(Deadline(60).remaining())


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
