"""The agent's channel: finding our own replies, whatever is on the way. The agents are played."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.direct.agent.played import Played, played
from vmconnect.deadline import Deadline
from vmconnect.direct.agent import GuestAgent
from vmconnect.direct.agent import channel as module
from vmconnect.errors import AgentError, ConnectionLostError, DeadlineError, GuestError

SOON, LONG = 0.2, 30.0


def test_what_was_meant_for_another_is_dropped() -> None:
    def script(agent: Played) -> None:
        agent.send(b'{"return": {"pid": 7}}\n{"return": "half of a late')
        agent.serve()

    with played(script) as channel:
        assert channel.exchange("guest-ping", {}, Deadline(LONG)) == {"return": "guest-ping"}


def test_a_late_reply_is_not_the_next_one_s() -> None:
    asked = threading.Event()

    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        assert agent.request()["execute"] == "guest-late"
        asked.set()
        number = agent.sync()  # The client has given up, and comes again.
        agent.reply({"return": "late"})
        agent.synced(number)
        agent.reply({"return": agent.request()["execute"]})

    with played(script) as channel:
        with pytest.raises(DeadlineError, match="web01: the guest agent did not answer guest-late"):
            channel.exchange("guest-late", {}, Deadline(SOON))
        assert asked.wait(LONG)
        assert channel.exchange("guest-next", {}, Deadline(LONG)) == {"return": "guest-next"}


def test_an_agent_that_starts_late_answers_all_that_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_ASK_AGAIN_SECONDS", 0.05)

    def script(agent: Played) -> None:
        numbers = [agent.sync() for _ in range(4)]  # Nobody answers while the guest boots.
        for number in numbers:
            agent.synced(number)
        agent.serve()

    with played(script) as channel:
        for command in ("one", "two", "three"):
            assert channel.exchange(command, {}, Deadline(LONG)) == {"return": command}


def test_what_is_lost_while_nobody_listens_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ASK_AGAIN_SECONDS", 0.05)

    def script(agent: Played) -> None:
        agent.sync()
        agent.sync()
        agent.serve()

    with played(script) as channel:
        assert channel.exchange("guest-ping", {}, Deadline(LONG)) == {"return": "guest-ping"}


def test_a_silent_agent_meets_the_deadline() -> None:
    def script(agent: Played) -> None:
        while True:
            agent.request()

    with (
        played(script) as channel,
        pytest.raises(DeadlineError, match="is qemu-guest-agent running"),
    ):
        channel.exchange("guest-ping", {}, Deadline(SOON))


@pytest.mark.parametrize("flood", [b"x" * 4096, b"\xff" * 4096, b"\xff{}\n" * 100, b"{}\n" * 999])
def test_a_flood_meets_the_deadline(flood: bytes) -> None:
    def script(agent: Played) -> None:
        while True:
            agent.send(flood)

    with played(script) as channel, pytest.raises(DeadlineError):
        channel.exchange("guest-ping", {}, Deadline(SOON))


def test_a_broken_reply_costs_no_more_than_itself() -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        agent.request()
        agent.send(b"no JSON\n")
        agent.serve()

    with played(script) as channel:
        with pytest.raises(AgentError, match="web01: no reply"):
            channel.exchange("first", {}, Deadline(LONG))
        assert channel.exchange("second", {}, Deadline(LONG)) == {"return": "second"}


def test_the_end_of_the_channel() -> None:
    with (
        played(lambda agent: agent.synced(agent.sync())) as channel,
        pytest.raises(ConnectionLostError, match="web01"),
    ):
        channel.exchange("guest-ping", {}, Deadline(LONG))


def test_threads_take_turns() -> None:
    with played(Played.serve) as channel, ThreadPoolExecutor(8) as pool:
        commands = [f"guest-{number}" for number in range(40)]
        replies = pool.map(lambda each: channel.exchange(each, {}, Deadline(LONG)), commands)
        assert [reply["return"] for reply in replies] == commands


def test_who_waits_for_its_turn_has_a_deadline() -> None:
    asked, done = threading.Event(), threading.Event()

    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        agent.request()
        asked.set()
        done.wait(LONG)
        agent.reply({"return": "at last"})

    with played(script) as channel, ThreadPoolExecutor(1) as pool:
        first = pool.submit(channel.exchange, "slow", {}, Deadline(LONG))
        assert asked.wait(LONG)
        with pytest.raises(DeadlineError, match="busy"):
            channel.exchange("quick", {}, Deadline(SOON))
        done.set()
        assert first.result() == {"return": "at last"}


def test_a_reply_that_comes_twice_is_no_answer_to_the_next() -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        while True:
            request = agent.request()
            reply = {"return": request["execute"], "id": request["id"]}
            agent.reply(reply)
            agent.reply(reply)

    with played(script) as channel:
        for command in ("one", "two", "three"):
            reply = channel.exchange(command, {}, Deadline(LONG))
            assert reply["return"] == command


def test_what_has_no_number_is_not_ours_where_others_have() -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        while True:
            request = agent.request()
            agent.reply({"return": request["execute"], "id": request["id"]})
            agent.reply({"error": {"class": "GenericError", "desc": "JSON parse error, stray"}})

    with played(script) as channel:
        for command in ("one", "two", "three"):
            assert channel.exchange(command, {}, Deadline(LONG))["return"] == command


def test_agents_of_old_are_asked_without_numbers() -> None:
    heard: list[tuple[str, bool]] = []

    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        while True:
            request = agent.request()
            heard.append((request["execute"], "id" in request))
            if "id" in request:
                words = "QMP input object member 'id' is unexpected"
                agent.reply({"error": {"class": "GenericError", "desc": words}})
            else:
                agent.reply({"return": request["execute"]})

    with played(script) as channel:
        for command in ("one", "two"):
            assert channel.exchange(command, {}, Deadline(LONG)) == {"return": command}
    assert heard == [("one", True), ("one", False), ("two", False)]


def test_orders_are_answered_only_if_they_fail() -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        while True:
            request = agent.request()
            if request["execute"] == "guest-sync-delimited":
                agent.send(b"\xff")
                agent.reply({"return": request["arguments"]["id"]})
            elif request["execute"] == "guest-fails":
                agent.reply({"error": {"class": "GenericError", "desc": "no"}})
            elif request["execute"] != "guest-obeys":
                agent.reply({"return": request["execute"], "id": request.get("id")})

    with played(script) as channel:
        assert channel.order("guest-obeys", {}, Deadline(LONG)) is None
        failed = channel.order("guest-fails", {}, Deadline(LONG))
        assert failed == {"error": {"class": "GenericError", "desc": "no"}}
        assert channel.order("guest-obeys", {}, Deadline(LONG)) is None
        assert channel.exchange("next", {}, Deadline(LONG))["return"] == "next"


def test_a_shutdown_that_ends_shutdown_too_has_begun() -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        for words in ("child process has terminated abnormally", "child process has failed"):
            request = agent.request()
            assert request["execute"] == "guest-ping"
            agent.reply({"return": {}, "id": request["id"]})
            request = agent.request()
            error = {"class": "GenericError", "desc": words}
            agent.reply({"error": error, "id": request["id"]})
            agent.send(b"\xff")
            agent.reply({"return": agent.sync()})

    with played(script) as channel:
        GuestAgent(channel, "web01").shut_down()
        with pytest.raises(GuestError, match="has failed"):
            GuestAgent(channel, "web01").shut_down()


def test_who_goes_to_do_as_ordered_says_no_more() -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        assert agent.request()["execute"] == "guest-ping"
        agent.reply({"return": {}})
        assert agent.request()["execute"] == "guest-shutdown"

    with played(script) as channel:
        GuestAgent(channel, "web01").shut_down("reboot")


def test_only_a_reply_that_brings_bytes_may_be_long() -> None:
    long = "x" * (1 << 20)

    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        for _ in range(2):
            agent.reply({"return": long, "id": agent.request()["id"]})
        agent.synced(agent.sync())
        agent.reply({"return": "short", "id": agent.request()["id"]})

    with played(script) as channel:
        for command in ("guest-file-read", "guest-info", "guest-ping"):
            if command == "guest-info":
                with pytest.raises(AgentError, match="web01: a reply longer than 1 MiB"):
                    channel.exchange(command, {}, Deadline(LONG))
            else:
                assert len(channel.exchange(command, {}, Deadline(LONG))["return"]) > 1


@pytest.mark.parametrize("command", ["guest-get-fsinfo", "guest-exec"])
def test_an_order_s_refusal_is_bounded_too(command: str) -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        agent.request()
        agent.reply({"error": {"desc": "x" * (1 << 20)}})
        agent.request()

    with played(script) as channel, pytest.raises(AgentError, match="longer than 1 MiB"):
        channel.order(command, {}, Deadline(LONG))
