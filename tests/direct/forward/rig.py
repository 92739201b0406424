"""A guest without a machine: real sshd processes behind a hybrid vsock socket.

What is played is the vsock device alone: for each connection that asks for port 22 an ``sshd -i``
is started on it, as a guest's systemd does.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.openssh import configure_sshd, new_key, sshd_command
from vmconnect.direct import Guest
from vmconnect.session import Session, TrustStore, connect

WAIT = 60.0


class PlayedGuest:
    """The guest; what its sshd allows may be changed for connections to come."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.key = directory / "user_key"
        self.path = directory / "guest.vsock"
        self.target = f"vsock-mux{self.path}"
        for name in ("host_key", "user_key"):
            new_key(directory / name)
        self.serve()
        self._servers: list[subprocess.Popen[bytes]] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen(16)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def serve(self, *lines: str) -> None:
        """Let sshd_config have these lines first."""
        configure_sshd(self.directory, *lines, "MaxSessions 256", "Subsystem sftp internal-sftp")

    @contextlib.contextmanager
    def logged_in(self) -> Iterator[Guest]:
        """Give a guest channel, in a session of its own."""
        machine = connect(self.target).machine
        with Session(machine, TrustStore(self.directory / "known")) as session:
            yield session.guest(
                user=getpass.getuser(),
                identity_files=[self.key],
                accept_host_key=lambda _key: True,
                timeout=WAIT,
            )

    def cut(self) -> None:
        """End every connection, as a guest that is switched off does."""
        servers, self._servers = self._servers, []
        for each in servers:
            # With the process that it has forked for the user.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                asked = b""
                while not asked.endswith(b"\n"):
                    asked += connection.recv(1) or b"\n"
                if asked != b"CONNECT 22\n":
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


@contextlib.contextmanager
def played_guest() -> Iterator[PlayedGuest]:
    """Give a guest, and end it."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        guest = PlayedGuest(Path(name))
        try:
            yield guest
        finally:
            guest.close()
