"""What still runs in a guest when who started it closes the guest: over a real sshd."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import vmconnect
from tests.direct.sshd import SshdGuest, sshd_guest
from vmconnect.deadline import Deadline
from vmconnect.direct import Guest
from vmconnect.direct.control import Control
from vmconnect.errors import ClosedError, DeadlineError, VmconnectError
from vmconnect.session import Session

WAIT = 60.0


def silent(place: Path, number: int = 0) -> list[str]:
    """Return a command that neither reads nor writes, and has its pid in a file."""
    file = f"{place}/{number}"
    quiet = "exec sleep 1000 </dev/null >/dev/null 2>&1"
    return ["sh", "-c", f"echo $$ >{file}.new; mv {file}.new {file}; {quiet}"]


def until(condition: Callable[[], bool]) -> None:
    deadline = Deadline(WAIT)
    while not condition():
        deadline.check("waiting for the condition")
        time.sleep(0.01)


def pids(place: Path, count: int = 1) -> list[str]:
    until(lambda: all((place / str(number)).exists() for number in range(count)))
    return [(place / str(number)).read_text().strip() for number in range(count)]


def all_gone(pids: list[str]) -> bool:
    return not any(Path("/proc", pid).exists() for pid in pids)


class Running:
    """A command that somebody waits for, in a thread."""

    def __init__(self, guest: Guest, command: list[str]):
        self.error: VmconnectError | None = None
        self._guest, self._command = guest, command
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._guest.run(self._command)
        except VmconnectError as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(WAIT)
        assert not self._thread.is_alive()


def test_what_is_waited_for_ends_with_the_guest(guest: Guest, tmp_path: Path) -> None:
    running = [Running(guest, silent(tmp_path, number)) for number in range(3)]
    left = pids(tmp_path, 3)
    guest.close()
    assert all_gone(left)
    for each in running:
        each.join()
        assert isinstance(each.error, ClosedError)
        assert "the guest is closed" in str(each.error)


def test_what_was_started_ends_with_the_guest(guest: Guest, tmp_path: Path) -> None:
    process = guest.start(silent(tmp_path))
    left = pids(tmp_path)
    guest.close()
    assert all_gone(left)
    with pytest.raises(ClosedError):
        process.wait(WAIT)
    process.close()


def test_what_was_started_just_now_ends_with_the_guest(guest: Guest, tmp_path: Path) -> None:
    mark = str(tmp_path)
    guest.start(["sh", "-c", "sleep 1000", mark])
    guest.close()
    assert not [each for each in Path("/proc").glob("[0-9]*") if mark in _words(each)]


def test_what_may_have_started_ends_with_the_guest(
    box: SshdGuest, guest: Guest, tmp_path: Path
) -> None:
    guest.prepare()
    box.freeze()
    with pytest.raises(DeadlineError):
        guest.start(silent(tmp_path), timeout=0.5)
    box.thaw()
    left = pids(tmp_path)
    guest.close()
    assert all_gone(left)


def test_as_many_as_the_server_takes_end_with_the_guest(room: Path, tmp_path: Path) -> None:
    with sshd_guest(room, "MaxSessions 2") as box, box.open() as guest:
        for number in range(2):
            guest.start(silent(tmp_path, number))
        left = pids(tmp_path, 2)
        guest.close()
        assert all_gone(left)


def test_a_shell_ends_with_the_guest(guest: Guest, tmp_path: Path) -> None:
    guest.shell(["sh", "-c", f"echo $$ >{tmp_path}/0; exec sleep 1000"])
    left = pids(tmp_path)
    until(lambda: left != [""])
    guest.close()
    until(lambda: all_gone(left))


def test_a_job_does_not_end_with_the_guest(box: SshdGuest, tmp_path: Path) -> None:
    with box.open() as guest:
        name = guest.jobs().start(silent(tmp_path)).name
        left = pids(tmp_path)
    assert not all_gone(left)
    with box.open() as guest:
        guest.jobs().get(name).kill()
        assert all_gone(left)


@pytest.mark.parametrize(
    ("command", "ended"),
    [(["sh", "-c", "exit 3"], (3, None)), (["sh", "-c", "kill -9 $$"], (None, "KILL"))],
)
def test_how_a_command_has_ended_is_known_after_the_guest_is_closed(
    guest: Guest, command: list[str], ended: tuple[int | None, str | None]
) -> None:
    process = guest.start(command)
    assert process.stdout.read(timeout=WAIT) == b""
    assert process._channel.status_event.wait(WAIT)
    guest.close()
    result = process.wait(WAIT)
    assert (result.exit_code, result.signal) == ended


def test_what_was_not_sent_is_not_under_way(guest: Guest) -> None:
    def refuse(control: Control) -> None:
        raise TypeError(control)

    with pytest.raises(TypeError):
        guest.run(["true"], on_start=refuse)
    assert guest._connection is not None
    assert guest._connection.under_way.lines == ()


def test_what_is_hung_up_on_while_it_starts_is_ended(
    box: SshdGuest, guest: Guest, tmp_path: Path
) -> None:
    guest.prepare()
    controls: list[Control] = []

    def run() -> None:
        with contextlib.suppress(VmconnectError):
            guest.run(silent(tmp_path), on_start=controls.append)

    box.freeze()
    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: bool(guest._connection and guest._connection.under_way.lines))
    time.sleep(0.2)  # It leaves in the next moment.
    controls[0].hang_up()
    box.thaw()
    thread.join(WAIT)
    assert not thread.is_alive()
    if (tmp_path / "0").exists():
        assert all_gone(pids(tmp_path))


def test_what_has_ended_is_no_longer_under_way(guest: Guest) -> None:
    assert guest.run(["true"]).ok
    guest.start(["true"]).wait(WAIT)
    with guest.start(["sleep", "1000"]):
        pass
    with pytest.raises(VmconnectError):
        guest.run(["sleep", "1000"], timeout=0.2)
    assert guest._connection is not None
    assert guest._connection.under_way.lines == ()


def test_a_guest_that_does_not_answer_is_not_waited_for_long(
    box: SshdGuest, guest: Guest, tmp_path: Path
) -> None:
    guest.start(silent(tmp_path))
    left = pids(tmp_path)
    box.freeze()
    guest.close()
    assert not guest.alive
    assert not all_gone(left)
    os.kill(int(left[0]), signal.SIGKILL)


def test_what_runs_ends_with_the_session(box: SshdGuest, tmp_path: Path) -> None:
    session = vmconnect.connect(box.target)
    guest = _log_in(session, box)
    running = Running(guest, silent(tmp_path))
    left = pids(tmp_path)
    session.close()
    assert all_gone(left)
    running.join()
    assert isinstance(running.error, ClosedError)


def _log_in(session: Session, box: SshdGuest) -> Guest:
    return session.guest(
        user=box.user, identity_files=[box.key], accept_host_key=lambda *_: True, timeout=WAIT
    )


def _words(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""
