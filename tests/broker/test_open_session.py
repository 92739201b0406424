"""What the broker needs of an open guest channel, on a real guest."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmconnect
from tests.broker.rig import WAIT, Rig
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest
from vmconnect.direct.control import Control
from vmconnect.errors import ConnectError, DeadlineError, GuestError
from vmconnect.streams import Stream

pytestmark = pytest.mark.guest


@pytest.fixture
def guest(demo_machine: DemoMachine) -> Iterator[Guest]:
    with vmconnect.connect(demo_machine.name) as session:
        yield session.guest(timeout=WAIT, wait=True)


def test_a_command_is_hung_up_on_from_another_thread(guest: Guest) -> None:
    found: list[Control] = []

    def on_start(control: Control) -> None:
        found.append(control)
        threading.Timer(0.2, control.hang_up).start()

    with pytest.raises(GuestError, match="ended without an exit status"):
        guest.run(["sleep", "600"], on_start=on_start)
    assert guest.run(["echo", "on"]).text == "on\n"
    found[0].hang_up()


def test_it_is_hung_up_on_before_it_has_said_anything(guest: Guest) -> None:
    with pytest.raises(vmconnect.VmconnectError):
        guest.run(["sleep", "600"], on_start=lambda control: control.hang_up())


def test_commands_run_in_channels_that_were_opened_ahead(guest: Guest) -> None:
    for number in range(3):
        guest.prepare()
        guest.prepare()
        assert guest.run(["echo", str(number)]).text == f"{number}\n"
    assert guest.run(["echo", "not ahead"]).text == "not ahead\n"
    guest.close()
    guest.prepare()


def test_a_channel_that_was_opened_ahead_and_is_gone_is_passed_by(guest: Guest) -> None:
    guest.prepare()
    connection = guest._connection
    assert connection is not None
    assert connection._spare is not None
    connection._spare.close()
    assert guest.run(["echo", "on"]).text == "on\n"


def test_what_was_opened_ahead_long_ago_is_not_relied_on(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.prepare()
    connection = guest._connection
    assert connection is not None
    spare = connection._spare
    monkeypatch.setattr("vmconnect.direct.ssh._FRESH_SECONDS", -1.0)
    assert guest.run(["echo", "on"]).text == "on\n"
    assert connection._spare is spare
    monkeypatch.undo()
    assert guest.run(["echo", "on"]).text == "on\n"
    assert connection._spare is None


def test_what_fails_before_the_start_has_not_reached_the_guest(guest: Guest) -> None:
    started: list[object] = []
    connection = guest._connection
    assert connection is not None
    connection.close()
    guest._opener = refuse
    with pytest.raises(DeadlineError):
        guest.run(["true"], timeout=1.0, on_start=started.append)
    assert started == []


def refuse(_deadline: Deadline) -> Stream:
    raise ConnectError("nobody is there")


def test_an_idle_session_does_not_wake_the_broker(demo_machine: DemoMachine) -> None:
    rig = Rig(os.environ)
    try:
        pid = rig.warm(demo_machine.name, "true")
        rig.sessions  # noqa: B018 (the last that it is asked for a while)
        threading.Event().wait(0.5)
        before = switches(pid)
        threading.Event().wait(2.0)
        # paramiko alone would have woken twenty times.
        assert switches(pid) - before < 5
    finally:
        rig.stop()


def switches(pid: int) -> int:
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in path.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total
