"""The guest agent's commands: of a real qemu-ga, and of guests that answer what they like."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.direct.agent.test_protocol import JSON
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct.agent import GuestAgent, GuestFile
from vmconnect.errors import (
    AgentError,
    DeadlineError,
    GuestError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.session import connect
from vmconnect.session.agent_access import open_agent, told_host_keys
from vmconnect.session.trust import HostKey

WAIT = 60.0


@pytest.fixture
def agent(demo_machine: DemoMachine) -> Iterator[GuestAgent]:
    with open_agent(connect(demo_machine.name).machine, WAIT) as agent:
        yield agent


@pytest.mark.guest
def test_who_answers(agent: GuestAgent) -> None:
    agent.ping()
    info = agent.info()
    assert re.match(r"\d+\.\d+", info.version)
    assert {"guest-ping", "guest-exec", "guest-ssh-add-authorized-keys"} <= info.commands
    system = agent.os_info()
    assert (system.id, system.name) == ("vmconnect-demo", "vmconnect demo")
    assert system.machine == "x86_64"
    with pytest.raises(UnsupportedError, match="has no guest-no-such"):
        agent.execute("guest-no-such")


@pytest.mark.guest
def test_files_are_read_whole_or_not_at_all(agent: GuestAgent) -> None:
    assert agent.read_file("/etc/hostname", limit=100) == b"demo\n"
    assert len(agent.read_file("/usr/bin/busybox", limit=8 << 20)) > 1 << 20
    with pytest.raises(GuestError, match="more than 100000 bytes"):
        agent.read_file("/usr/bin/busybox", limit=100_000)
    with pytest.raises(GuestError, match="No such file"):
        agent.read_file("/no/such", limit=100)
    agent.ping()


@pytest.mark.guest
def test_commands_run(agent: GuestAgent) -> None:
    result = agent.run(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in \xff")
    assert (result.exit_code, result.signal) == (3, None)
    assert (result.stdout, result.stderr) == (b"in \xff", b"err\n")
    assert agent.run(["sh", "-c", "kill -KILL $$"]).signal == "KILL"
    assert agent.run(["/no/such/program"]).exit_code == 127
    with pytest.raises(DeadlineError, match="was ended"):
        agent.run(["sleep", "60"], timeout=0.3)
    agent.ping()


@pytest.mark.guest
def test_authorized_keys(agent: GuestAgent) -> None:
    before = agent.authorized_keys("guest")
    raw = agent.read_file("/home/guest/.ssh/authorized_keys", limit=10_000)
    agent.add_authorized_keys("guest", ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"])
    assert set(agent.authorized_keys("guest")) > set(before)
    agent.remove_authorized_keys("guest", ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"])
    assert agent.authorized_keys("guest") == before
    assert agent.read_file("/home/guest/.ssh/authorized_keys", limit=10_000) == raw
    with pytest.raises(GuestError, match="nobody-there"):
        agent.add_authorized_keys("nobody-there", ["ssh-ed25519 AAAA one"])


@pytest.mark.guest
def test_the_clock_and_its_zone(agent: GuestAgent) -> None:
    there = int(agent.run(["date", "+%s"]).stdout)
    assert abs(agent.time() - there) < WAIT
    assert agent.time_zone().offset_s == 0


@pytest.mark.guest
def test_the_guest_s_host_key_is_the_one_that_its_server_shows(demo_machine: DemoMachine) -> None:
    machine = connect(demo_machine.name).machine
    assert told_host_keys(machine, Deadline(WAIT)) == [
        HostKey.from_line(demo_machine.image.host_key)
    ]


@pytest.mark.guest
def test_a_guest_shuts_itself_down(fresh_machine: type[DemoMachine]) -> None:
    with fresh_machine.start("agent-off") as machine:
        session = connect(machine.name)
        with session, open_agent(session.machine, WAIT) as agent:
            with pytest.raises(GuestError, match="refused guest-shutdown"):
                agent.order("guest-shutdown", mode="sideways")
            agent.ping()
            assert machine.running
            agent.shut_down()
        machine.wait(WAIT)
        assert not machine.running


class Hostile:
    """A channel to an agent that answers the same to everything."""

    def __init__(self, reply: dict[str, Any]):
        self._reply = reply

    def exchange(
        self, _command: str, _arguments: dict[str, Any], _deadline: Deadline
    ) -> dict[str, Any]:
        return self._reply

    order = exchange

    def close(self) -> None:
        pass


COMMANDS: list[Callable[[GuestAgent], object]] = [
    GuestAgent.ping,
    GuestAgent.info,
    GuestAgent.os_info,
    GuestAgent.time,
    GuestAgent.time_zone,
    GuestAgent.host_name,
    GuestAgent.users,
    GuestAgent.interfaces,
    GuestAgent.file_systems,
    GuestAgent.disks,
    GuestAgent.processors,
    GuestAgent.freeze_status,
    GuestAgent.freeze,
    GuestAgent.thaw,
    GuestAgent.shut_down,
    GuestAgent.suspend,
    lambda agent: agent.set_time(1.5),
    lambda agent: agent.set_password("ann", "x"),
    lambda agent: agent.run(["x"], stdout=print, env={"A": "b"}, timeout=0.01),
    lambda agent: agent.powershell("Get-Process", timeout=0.01),
    lambda agent: agent.get("/x", "/no/such/directory/x", timeout=0.05),
    lambda agent: agent.read_file("/x", limit=1000, timeout=0.05),
    lambda agent: agent.authorized_keys("ann"),
    lambda agent: agent.run(["x"], timeout=0.01),
]
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "version": JSON,
        "supported_commands": JSON
        | st.lists(st.fixed_dictionaries({"name": JSON, "enabled": JSON})),
        "offset": JSON,
        "buf-b64": JSON | st.just("QUJD"),
        "eof": JSON,
        "keys": JSON,
        "pid": JSON,
        "exited": JSON,
        "exitcode": JSON,
        "signal": JSON,
        "out-data": JSON,
        "id": JSON,
        "pretty-name": JSON,
        "name": JSON,
        "hardware-address": JSON,
        "ip-addresses": JSON
        | st.lists(
            st.fixed_dictionaries(
                {"ip-address": JSON | st.just("10.0.0.1"), "prefix": JSON | st.integers(0, 200)}
            ),
            max_size=3,
        ),
        "disk": JSON | st.lists(st.fixed_dictionaries({"dev": JSON}), max_size=3),
        "total-bytes": JSON,
        "dependencies": JSON | st.lists(st.text(max_size=3), max_size=3),
        "address": JSON | st.fixed_dictionaries({"bus-type": JSON}),
        "logical-id": JSON,
        "login-time": JSON | st.floats(),
        "host-name": JSON,
        "position": JSON,
    },
)
REPLIES = st.fixed_dictionaries(
    {"return": JSON | ANSWERS | st.lists(ANSWERS, max_size=3)}
) | st.fixed_dictionaries({"error": JSON})


@given(reply=REPLIES, command=st.sampled_from(COMMANDS))
def test_whatever_is_answered_only_our_errors_come(
    reply: dict[str, Any], command: Callable[[GuestAgent], object]
) -> None:
    with contextlib.suppress(VmconnectError):
        command(GuestAgent(Hostile(reply), "web01"))


def test_what_the_guest_says_is_shown_without_what_drives_a_terminal() -> None:
    agent = GuestAgent(Hostile({"error": {"class": "x", "desc": "\x1b[2J" + "y" * 9999}}), "web01")
    with pytest.raises(GuestError) as caught:
        agent.ping()
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_numbers_past_all_bounds() -> None:
    for number in (1 << 2000, -(1 << 2000), True, 1.5):
        with pytest.raises(AgentError, match="senseless"):
            GuestAgent(Hostile({"return": number}), "web01").time()


def test_lists_past_all_bounds() -> None:
    for question in (GuestAgent.interfaces, GuestAgent.users, GuestAgent.disks):
        with pytest.raises(AgentError, match="senseless"):
            question(GuestAgent(Hostile({"return": [{}] * 5000}), "web01"))


def test_more_than_was_asked_for_is_refused() -> None:
    reply = {"return": {"buf-b64": "QUJD" * (1 << 17), "eof": True}}
    with pytest.raises(AgentError, match="instead of"):
        GuestFile(GuestAgent(Hostile(reply), "web01"), "/x", 7).read()
    keys = {"return": {"keys": ["x"] * 5000}}
    with pytest.raises(AgentError, match="senseless"):
        GuestAgent(Hostile(keys), "web01").authorized_keys("ann")
