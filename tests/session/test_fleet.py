"""Many machines as one: real SSH servers behind hybrid vsock sockets, no guests."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.direct.ssh_servers import SshServers, ssh_servers
from tests.openssh import new_key
from vmconnect.deadline import Deadline
from vmconnect.direct import Result, Script, in_guest
from vmconnect.errors import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    DeadlineError,
    GuestPythonError,
    HostKeyUnknownError,
    MachineNotFoundError,
    TargetError,
)
from vmconnect.hypervisor import GuestNote
from vmconnect.secret import Secret
from vmconnect.session import Fleet, Outcome, Sweep, connect_all
from vmconnect.session.fleet import Member
from vmconnect.session.selection import Selection

COUNT = 6
SECONDS = 60.0


@pytest.fixture(scope="module")
def servers() -> Iterator[SshServers]:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, ssh_servers(Path(name), COUNT) as all_:
        yield all_


@pytest.fixture
def selection(servers: SshServers) -> Selection:
    return Selection(tuple(servers.machine(name) for name in servers.names))


def unknown(selection: Selection) -> Selection:
    """The same, with nothing written down of them."""
    machines = (replace(each, note=GuestNote()) for each in selection.machines)
    return replace(selection, machines=tuple(machines))


def by_name(sweep: Sweep[Any]) -> dict[str, Outcome[Any]]:
    outcomes = {outcome.machine: outcome for outcome in sweep}
    assert sweep.over
    assert sweep.next() is None
    return outcomes


def until(condition: Callable[[], bool]) -> None:
    deadline = Deadline(SECONDS)
    while not condition():
        deadline.check("waiting for the condition")
        time.sleep(0.01)


def test_a_command_on_all(servers: SshServers, selection: Selection) -> None:
    with Fleet(selection) as fleet:
        sweep = fleet.run(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"given\n")
        assert sweep.total == COUNT
        outcomes = by_name(sweep)
    assert sorted(outcomes) == servers.names
    for outcome in outcomes.values():
        assert outcome.error is None
        assert isinstance(outcome.result, Result)
        assert (outcome.result.stdout, outcome.result.stderr) == (b"given\n", b"err\n")
        assert outcome.result.exit_code == 3
        assert outcome.seconds >= outcome.result.seconds > 0
        assert outcome.target == servers.target(outcome.machine)


def test_outputs_and_inputs_of_their_own(selection: Selection) -> None:
    told: dict[str, bytes] = {}
    begun: list[int] = []

    def given() -> Iterator[bytes]:
        begun.append(1)
        yield b"a"
        yield b"b"

    with Fleet(selection) as fleet:
        for outcome in fleet.run(["cat"], stdin=given, stdout=told.__setitem__):
            assert outcome.result is not None
            assert outcome.result.stdout == b""
    assert len(begun) == COUNT
    assert set(told.values()) <= {b"ab", b"b"}


def test_one_that_fails_keeps_nobody_from_it(servers: SshServers, selection: Selection) -> None:
    lost = replace(servers.machine("gone"), guest=servers.machine("gone").guest)
    stranger = replace(servers.machine("vm0001"), note=GuestNote(user="root"))
    missing = MachineNotFoundError("no machine is called 'typo'", machine="typo")
    chosen = Selection((lost, stranger, *selection.machines[1:]), (missing,))
    with Fleet(chosen) as fleet:
        outcomes = by_name(fleet.run(["true"]))
    assert len(outcomes) == COUNT + 2
    assert outcomes["typo"].error is missing
    assert isinstance(outcomes["gone"].error, ConnectError)
    assert isinstance(outcomes["vm0001"].error, HostKeyUnknownError)
    assert sum(each.result is not None and each.result.ok for each in outcomes.values()) == 5


def test_no_more_at_once_than_the_throttle_says(selection: Selection) -> None:
    lock = threading.Lock()
    now: list[int] = [0, 0]

    def work(member: Member) -> str:
        with lock:
            now[0] += 1
            now[1] = max(now)
        member.run(["sleep", "0.2"])
        with lock:
            now[0] -= 1
        return member.label

    with Fleet(selection, throttle=2) as fleet:
        assert {each.result for each in fleet.each(work)} == {m.label for m in fleet.members}
    assert now == [0, 2]
    with pytest.raises(TargetError, match="on 0 machines"):
        Fleet(selection, throttle=0)


def test_sessions_that_are_kept_log_in_once(selection: Selection) -> None:
    logins: list[str] = []
    with Fleet(selection, keep=True, on_login=lambda label, _: logins.append(label)) as fleet:
        for _ in range(2):
            assert all(each.result for each in fleet.run(["true"]))
        assert len(logins) == COUNT
        guests = [member.guest() for member in fleet.members]
    assert not any(guest.alive for guest in guests)
    with pytest.raises(ClosedError, match="the fleet is closed"):
        fleet.members[0].guest()


def test_what_runs_is_cut_off_and_the_rest_not_begun(selection: Selection, tmp_path: Path) -> None:
    script = f"echo $$ >{tmp_path}/$$; while :; do echo on || exit; sleep 0.1; done"
    with Fleet(selection, throttle=2) as fleet, fleet.run(["sh", "-c", script]) as sweep:
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        assert len(sweep.running) == 2
        sweep.cancel()
        sweep.cancel()
        outcomes = by_name(sweep)
    errors = sorted(str(each.error).partition(": ")[2] for each in outcomes.values())
    assert errors == ["cut off"] * 2 + ["not begun"] * 4
    assert all(isinstance(each.error, ClosedError) for each in outcomes.values())
    pids = [path.name for path in tmp_path.iterdir()]
    until(lambda: not any(Path("/proc", pid).exists() for pid in pids))


def silent(place: Path) -> list[str]:
    """Return a command that neither reads nor writes, and has its pid in a file's name."""
    return ["sh", "-c", f"echo >{place}/$$; exec sleep 1000 </dev/null >/dev/null 2>&1"]


def running(place: Path) -> list[str]:
    return [path.name for path in place.iterdir() if Path("/proc", path.name).exists()]


def test_what_is_cut_off_runs_on_nowhere(selection: Selection, tmp_path: Path) -> None:
    with Fleet(selection) as fleet:
        sweep = fleet.run(silent(tmp_path))
        until(lambda: len(list(tmp_path.iterdir())) == COUNT)
        sweep.cancel()
        assert running(tmp_path) == []
        assert all(isinstance(each.error, ClosedError) for each in sweep)


def test_it_is_cut_off_as_by_ctrl_c(selection: Selection, tmp_path: Path) -> None:
    room = tmp_path / "interrupted"
    room.mkdir()
    script = f"trap 'echo >{room}/$$; exit' INT; echo >{tmp_path}/$$; sleep 1000"
    with Fleet(selection) as fleet:
        fleet.run(["sh", "-c", script])
        until(lambda: len(list(tmp_path.iterdir())) == COUNT + 1)
    assert len(list(room.iterdir())) == COUNT


def test_one_that_cannot_be_reached_holds_up_no_other(selection: Selection, tmp_path: Path) -> None:
    with Fleet(selection, keep=True) as fleet:
        sweep = fleet.run(silent(tmp_path))
        until(lambda: len(list(tmp_path.iterdir())) == COUNT)
        stuck = fleet.members[0]
        hanging = threading.Event()
        stuck.cut = hanging.wait  # type: ignore[method-assign, assignment]
        threading.Thread(target=fleet.close, daemon=True).start()
        until(lambda: len(running(tmp_path)) == 1)
        hanging.set()
        del stuck.cut
        sweep.cancel()
        assert running(tmp_path) == []


def test_leaving_the_fleet_ends_what_runs(selection: Selection, tmp_path: Path) -> None:
    with Fleet(selection) as fleet:
        sweep = fleet.run(silent(tmp_path))
        until(lambda: len(list(tmp_path.iterdir())) == COUNT)
    assert running(tmp_path) == []
    assert all(isinstance(each.error, ClosedError) for each in sweep)


def test_leaving_the_block_cancels(selection: Selection) -> None:
    with Fleet(selection) as fleet:
        with fleet.run(["sleep", "1000"]) as sweep:
            assert sweep.next(0.05) is None
        assert all(isinstance(each.error, ClosedError) for each in sweep)


def test_a_command_that_takes_too_long_is_its_own_failure(selection: Selection) -> None:
    with Fleet(selection) as fleet:
        for outcome in fleet.run(["sleep", "1000"], timeout=0.5):
            assert isinstance(outcome.error, DeadlineError)


def test_work_that_raises_what_it_should_not(selection: Selection) -> None:
    def work(member: Member) -> None:
        raise ZeroDivisionError

    with Fleet(selection) as fleet:
        for outcome in fleet.each(work):
            assert "internal error: ZeroDivisionError()" in str(outcome.error)


def test_a_person_is_asked_once(servers: SshServers, selection: Selection) -> None:
    locked = servers.directory / "locked_key"
    if not locked.exists():
        line = new_key(locked, passphrase="open sesame")  # noqa: S106 (a test's)
        with (servers.directory / "user_key.pub").open("a") as file:
            file.write(line)
    asked: list[str] = []

    def ask(prompt: str) -> Secret | None:
        asked.append(prompt)
        time.sleep(0.2)  # Long enough for the others to want it too.
        return Secret("open sesame")

    with Fleet(selection, identity_files=[locked], ask=ask) as fleet:
        outcomes = by_name(fleet.run(["true"]))
    assert [each.error for each in outcomes.values()] == [None] * COUNT
    assert asked == [f"passphrase for {locked}: "]


def test_a_password_is_one_question_for_all(servers: SshServers, selection: Selection) -> None:
    servers.configure("PasswordAuthentication yes", "PubkeyAuthentication no")
    asked: list[str] = []

    def ask(prompt: str) -> Secret | None:
        asked.append(prompt)
        return Secret("wrong")

    try:
        with Fleet(selection, user="root", ask=ask) as fleet:
            outcomes = by_name(fleet.run(["true"]))
    finally:
        servers.configure()
    assert all(isinstance(each.error, AuthenticationError) for each in outcomes.values())
    assert asked == ["root's password, for all machines that ask for it: "]


def test_host_keys_are_asked_about_one_at_a_time(
    selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    at_once = 0
    names: list[str] = []

    def accept(machine: Any, key: Any) -> bool:
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        time.sleep(0.02)
        at_once -= 1
        names.append(machine.name)
        return True

    chosen = unknown(selection)
    key = Path(str(selection.machines[0].note.identity_file))
    for _ in range(2):  # From then on they are known.
        with Fleet(chosen, identity_files=[key], accept_host_key=accept) as fleet:
            assert all(each.result for each in fleet.run(["true"]))
    assert sorted(names) == [machine.name for machine in selection.machines]


def test_a_script_and_a_function_on_all(selection: Selection) -> None:
    @in_guest
    def divide(number: int, by: int) -> int:
        return number // by

    with Fleet(selection) as fleet:
        script = Script.of(b'#!/bin/sh\nread x; echo "$x $1"', "x")
        results = [each.result for each in fleet.script(script, ["arg"], stdin=b"in\n")]
        assert [each and each.text for each in results] == ["in arg\n"] * COUNT
        assert [each.result for each in fleet.call(divide, 9, by=2)] == [4] * COUNT
        for outcome in fleet.call(divide, 9, by=0):
            assert isinstance(outcome.error, GuestPythonError)
            assert outcome.error.machine == outcome.machine
            assert "in divide" in outcome.error.traceback


def test_connect_all(servers: SshServers) -> None:
    targets = [servers.target(name) for name in servers.names[:2]]
    with connect_all(
        *targets,
        targets[0],
        without=[targets[1]],
        identity_files=[servers.identity_file],
        accept_host_key=lambda machine, key: True,
    ) as fleet:
        (outcome,) = fleet.run(["echo", "hello"])
        assert outcome.result is not None
        assert outcome.result.text == "hello\n"
        assert outcome.machine == targets[0]
