"""Whose session a command gets, when it gets another, and ``vmconnect sessions``."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.broker.rig import NAME, WAIT, Rig
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.session import TrustStore

pytestmark = pytest.mark.guest


def test_another_user_has_another_session(rig: Rig, demo_machine: DemoMachine) -> None:
    key = str(demo_machine.client_key)
    for _ in range(2):
        assert rig.run("exec", NAME, "id", "-un") == (0, b"root\n", b"")
        assert rig.run("exec", "-l", "guest", "-i", key, NAME, "id", "-un") == (0, b"guest\n", b"")
    assert {"root", "guest"} <= {session["user"] for session in rig.sessions}


def test_a_host_key_that_is_not_known_is_refused_and_then_accepted(
    rig: Rig, demo_machine: DemoMachine
) -> None:
    address = f"vsock-mux{demo_machine.vsock_path}"
    login = ["-l", "root", "-i", str(demo_machine.client_key)]
    refused = rig.run("exec", *login, address, "true")
    assert refused == rig.alone("exec", *login, address, "true")
    assert refused[0] == 255
    assert b"is not known yet" in refused[2]
    before = rig.done
    accepted = rig.run("exec", *login, "--accept-new-host-key", address, "true")
    assert accepted == (0, b"", b"")
    assert rig.run("exec", *login, address, "true") == (0, b"", b"")
    assert rig.done == before + 2
    TrustStore().forget(address)


def test_a_changed_host_key_is_refused_though_a_session_is_open(
    rig: Rig, demo_machine: DemoMachine, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    path = demo_machine.description_path
    before = path.read_text()
    note = json.loads(before)
    note["guest"]["host_key"] = key.with_suffix(".pub").read_text()
    path.write_text(json.dumps(note))
    try:
        result = rig.run("exec", NAME, "true")
        assert result == rig.alone("exec", NAME, "true")
    finally:
        path.write_text(before)
    assert result[0] == 255
    assert b"the host key has changed" in result[2]
    assert rig.run("exec", NAME, "true") == (0, b"", b"")


@pytest.fixture
def agent(demo_machine: DemoMachine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An ssh-agent with the machine's key."""
    path = str(tmp_path_factory.mktemp("a") / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        deadline = Deadline(WAIT)
        while not Path(path).exists():
            deadline.check("waiting for ssh-agent")
            time.sleep(0.01)
        subprocess.run(
            ["ssh-add", "-q", str(demo_machine.client_key)],
            env={**os.environ, "SSH_AUTH_SOCK": path},
            check=True,
        )
        yield path
    finally:
        process.terminate()
        process.wait()


def test_the_client_s_agent_is_asked_and_not_another_s(
    rig: Rig, demo_machine: DemoMachine, agent: str
) -> None:
    address = f"vsock-mux{demo_machine.vsock_path}"
    words = ["exec", "--accept-new-host-key", "-l", "root", address, "true"]
    with_agent = rig.with_(SSH_AUTH_SOCK=agent)
    before = rig.done
    assert with_agent.run(*words) == (0, b"", b"")
    assert with_agent.run(*words) == (0, b"", b"")
    assert rig.done == before + 2
    refused = rig.run(*words)
    assert refused == rig.alone(*words)
    assert refused[0] == 255
    assert rig.done == before + 2
    TrustStore().forget(address)


def test_a_machine_that_was_replaced_is_not_taken_for_the_one_before(
    rig: Rig, fresh_machine: type[DemoMachine]
) -> None:
    seen = set()
    for _ in range(2):
        with fresh_machine.start("twin"):
            words = ["exec", "--wait", "60", "twin", "cat", "/proc/sys/kernel/random/boot_id"]
            before = rig.done
            first, second = rig.run(*words), rig.run(*words)
            assert first[0] == 0, first
            assert first == second
            assert rig.done == before + 2
            seen.add(first[1])
        gone = rig.run("exec", "twin", "true")
        assert gone == rig.alone("exec", "twin", "true")
        assert b"no machine is called 'twin'" in gone[2]
    assert len(seen) == 2


def test_a_server_that_takes_fewer_commands_gets_more_connections(
    rig: Rig, fresh_machine: type[DemoMachine]
) -> None:
    with fresh_machine.start("narrow"):
        words = ["exec", "--wait", "60", "narrow", "--", "sh", "-c"]
        change = "sed -i 's/^MaxSessions.*/MaxSessions 2/' /etc/ssh/sshd_config"
        assert rig.run(*words, change) == (0, b"", b"")
        assert rig.run("sessions", "close", "narrow")[0] == 0
        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(lambda n: rig.run(*words, f"sleep 4; echo {n}"), range(6)))
        assert results == [(0, b"%d\n" % number, b"") for number in range(6)]
        assert len([each for each in rig.sessions if each["machine"] == "narrow"]) > 1


def test_a_guest_that_reboots_is_reached_again(rig: Rig, fresh_machine: type[DemoMachine]) -> None:
    with fresh_machine.start("riser"):
        words = ["exec", "--wait", "60", "riser"]
        first = rig.run(*words, "cat", "/proc/sys/kernel/random/boot_id")
        lost = rig.run(*words, "--", "sh", "-c", "reboot; sleep 60")
        assert lost[0] == 255
        assert b"the connection broke while the command ran" in lost[2]
        again = rig.run(*words, "cat", "/proc/sys/kernel/random/boot_id")
        assert (first[0], again[0]) == (0, 0), again
        assert first[1] != again[1]


def test_another_environment_is_not_the_broker_s(rig: Rig, tmp_path: Path) -> None:
    before = rig.done
    other = rig.with_(XDG_STATE_HOME=str(tmp_path))
    assert other.run("exec", NAME, "true") == (0, b"", b"")
    assert rig.done == before


def test_sessions_are_listed_and_closed(rig: Rig) -> None:
    rig.warm(NAME, "true")
    code, out, err = rig.run("sessions")
    head, *rows = out.decode().splitlines()
    assert (code, err) == (0, b"")
    assert head.split() == [
        *("MACHINE", "USER", "CHANNELS", "STATE", "AGE", "IDLE", "RUNNING", "DONE")
    ]
    assert any(row.split()[:4] == [NAME, "root", "guest", "ready"] for row in rows)
    assert rig.run("sessions", "close", "nothere") == (
        1,
        b"",
        b"vmconnect: no session with 'nothere' is open (vmconnect sessions lists them)\n",
    )
    assert rig.run("sessions", "close", NAME) == (0, b"", b"")
    deadline = Deadline(WAIT)
    while any(session["machine"] == NAME for session in rig.sessions):
        deadline.check("waiting for the sessions to be closed")
    assert rig.run("exec", NAME, "echo", "on") == (0, b"on\n", b"")
    assert rig.run("sessions", "close", "--all") == (0, b"", b"")
    assert rig.run("sessions", "close")[0] == 2
