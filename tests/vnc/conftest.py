"""Real VNC servers, QEMU and Xtigervnc, on UNIX sockets; and a place for played ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from vmconnect.errors import ConnectError
from vmconnect.streams import Stream, Unix, dial
from vmconnect.vnc import Console

from .authority import Authority
from .played import Place, console_threads

START_SECONDS = 30.0

USER, PASSWORD = "alice", "opensesame"
"""Whom servers with users know."""


class RealServer:
    """A VNC server's process, and where it listens."""

    display = -1
    """The X display, of those that have one."""

    def __init__(self, arguments: list[str], directory: Path, address: Path, *inherit: int):
        self.directory = directory
        self.address = address
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=inherit,
        )

    def wait(self) -> None:
        """Wait until it listens."""
        end = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, self.process.args
            with contextlib.suppress(ConnectError):
                dial(Unix(str(self.address))).close()
                return
            assert time.monotonic() < end
            time.sleep(0.02)

    def open(self, password: str | None = None) -> Console:
        def opener(deadline: object) -> Stream:
            return dial(Unix(str(self.address)), deadline)  # type: ignore[arg-type]

        return Console.open(opener, "real", password=password, timeout=START_SECONDS)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Qemu(RealServer):
    """A QEMU without a disk: its firmware's text is on the screen."""

    def __init__(self, directory: Path, *options: str, vnc: str = ""):
        address = directory / "vnc"
        self.monitor = directory / "qmp"
        arguments = ["qemu-system-x86_64", "-nodefaults", "-accel", "tcg", "-m", "32"]
        arguments += ["-display", "none", "-vnc", f"unix:{address}{vnc}"]
        arguments += ["-qmp", f"unix:{self.monitor},server=on,wait=off", *options]
        super().__init__(arguments, directory, address)

    @contextlib.contextmanager
    def _qmp(self) -> Iterator[TextIO]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_SECONDS)
            connection.connect(str(self.monitor))
            with connection.makefile("rw") as lines:
                lines.readline()
                _run(lines, "qmp_capabilities", {})
                yield lines

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Run a command of QEMU's monitor."""
        with self._qmp() as lines:
            return _run(lines, command, arguments)

    @contextlib.contextmanager
    def monitor_events(self) -> Iterator[Iterator[str]]:
        """Give the names of the events that happen in the ``with``, as they come."""
        with self._qmp() as lines:
            yield (json.loads(line)["event"] for line in lines)


def _run(lines: TextIO, command: str, arguments: dict[str, Any]) -> Any:
    lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    lines.flush()
    while "return" not in (answer := json.loads(lines.readline())):
        assert "error" not in answer, answer
    return answer["return"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory whose paths are short enough for a UNIX socket."""
    path = Path(tempfile.mkdtemp(prefix="vmc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def qemu(directory: Path) -> Iterator[Callable[..., Qemu]]:
    """Start QEMUs with the given options."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs QEMU (apt install qemu-system-x86)")
    with contextlib.ExitStack() as stack:

        def start(*options: str, vnc: str = "") -> Qemu:
            server = Qemu(directory, *options, vnc=vnc)
            stack.callback(server.stop)
            server.wait()
            return server

        yield start


@pytest.fixture
def xtigervnc(directory: Path) -> Iterator[Callable[..., RealServer]]:
    """Start Xtigervncs with the given options; ``directory`` holds the display's socket."""
    if shutil.which("Xtigervnc") is None:
        pytest.skip("needs Xtigervnc (apt install tigervnc-standalone-server)")
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> RealServer:
            address = directory / "vnc"
            arguments = ["Xtigervnc", "-rfbunixpath", str(address), "-rfbport", "-1"]
            arguments += ["-geometry", "640x480", "-depth", "24", *options]
            reader, writer = os.pipe()
            with os.fdopen(reader) as lines:
                try:
                    arguments += ["-displayfd", str(writer)]
                    server = RealServer(arguments, directory, address, writer)
                finally:
                    os.close(writer)
                stack.callback(server.stop)
                server.display = int(lines.readline())
            server.wait()
            return server

        yield start


@pytest.fixture
def sasl(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let QEMU's SASL know a user."""
    if shutil.which("saslpasswd2") is None:
        pytest.skip("needs saslpasswd2 (apt install sasl2-bin libsasl2-modules)")
    database = directory / "sasldb"
    words = ["saslpasswd2", "-p", "-c", "-f", str(database), "-u", socket.gethostname(), USER]
    subprocess.run(words, input=PASSWORD.encode(), check=True)
    # Whoever runs QEMU reads it.
    (directory / "qemu.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\n"
        "mech_list: gssapi scram-sha-256 scram-sha-1 digest-md5 plain anonymous\n"
    )
    monkeypatch.setenv("SASL_CONF_PATH", str(directory))


@pytest.fixture
def authority(directory: Path) -> Authority:
    return Authority(directory / "pki")


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    for server in place.all:
        server.socket.close()
        assert server.stream.fileno() == -1
    assert not console_threads()


@pytest.fixture
def console(place: Place) -> Iterator[Console]:
    with place.console() as console:
        yield console
