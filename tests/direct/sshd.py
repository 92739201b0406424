"""A guest that costs next to nothing: a real sshd of this machine's, behind a hybrid vsock socket.

It listens nowhere else: each connection to the socket gets an ``sshd -i`` of its own.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.openssh import configure_sshd, new_key, sshd_command
from vmconnect.deadline import Deadline
from vmconnect.direct import Guest, Login
from vmconnect.retry import Backoff, Retry
from vmconnect.streams import HybridVsock, dial

__all__ = ["SshdGuest", "sshd_guest"]


class SshdGuest:
    """The way to it, and what happens to it."""

    user = getpass.getuser()

    def __init__(self, directory: Path, *lines: str):
        self.directory = directory
        self.key = directory / "user_key"
        self.socket = directory / "vsock"
        self.target = f"vsock-mux{self.socket}"
        self._servers: list[subprocess.Popen[bytes]] = []
        for name in ("host_key", "user_key"):
            new_key(directory / name)
        configure_sshd(directory, *lines, "AcceptEnv LANG LC_* COLORTERM")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def open(self) -> Guest:
        """Log in."""
        return Guest.open(
            lambda deadline: dial(HybridVsock(str(self.socket), 22), deadline),
            "box",
            Login(self.user, (self.key,), use_agent=False),
            lambda kind, blob: None,
            retry=Retry(Backoff(0.02, 0.25)),
        )

    @property
    def login(self) -> list[str]:
        """What lets the command in."""
        return ["-l", self.user, "-i", str(self.key), "--accept-new-host-key", self.target]

    def cut(self) -> None:
        """End all its servers, as when it loses power: nobody says goodbye."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop all its servers, as when it is paused."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for server in self._servers:
            for pid in [server.pid, *_children(server.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)  # It wakes who accepts.
        self._listener.close()
        self._thread.join()
        self.cut()
        for server in self._servers:
            server.wait()

    def wait_servers(self, number: int) -> None:
        """Wait until so many connections stand."""
        deadline = Deadline(60)
        while sum(server.poll() is None for server in self._servers) != number:
            deadline.check("waiting for sshd")
            time.sleep(0.01)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    line = b""
                    while not line.endswith(b"\n") and (byte := connection.recv(1)):
                        line += byte
                    if line != b"CONNECT 22\n":
                        continue
                    connection.sendall(b"OK 1024\n")
                    self._servers.append(
                        subprocess.Popen(
                            sshd_command(self.directory),
                            stdin=connection.fileno(),
                            stdout=connection.fileno(),
                            stderr=subprocess.DEVNULL,
                            start_new_session=True,
                        )
                    )


def _children(pid: int) -> list[int]:
    """Return a process's descendants."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for word in (task / "children").read_text().split():
                found += [int(word), *_children(int(word))]
    return found


@contextlib.contextmanager
def sshd_guest(directory: Path, *lines: str) -> Iterator[SshdGuest]:
    """Give such a guest; ``lines`` come first in its sshd_config."""
    guest = SshdGuest(directory, *lines)
    try:
        yield guest
    finally:
        guest.close()
