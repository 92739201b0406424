"""Passwords and SSH keys, set by a real qemu-ga whose /etc is a copy; and never shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.direct.agent.played import Played, played
from tests.direct.agent.real import ContainedAgent
from tests.secrecy import assert_hidden, assert_hidden_in, everything_logged
from vmconnect.direct.agent import GuestAgent
from vmconnect.errors import DeadlineError, GuestError, UnsupportedError, VmconnectError
from vmconnect.operation import Operation
from vmconnect.secret import Secret

PASSWORD = "tell-n0body"  # noqa: S105 (of nobody)
HASH = "$6$vmconnecttests$Mg.o9hSfdjhCfuPIy82em214kIYglWWkVycGs6ZwND"

pytestmark = pytest.mark.skipif(
    not ContainedAgent.possible(), reason="needs root, loop devices and mkfs.ext4"
)


@pytest.fixture
def contained(qemu_ga: Path, tmp_path: Path) -> Iterator[ContainedAgent]:
    agent = ContainedAgent(qemu_ga, tmp_path)
    with agent.running():
        yield agent


def shadow(agent: ContainedAgent, user: str) -> str:
    lines = (agent.etc / "shadow").read_text().splitlines()
    return next(line.split(":")[1] for line in lines if line.startswith(f"{user}:"))


def test_passwords(contained: ContainedAgent) -> None:
    outside = Path("/etc/shadow").read_bytes()
    done: list[Operation] = []
    with everything_logged() as log, contained.open() as agent:
        agent.operations.subscribe(done.append)
        assert shadow(contained, "ann") == "!"
        agent.set_password("ann", PASSWORD)
        first = shadow(contained, "ann")
        assert first.startswith("$")
        agent.set_password("ann", Secret(HASH), crypted=True)
        assert shadow(contained, "ann") == HASH
        with pytest.raises(GuestError, match="set user password") as caught:
            agent.set_password("nobody-there", PASSWORD)
        assert_hidden_in(PASSWORD, caught.value)
        assert [each.details for each in done] == [
            {"user": "ann", "crypted": False},
            {"user": "ann", "crypted": True},
            {"user": "nobody-there", "crypted": False},
        ]
    assert_hidden(PASSWORD, log.getvalue())
    assert Path("/etc/shadow").read_bytes() == outside


@pytest.mark.parametrize("reply", [None, {"return": "x"}, {"error": {}}, {"error": 7}])
def test_a_password_is_in_no_traceback(reply: dict[str, object] | None) -> None:
    """Agents that are played: silent, wrong, refusing."""

    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        while True:
            request = agent.request()
            if reply is not None:
                agent.reply({**reply, "id": request["id"]})

    with played(script) as channel:
        agent = GuestAgent(channel, "web01")
        if reply is not None and "return" in reply:
            agent.set_password("ann", PASSWORD)  # What it answers does not matter.
            return
        with pytest.raises(VmconnectError) as caught:
            agent.set_password("ann", PASSWORD, timeout=0.2)
    assert isinstance(caught.value, DeadlineError) == (reply is None)
    assert_hidden_in(PASSWORD, caught.value)


def test_keys(contained: ContainedAgent, tmp_path: Path) -> None:
    one, two = "ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"
    path = tmp_path / "ann" / ".ssh" / "authorized_keys"
    with contained.open() as agent:
        with pytest.raises(GuestError):
            agent.authorized_keys("ann")
        agent.add_authorized_keys("ann", [one, two])
        assert set(agent.authorized_keys("ann")) == {one, two}
        assert sorted(path.read_text().splitlines()) == [one, two]
        agent.add_authorized_keys("ann", [one])
        assert set(agent.authorized_keys("ann")) == {one, two}
        agent.remove_authorized_keys("ann", [one, "ssh-ed25519 CCCC none"])
        assert agent.authorized_keys("ann") == (two,)
        with pytest.raises(GuestError, match="nobody-there"):
            agent.add_authorized_keys("nobody-there", [one])


def test_what_this_agent_does_not_permit(contained: ContainedAgent) -> None:
    with contained.open() as agent:
        with pytest.raises(UnsupportedError, match="does not permit guest-set-time"):
            agent.set_time(0)
        with pytest.raises(UnsupportedError, match="does not permit guest-shutdown"):
            agent.shut_down()
        with pytest.raises(UnsupportedError, match="does not permit guest-suspend-ram"):
            agent.suspend()
        agent.ping()
