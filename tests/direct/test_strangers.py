"""Processes of another user of the guest that bear a mark of ours, which is no secret: on sshd."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker.rig import is_alive
from vmconnect.direct import Guest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

WAIT = 60.0


class Stranger:
    """A process of nobody's with a mark, and beside it, in one group and session, one of root's."""

    def __init__(self, mark: str):
        as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
        marked = f"{as_nobody} env VMCONNECT_RUN={mark} sh -c 'echo $$; exec sleep 1001' & "
        self.root = subprocess.Popen(
            ["sh", "-c", f"{marked} exec sleep 1002"],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.root.stdout is not None
        self.pid = int(self.root.stdout.readline())

    def end(self) -> None:
        os.killpg(self.root.pid, signal.SIGKILL)
        self.root.communicate()


@pytest.fixture
def stranger() -> Iterator[Callable[[str], Stranger]]:
    started: list[Stranger] = []

    def start(mark: str) -> Stranger:
        started.append(Stranger(mark))
        return started[-1]

    yield start
    for each in started:
        each.end()


def test_the_end_of_a_command_ends_nothing_beside_them(
    guest: Guest, stranger: Callable[[str], Stranger]
) -> None:
    with guest.start(["sleep", "1000"]) as process:
        other = stranger(process.control._mark)
        process.kill()
        assert other.root.poll() is None


def test_a_signal_goes_to_nothing_beside_them(
    guest: Guest, stranger: Callable[[str], Stranger]
) -> None:
    job = guest.jobs().start(["sleep", "1000"])
    other = stranger(f"job.{job.name}.")
    assert job.signal("TERM")
    assert job.wait(WAIT).exit_code == 143
    assert other.root.poll() is None


def test_they_pass_for_no_job(
    guest: Guest, room: Path, stranger: Callable[[str], Stranger]
) -> None:
    job = guest.jobs().start(["sleep", "1000"])
    file = room / ".local/state/vmconnect/jobs" / job.name / "pid"
    os.kill(int(file.read_text()), signal.SIGKILL)
    job.kill()
    assert job.status().state == "lost"
    file.write_text(f"{stranger(f'jobs.{job.name}.').pid}\n")
    assert job.status().state == "lost"
    job.forget()


def test_what_a_command_runs_as_another_user_ends_with_it(guest: Guest) -> None:
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with guest.start([*as_nobody, "sh", "-c", "echo up; exec sleep 1000"]) as process:
        process.stdout.readline()
        assert process.signal("USR1")
        assert process.wait(WAIT).signal == "USR1"
    with guest.start([*as_nobody, "sh", "-c", "sleep 1000 & echo $!; wait"]) as process:
        pid = int(process.stdout.readline())
        process.kill()
        assert not is_alive(pid)
