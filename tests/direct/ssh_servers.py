"""Many guests' SSH servers with no guests: a real ``sshd -i`` for each connection to a socket.

Each socket is a hybrid vsock device's, as guests have it (``vm0001.vsock`` and so on: the target
``vsock-mux/DIRECTORY/vm0001.vsock``): who says ``CONNECT 22`` is answered, and is then with a sshd
of OpenSSH's. All have one host key and run as this process's user, so their "guests" are this
host. ::

    python -m tests.direct.ssh_servers DIRECTORY COUNT

prints a line when all listen, and serves until its standard input ends. With it ends whatever a
command has left behind. ``tcp`` in the directory has the port of 127.0.0.1 where the same sshd
answers who does not speak vsock.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.openssh import configure_sshd, new_key, sshd_command
from vmconnect.deadline import Deadline
from vmconnect.hypervisor import GuestNote, Machine
from vmconnect.streams import HybridVsock

__all__ = ["SshServers", "ssh_servers"]


class SshServers:
    """The servers of one directory, and what their clients need to know."""

    def __init__(self, directory: Path, count: int):
        self.directory = directory
        self.count = count
        self.identity_file = directory / "user_key"

    @property
    def names(self) -> list[str]:
        """The machines' names."""
        return [_name(number) for number in range(1, self.count + 1)]

    @property
    def host_key(self) -> str:
        """The line of the key that all of them have."""
        return (self.directory / "host_key.pub").read_text().strip()

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 with a sshd on it."""
        return int((self.directory / "tcp").read_text())

    def target(self, name: str) -> str:
        """What a person types for it."""
        return f"vsock-mux{self.directory}/{name}.vsock"

    def machine(self, name: str) -> Machine:
        """The machine as a hypervisor would tell of it that had been left a note."""
        note = GuestNote(getpass.getuser(), str(self.identity_file), self.host_key)
        path = f"{self.directory}/{name}.vsock"
        return Machine(name, name, self.target(name), guest=HybridVsock(path, 22), note=note)

    def configure(self, *lines: str) -> None:
        """Let sshd_config have these lines first, from the next connection on."""
        configure_sshd(self.directory, *lines, "Subsystem sftp internal-sftp")


@contextlib.contextmanager
def ssh_servers(directory: Path, count: int) -> Iterator[SshServers]:
    """Serve that many machines' SSH servers from a process of their own."""
    servers = SshServers(directory, count)
    for name in ("host_key", "user_key"):
        new_key(directory / name)
    servers.configure()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.direct.ssh_servers", str(directory), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert int(process.stdout.readline()) == count
        yield servers
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(Deadline(60).remaining())


def _name(number: int) -> str:
    return f"vm{number:04}"


class _Server:
    """Listens on all sockets; each connection gets a sshd of its own."""

    def __init__(self, directory: Path):
        self._argv = sshd_command(directory)
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ)
        self._children: list[subprocess.Popen[bytes]] = []

    def listen(self, listener: socket.socket, greets: bool) -> None:
        """Serve who connects to a socket; with ``greets`` they say first which port they want."""
        listener.listen(64)
        self._on(listener, functools.partial(self._accept, listener, greets))

    def run(self) -> None:
        """Serve until standard input ends."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == 0:
                    for child in self._children:
                        child.terminate()
                        child.wait()
                    return
                key.data()

    def _on(self, sock: socket.socket, handler: Callable[[], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, handler)

    def _accept(self, listener: socket.socket, greets: bool) -> None:
        connection, _ = listener.accept()
        if greets:
            self._on(connection, functools.partial(self._greet, connection))
        else:
            self._serve(connection)

    def _greet(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        if connection.recv(64) == b"CONNECT 22\n":
            connection.send(b"OK 1024\n")
            self._serve(connection)
        connection.close()

    def _serve(self, connection: socket.socket) -> None:
        self._children = [child for child in self._children if child.poll() is None]
        ends = connection.fileno()
        with connection:
            self._children.append(subprocess.Popen(self._argv, stdin=ends, stdout=ends))


def serve(directory: Path, count: int) -> None:
    """Serve until standard input ends."""
    server = _Server(directory)
    for number in range(1, count + 1):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{directory}/{_name(number)}.vsock")
        server.listen(listener, greets=True)
    tcp = socket.create_server(("127.0.0.1", 0))
    (directory / "tcp").write_text(str(tcp.getsockname()[1]))
    server.listen(tcp, greets=False)
    print(count, flush=True)
    server.run()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
