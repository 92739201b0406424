from __future__ import annotations

import fcntl
import os
import pty
import struct
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.direct.sshd import sshd_guest
from vmconnect.direct import Guest
from vmconnect.direct.terminal import Terminal
from vmconnect.ui.raw_terminal import RawTerminal
from vmconnect.ui.shell_session import ShellScreen, ShellSession


@pytest.fixture
def guest() -> Iterator[Guest]:
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as name,
        sshd_guest(Path(name)) as box,
        box.open() as guest,
    ):
        yield guest


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: a person's, and the program's."""
    person, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    yield person, program
    os.close(person)
    os.close(program)


def test_a_size_that_has_changed_since_the_shell_was_told(
    guest: Guest, ends: tuple[int, int]
) -> None:
    person, program = ends
    before = termios.tcgetattr(program)
    terminal = RawTerminal(program, program)
    assert terminal.size == (100, 30)
    screen = ShellScreen(terminal)
    script = (
        "n=0; while [ $n -lt 200 ] && [ \"$(stty size)\" = '24 80' ]; do sleep 0.05; n=$((n+1)); "
    )
    with guest.shell(
        ["sh", "-c", script + "done; stty size; exit 4"],
        terminal=Terminal("dumb", 80, 24),
        output=screen.write,
    ) as shell:
        result = ShellSession(shell, screen, terminal, size=(80, 24)).run()
    assert result.exit_code == 4
    assert os.read(person, 100) == b"30 100\r\n"
    assert termios.tcgetattr(program) == before


def test_nothing_is_shown_before_the_terminal_is_ready(ends: tuple[int, int]) -> None:
    import threading

    person, program = ends
    terminal = RawTerminal(program, program)
    terminal.enter_raw()
    screen = ShellScreen(terminal)
    writer = threading.Thread(target=screen.write, args=(b"now",))
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    screen.open()
    writer.join(60)
    assert os.read(person, 100) == b"now"
    screen.close()
    screen.write(b"late")
    assert os.read(person, 100) == b"\r\n"  # The cursor was in the midst of a line.


def test_what_is_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file, Path("/dev/null").open("rb") as null:
        terminal = RawTerminal(null.fileno(), file.fileno())
        assert not terminal.interactive
        assert not terminal.shows
        assert terminal.attributes is None
        terminal.enter_raw()
        screen = ShellScreen(terminal)
        screen.open()
        screen.write(b"\x1b[?25l$ ")
        screen.close()
        terminal.leave_raw()
    # A file gets what the guest wrote, and nothing else.
    assert path.read_bytes() == b"\x1b[?25l$ "
