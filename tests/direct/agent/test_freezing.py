"""File systems that are frozen and thawed.

By a real qemu-ga in a mount namespace of its own, where it is told to freeze one of its own, and
by agents that are played, where it goes wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.direct.agent.played import Played, played
from tests.direct.agent.real import ContainedAgent
from vmconnect.direct.agent import GuestAgent
from vmconnect.direct.agent import freezing as module
from vmconnect.errors import AgentError, DeadlineError, GuestError

WAIT = 60.0
needs_root = pytest.mark.skipif(
    not ContainedAgent.possible(), reason="needs root, loop devices and mkfs.ext4"
)


@needs_root
def test_a_file_system_is_frozen_for_a_block(qemu_ga: Path, tmp_path: Path) -> None:
    with ContainedAgent(qemu_ga, tmp_path).running() as real, real.open() as agent:
        there = [str(tmp_path / "mounted")]
        assert agent.freeze_status() == "thawed"
        with agent.frozen(there) as count:
            assert count == 1
            assert agent.freeze_status() == "frozen"
            with pytest.raises(GuestError, match=r"are frozen .*thaw web01"):
                agent.run(["true"])
        assert agent.freeze_status() == "thawed"
        with pytest.raises(KeyboardInterrupt), agent.frozen(there):
            raise KeyboardInterrupt
        assert agent.freeze_status() == "thawed"
        # Another that has thawed it meanwhile is noticed.
        with pytest.raises(GuestError, match="thawed before they were told"), agent.frozen(there):
            agent.execute("guest-fsfreeze-thaw")
        with agent.frozen(["/no/such"]) as count:
            assert count == 0
        assert agent.run(["touch", f"{there[0]}/still"]).ok
        # A connection that is closed in the midst leaves nothing frozen.
        with pytest.raises(ValueError, match="meanwhile"), agent.frozen(there):
            agent.close()
            raise ValueError("what was done meanwhile failed")
        with real.open() as again:
            assert again.freeze_status() == "thawed"


def commands(heard: list[str], thaw: Callable[[Played, int], None]) -> Callable[[Played], None]:
    """Return a script that freezes two file systems, and thaws them as ``thaw`` does."""

    def script(agent: Played) -> None:
        while True:
            request = agent.request()
            if request["execute"] == "guest-sync-delimited":
                agent.synced(request["arguments"]["id"])
                continue
            heard.append(request["execute"].removeprefix("guest-fsfreeze-"))
            if heard[-1] == "thaw":
                thaw(agent, request["id"])
            else:
                agent.reply({"return": 2, "id": request["id"]})

    return script


def test_a_thaw_that_is_not_answered_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRY_SECONDS", 0.1)
    heard: list[str] = []

    def thaw(agent: Played, number: int) -> None:
        if heard.count("thaw") == 2:
            agent.send(b"no JSON\n")
        elif heard.count("thaw") == 3:
            agent.reply({"return": 2, "id": number})

    with played(commands(heard, thaw)) as channel, GuestAgent(channel, "web01").frozen() as count:
        assert count == 2
    assert heard == ["freeze", "thaw", "thaw", "thaw"]


def test_a_thaw_that_is_refused_is_loud() -> None:
    def thaw(agent: Played, number: int) -> None:
        agent.reply({"error": {"class": "GenericError", "desc": "no"}, "id": number})

    with (
        played(commands([], thaw)) as channel,
        pytest.raises(GuestError, match=r"may still be frozen: .*vmconnect agent thaw web01"),
        GuestAgent(channel, "web01").frozen(),
    ):
        raise ValueError("the snapshot failed")


def test_a_freeze_that_is_not_answered_may_have_been_made() -> None:
    heard: list[str] = []

    def script(agent: Played) -> None:
        while True:
            request = agent.request()
            if request["execute"] == "guest-sync-delimited":
                agent.synced(request["arguments"]["id"])
                continue
            heard.append(request["execute"].removeprefix("guest-fsfreeze-"))
            if heard[-1] == "thaw":
                agent.reply({"return": 2, "id": request["id"]})

    with (
        played(script) as channel,
        pytest.raises(DeadlineError),
        GuestAgent(channel, "web01").frozen(["/srv"], timeout=0.2),
    ):
        pytest.fail("it is not known to be frozen")
    assert heard == ["freeze-list", "thaw"]


def test_a_connection_that_is_closed_by_another_thread_thaws_first() -> None:
    heard: list[str] = []

    def thaw(agent: Played, number: int) -> None:
        agent.reply({"return": 2, "id": number})

    with played(commands(heard, thaw)) as channel:
        agent = GuestAgent(channel, "web01")
        with pytest.raises(GuestError, match="before they were told"), agent.frozen():
            thread = threading.Thread(target=agent.close)
            thread.start()
            thread.join()
            assert heard == ["freeze", "thaw"]


@pytest.mark.parametrize("status", ["melting", None, 7, {"frozen": True}])
def test_a_status_that_is_none(status: object) -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        request = agent.request()
        agent.reply({"return": status, "id": request["id"]})

    with played(script) as channel, pytest.raises(AgentError, match="senseless"):
        GuestAgent(channel, "web01").freeze_status()
