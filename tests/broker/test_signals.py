"""Clients that are interrupted, stopped or killed, or do not read: their commands alone feel it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import vmconnect
from tests.broker.rig import NAME, WAIT, Rig, started
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def guest(demo_machine: DemoMachine) -> Iterator[Guest]:
    """A connection of the test's own, to look at the guest from inside."""
    with vmconnect.connect(demo_machine.name) as session:
        yield session.guest(timeout=WAIT, wait=True)


def test_ctrl_c(rig: Rig) -> None:
    results = []
    for each in (rig, rig.with_(VMCONNECT_BROKER="0")):
        process = started(each, "sleep 60")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT)
        results.append((process.returncode, out, err))
    assert results[0] == results[1] == (130, b"", b"vmconnect: interrupted\n")


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_ctrl_c_at_any_moment(rig: Rig, delay: float) -> None:
    entry = "import os, sys; from vmconnect.__main__ import main; os.write(1, b'.'); "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{entry} sys.exit(main())", "exec", NAME, "sleep", "60"],
        env=rig.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"."
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, err) == (130, b"vmconnect: interrupted\n")


def test_a_stopped_client_s_output_stops(rig: Rig) -> None:
    process = started(rig, "while echo x; do sleep 0.05; done", process_group=0)
    assert process.stdout is not None
    process.send_signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    os.set_blocking(process.stdout.fileno(), False)
    deadline = Deadline(WAIT)
    while True:  # What was on its way may still come.
        process.stdout.read()
        time.sleep(1.0)
        if not process.stdout.read():
            break
        deadline.check("waiting for the output to stop")
    process.send_signal(signal.SIGCONT)
    while not process.stdout.read():
        deadline.check("waiting for the output to go on")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130


def test_a_client_that_dies_takes_its_command_alone_along(rig: Rig, guest: Guest) -> None:
    other = started(rig, "cat")
    process = started(rig, "trap '' HUP; echo $$ >/tmp/hung-up; while :; do sleep 0.1; done")
    deadline = Deadline(WAIT)
    while not (pid := guest.run(["cat", "/tmp/hung-up"]).text.strip()):
        deadline.check("waiting for the guest's command")
    process.kill()
    assert process.wait(WAIT) == -signal.SIGKILL
    process.communicate()
    while guest.run(["test", "-e", f"/proc/{pid}"]).ok:
        deadline.check("waiting for the guest's command to be ended")
    guest.run(["rm", "/tmp/hung-up"])
    assert other.communicate(b"still here", WAIT) == (b"still here", b"")
    assert other.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_is_hung_up_on_is_waited_for_by_nobody(rig: Rig, number: signal.Signals) -> None:
    process = rig.start("exec", "-n", NAME, "--", "sh", "-c", "echo up; sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    process.communicate(timeout=WAIT)
    deadline = Deadline(WAIT)
    while any(session["running"] for session in rig.sessions):
        deadline.check("waiting for the command to be hung up on")


def test_a_client_that_does_not_read_holds_up_nobody(rig: Rig) -> None:
    slow = started(rig, "head -c 9000000 /dev/zero")
    pid = rig.pid
    assert rig.run("exec", NAME, "echo", "quick") == (0, b"quick\n", b"")
    out, err = slow.communicate(timeout=WAIT)
    assert (slow.returncode, len(out), err) == (0, 9_000_000, b"")
    stuck = started(rig, "yes")
    assert rig.run("exec", NAME, "echo", "quick") == (0, b"quick\n", b"")
    stuck.kill()
    # Its pipe still has no room, and somebody who might read it.
    assert rig.run("exec", NAME, "echo", "quick") == (0, b"quick\n", b"")
    deadline = Deadline(WAIT)
    while any(session["running"] for session in rig.sessions):
        deadline.check("waiting for the command of the client that was killed to end")
    stuck.communicate()
    assert rig.pid == pid
