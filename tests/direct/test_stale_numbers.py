"""Process numbers of named sessions that are another process's by now: over a real sshd."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmconnect.deadline import Deadline
from vmconnect.direct import Guest
from vmconnect.direct.named import NamedSession
from vmconnect.errors import VmconnectError

WAIT = 60.0
NAME = f"build-{os.getpid()}"


@pytest.fixture
def build(guest: Guest) -> Iterator[NamedSession]:
    with guest.named(NAME) as build:
        assert build.run("true").ok
        yield build


@pytest.fixture
def innocent() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that has nothing to do with it."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = Deadline(WAIT)
    while not condition():
        deadline.check("waiting for the condition")
        time.sleep(0.01)


def of_session(room: Path) -> Path:
    return room / ".local/state/vmconnect/sessions" / NAME


def call(build: NamedSession, room: Path, text: str) -> Path:
    """Begin a call in a thread, and return its directory, once somebody waits for it."""

    def run() -> None:
        with contextlib.suppress(VmconnectError):
            build.run(text)

    calls = of_session(room) / "calls"
    before = {*calls.iterdir()}
    threading.Thread(target=run, daemon=True).start()
    until(lambda: any((each / "pid").exists() for each in {*calls.iterdir()} - before))
    (new,) = {*calls.iterdir()} - before
    until(lambda: (new / "pid").read_text().endswith("\n"))
    return new


def give_number(call: Path, other: subprocess.Popen[bytes]) -> None:
    """Kill who waits for a call, and let its number be another's."""
    file = call / "pid"
    number, space, mark = file.read_text().partition(" ")
    # It cannot see to its own any more.
    left = Path("/proc", number, "task", number, "children").read_text().split()
    for each in (number, *left):
        os.kill(int(each), signal.SIGKILL)
    file.write_text(f"{other.pid}{space}{mark}" if space else f"{other.pid}\n")


def keepers() -> list[Path]:
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"VMCONNECT_RUN=sessions.{NAME}.".encode() in (each / "environ").read_bytes().split(
                b"\0"
            ):
                found.append(each)
    return found


def test_to_close_it_signals_nobody_else(
    build: NamedSession, room: Path, innocent: subprocess.Popen[bytes]
) -> None:
    give_number(call(build, room, "sleep 1000"), innocent)
    build.close()
    assert innocent.poll() is None


def test_its_keeper_signals_nobody_else(
    build: NamedSession, room: Path, innocent: subprocess.Popen[bytes]
) -> None:
    mine = keepers()
    give_number(call(build, room, "while :; do sleep 0.1; done"), innocent)
    os.kill(int((of_session(room) / "pid").read_text()), signal.SIGKILL)
    until(lambda: not any(each.exists() for each in mine))
    assert (of_session(room) / "ended").exists()
    assert innocent.poll() is None


def test_a_call_that_is_taken_back_signals_nobody_else(
    guest: Guest, build: NamedSession, room: Path, innocent: subprocess.Popen[bytes]
) -> None:
    first = call(build, room, "sleep 1000")
    until((first / "started").exists)
    waiting = call(build, room, "true")
    assert not (waiting / "started").exists()
    give_number(waiting, innocent)
    guest.run(build.call_words("stop", waiting.name, "TERM"))
    assert innocent.poll() is None


def test_who_waits_is_still_told(build: NamedSession, room: Path) -> None:
    waiting = call(build, room, "sleep 1000")
    number = (waiting / "pid").read_text().split()[0]
    build.close()
    until(lambda: not Path("/proc", number).exists())
