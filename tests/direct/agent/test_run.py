"""Programs that a real qemu-ga runs on this machine; and agents that are played."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.direct.agent.played import Played, played
from tests.direct.agent.real import RealAgent
from vmconnect.deadline import Deadline
from vmconnect.direct.agent import GuestAgent
from vmconnect.direct.agent import program as program_module
from vmconnect.direct.agent import run as run_module
from vmconnect.direct.agent import spool as spool_module
from vmconnect.errors import (
    AgentError,
    CommandLostError,
    DeadlineError,
    GuestError,
    UnsupportedError,
)

WAIT = 60.0


def spools() -> set[Path]:
    """Return the directories of commands whose outputs are files."""
    rooms = (os.environ.get("TMPDIR"), "/var/tmp", "/tmp")
    return {each for room in rooms if room for each in Path(room).glob("vmconnect.*")}


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_how_it_ended(agent_here: GuestAgent) -> None:
    result = agent_here.run(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in \xff")
    assert (result.exit_code, result.signal) == (3, None)
    assert (result.stdout, result.stderr) == (b"in \xff", b"err\n")
    ended = agent_here.run(["sh", "-c", "kill -KILL $$"])
    assert (ended.exit_code, ended.signal) == (None, "KILL")
    assert agent_here.run(["/no/such/program"]).exit_code == 127
    refused = agent_here.run(["/etc/passwd"])
    assert refused.exit_code == 126
    assert b"/etc/passwd" in refused.stderr
    assert agent_here.run(["printf", "%s|", "a b", "", "c'd", "é\n$x"]).text == "a b||c'd|é\n$x|"
    with pytest.raises(UnsupportedError, match="not Unicode"):
        agent_here.run(["echo", "\udcff"])
    with pytest.raises(UnsupportedError, match="no program"):
        agent_here.run([])


def test_environment_and_directory(agent_here: GuestAgent, tmp_path: Path) -> None:
    script = 'printf "%s|%s|%s" "$ONE" "$PWD" "$PATH"'
    result = agent_here.run(["sh", "-c", script], env={"ONE": "a b=c\n'\""}, cwd=str(tmp_path))
    one, where, path = result.text.split("|")
    assert (one, where) == ("a b=c\n'\"", str(tmp_path))
    assert path  # The agent's own environment is still there.
    gone = agent_here.run(["true"], cwd="/no/such")
    assert gone.exit_code not in {0, None}
    assert b"/no/such" in gone.stderr


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 7])
def test_input_of_any_size(agent_here: GuestAgent, size: int) -> None:
    data = os.urandom(size)
    digest = hashlib.sha256(data).hexdigest()
    assert agent_here.run(["sha256sum"], stdin=data).text.split()[0] == digest
    pieces = (data[start : start + 100_000] for start in range(0, size, 100_000))
    assert agent_here.run(["sha256sum"], stdin=pieces).text.split()[0] == digest
    assert not spools()


def test_output_past_what_the_agent_keeps(agent_here: GuestAgent) -> None:
    size = (17 << 20) + 5
    words = ["sh", "-c", f"head -c {size} /dev/urandom | tee /dev/stderr"]
    with pytest.raises(GuestError, match="take the output with a sink"):
        agent_here.run(words, timeout=WAIT)
    out, err = hashlib.sha256(), hashlib.sha256()
    result = agent_here.run(words, stdout=out.update, stderr=err.update, timeout=WAIT)
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"", b"")
    assert out.digest() == err.digest() != hashlib.sha256().digest()
    assert not spools()


def test_output_comes_while_it_runs(agent_here: GuestAgent, tmp_path: Path) -> None:
    seen: list[bytes] = []
    gate = tmp_path / "gate"

    def sink(data: bytes) -> None:
        seen.append(data)
        gate.touch()

    script = f"echo one; until [ -e {gate} ]; do sleep 0.05; done; echo two; exit 5"
    result = agent_here.run(["sh", "-c", script], stdout=sink, timeout=WAIT)
    assert (result.exit_code, b"".join(seen)) == (5, b"one\ntwo\n")
    assert seen[0] == b"one\n"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("stubborn", [False, True])
def test_the_time_is_over(
    agent_here: GuestAgent, tmp_path: Path, *, streamed: bool, stubborn: bool
) -> None:
    trap = "trap '' TERM;" if stubborn else ""
    script = f"{trap} sleep 300 & echo $! $$ >{tmp_path}/pids; while :; do wait; sleep 300; done"
    with pytest.raises(DeadlineError, match="sh took longer than it was given, and was ended"):
        agent_here.run(
            ["sh", "-c", script], stdout=(lambda _: None) if streamed else None, timeout=2
        )
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    end = time.monotonic() + WAIT
    while any(map(alive, pids)):  # What was killed is gone when its parent has looked.
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(pids) == 2
    assert not spools()
    agent_here.ping()


def test_what_interrupts_us_ends_the_program(agent_here: GuestAgent) -> None:
    pids: list[int] = []

    def sink(data: bytes) -> None:
        pids.append(int(data))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        agent_here.run(["sh", "-c", "echo $$; sleep 300"], stdout=sink, timeout=WAIT)
    assert not alive(pids[0])
    assert not spools()


def test_an_agent_that_starts_anew_in_the_midst(real_agent: RealAgent, tmp_path: Path) -> None:
    with real_agent.open() as agent:
        started = tmp_path / "started"

        def kill() -> None:
            while not started.exists():
                time.sleep(0.01)
            real_agent.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            with pytest.raises(CommandLostError, match="it had started; how") as caught:
                agent.run(["sh", "-c", f"echo >{started}; exec sleep 2"], timeout=WAIT)
        finally:
            thread.join()
        assert caught.value.started
        with pytest.raises(CommandLostError, match="it may have started") as caught:
            agent.run(["true"])
        assert not caught.value.started
    real_agent.start()
    with real_agent.open() as agent:
        assert agent.run(["true"]).ok


def test_without_files_what_is_kept_is_handed_on(qemu_ga: Path, tmp_path: Path) -> None:
    blocked = ["guest-file-open"]
    with (
        RealAgent(qemu_ga, tmp_path, blocked=blocked).running() as real,
        real.open() as agent,
    ):
        seen: list[bytes] = []
        result = agent.run(["sh", "-c", "cat; echo err >&2"], stdin=b"in", stdout=seen.append)
        assert (seen, result.stdout, result.stderr) == ([b"in"], b"", b"err\n")
        with pytest.raises(UnsupportedError, match="does not permit guest-file-open"):
            agent.run(["cat"], stdin=bytes(2 << 20))
        assert not spools()


def test_without_programs(qemu_ga: Path, tmp_path: Path) -> None:
    with (
        RealAgent(qemu_ga, tmp_path, blocked=["guest-exec"]).running() as real,
        real.open() as agent,
        pytest.raises(UnsupportedError, match=r"does not permit guest-exec .*--block-rpcs"),
    ):
        agent.run(["true"])


def test_where_there_is_no_setsid(qemu_ga: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "sleep", "true"):
        (programs / name).symlink_to(f"/bin/{name}")
    with (
        RealAgent(qemu_ga, tmp_path, env={"PATH": str(programs)}).running() as real,
        real.open() as agent,
    ):
        assert agent.run(["true"]).ok
        assert not agent.has_groups
        assert agent.run(["nothing-of-that-name"]).exit_code == 127
        assert agent.run(["/etc/passwd"]).exit_code == 126
        with pytest.raises(DeadlineError, match="was ended"):
            agent.run(["sleep", "300"], timeout=0.3)


# Agents that are played.


def answering(answers: dict[str, Any]) -> Any:
    """Return a script that synchronises, and answers commands from lists, the last ever after."""

    def script(agent: Played) -> None:
        while True:
            request = agent.request()
            command = request["execute"]
            if command == "guest-sync-delimited":
                agent.synced(request["arguments"]["id"])
                continue
            given = answers[command]
            answer = given.pop(0) if len(given) > 1 else given[0]
            if answer is not None:
                agent.reply({**answer, "id": request["id"]})

    return script


def test_a_status_that_is_not_answered_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program_module, "_ANSWER_SECONDS", 0.1)
    done = {"return": {"exited": True, "exitcode": 0, "out-data": "QUJD"}}
    script = answering(
        {"guest-exec": [{"return": {"pid": 7}}], "guest-exec-status": [None, None, done]}
    )
    with played(script) as channel:
        assert GuestAgent(channel, "web01").run(["x"], timeout=WAIT).stdout == b"ABC"


def test_an_agent_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_module, "_ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(program_module, "_SILENCE_SECONDS", 0.3)
    script = answering({"guest-exec": [{"return": {"pid": 7}}], "guest-exec-status": [None]})
    with (
        played(script) as channel,
        pytest.raises(CommandLostError, match="gone silent: it had started"),
    ):
        GuestAgent(channel, "web01").run(["x"], timeout=None)


def test_one_that_cannot_be_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_module, "_END_SECONDS", 0.2)
    running = {"return": {"exited": False}}
    script = answering({"guest-exec": [{"return": {"pid": 7}}], "guest-exec-status": [running]})
    with played(script) as channel, pytest.raises(DeadlineError, match="and may still run"):
        GuestAgent(channel, "web01").run(["x"], timeout=0.1)


def test_output_whose_reply_is_lost_is_read_again(
    monkeypatch: pytest.MonkeyPatch, agent_here: GuestAgent
) -> None:
    """A real agent; every third answer to a read is held back, as by a channel that was cut."""
    monkeypatch.setattr(spool_module, "_ANSWER_SECONDS", 1.0)
    exchange, reads = agent_here._channel.exchange, 0

    def losing(command: str, arguments: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        nonlocal reads
        reply = exchange(command, arguments, deadline)
        if command == "guest-file-read":
            reads += 1
            if reads % 3 == 0:
                raise DeadlineError("it did not come")
        return reply

    monkeypatch.setattr(agent_here._channel, "exchange", losing)
    seen = bytearray()
    size = 2_000_000
    agent_here.run(["seq", "-f", "%07g", str(size // 8)], stdout=seen.extend, timeout=WAIT)
    assert bytes(seen) == b"".join(b"%07d\n" % n for n in range(1, size // 8 + 1))
    assert reads > 9


def test_a_directory_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = base64.b64encode(b"/etc").decode()
    answers = {
        "guest-get-osinfo": [{"return": {}}],
        "guest-exec": [{"return": {"pid": 7}}],
        "guest-exec-status": [{"return": {"exited": True, "exitcode": 0, "out-data": encoded}}],
    }
    with played(answering(answers)) as channel, pytest.raises(AgentError, match="no path"):
        GuestAgent(channel, "web01").run(["x"], stdout=print)


def test_what_is_kept_of_output_is_bounded(
    monkeypatch: pytest.MonkeyPatch, agent_here: GuestAgent
) -> None:
    monkeypatch.setattr(run_module, "_KEPT_BYTES", 1000)

    def none() -> Iterator[bytes]:
        yield bytes(2 << 20)

    with pytest.raises(GuestError, match="with a sink"):
        agent_here.run(["cat"], stdin=none(), timeout=WAIT)
    assert not spools()


class Clock:
    """Time that passes only by waiting, and what has been waited for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_it_is_asked_soon_and_then_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, questions = Clock(), 80

    def script(agent: Played) -> None:
        asked = 0
        while True:
            content = agent.request()
            match content["execute"]:
                case "guest-sync-delimited":
                    agent.synced(content["arguments"]["id"])
                case "guest-exec":
                    agent.reply({"return": {"pid": 7}})
                case "guest-exec-status":
                    asked += 1
                    ended = {"exited": True, "exitcode": 0}
                    agent.reply({"return": ended if asked == questions else {"exited": False}})

    with played(script) as channel:
        agent = GuestAgent(channel, "web01")
        monkeypatch.setattr(program_module, "time", clock)
        assert agent.run(["true"], timeout=None).ok
    pauses = clock.pauses
    assert len(pauses) == questions - 1
    # What takes no time is known of at once, and what takes long is seldom asked about.
    assert pauses[0] == 0.001
    assert sum(pauses[:20]) < 0.05
    assert pauses == sorted(pauses)
    for number, pause in enumerate(pauses):
        assert pause == pytest.approx(min(max(0.001, sum(pauses[:number]) / 8), 0.25))
    assert pauses[-1] == 0.25
