"""Windows guests. None can run here: the agent is a stand-in that says so of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.direct.agent.played import played
from tests.direct.agent.windows import WindowsAgent
from vmconnect.direct.agent import GuestAgent
from vmconnect.direct.agent.powershell import Script, encoded, quoted
from vmconnect.direct.result import Result
from vmconnect.errors import AgentError, DeadlineError, GuestError, UnsupportedError, VmconnectError

WAIT = 60.0


def outcome(**told: Any) -> WindowsAgent:
    return WindowsAgent(lambda _: told)


def test_objects_come_back() -> None:
    objects = [{"Name": "spooler", "Status": 4}, "text é", 7, None, [1, 2]]
    windows = outcome(objects=objects)
    with played(windows) as channel:
        result = GuestAgent(channel, "web01").powershell("Get-Service spooler", depth=3)
    assert list(result.objects) == objects
    assert (result.ok, result.exit_code, result.failure, result.errors) == (True, 0, None, ())
    assert result.check() is result
    (script,) = windows.scripts
    assert "\nGet-Service spooler\n" in script
    assert "-Depth 3 " in script


def test_errors_and_exit_codes() -> None:
    for told, words in (
        ({"failed": "it is full", "exit_code": 1}, "web01: it is full"),
        ({"errors": ["no such \x1b[2Jprocess"]}, r"no such \?\[2Jprocess"),
        ({"exit_code": 3}, "exit code 3"),
        ({"raw": "", "stderr": "not recognised", "exit_code": 1}, "not recognised"),
        ({"raw": "", "text": "half", "exit_code": None}, "PowerShell gave no answer"),
    ):
        with played(outcome(**told)) as channel:
            result = GuestAgent(channel, "web01").powershell("x")
            assert not result.ok
            with pytest.raises(GuestError, match=words):
                result.check()


def test_what_else_is_written_does_no_harm() -> None:
    with played(outcome(text="Write-Host was here\r\n", objects=[1])) as channel:
        result = GuestAgent(channel, "web01").powershell("x")
    assert result.objects == (1,)
    assert result.text == "Write-Host was here\r\n\r\n"


def test_long_scripts_go_over_the_input() -> None:
    windows = outcome(objects=["done"])
    long = "# " + "é" * 40_000 + "\nGet-Date"
    with played(windows) as channel:
        assert GuestAgent(channel, "web01").powershell(long).objects == ("done",)
    assert long in windows.scripts[0]


@pytest.mark.parametrize("raw", ["{", "[]", "7", '{"objects": 1, "errors": [], "failed": null}'])
def test_answers_that_are_none(raw: str) -> None:
    with (
        played(outcome(raw=raw)) as channel,
        pytest.raises(AgentError, match=r"web01: .*PowerShell"),
    ):
        GuestAgent(channel, "web01").powershell("x")


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_whatever_is_written_only_our_errors_come(before: bytes, body: bytes) -> None:
    script = Script("x", 2)
    mark = script._mark.encode()
    result = Result(("x",), 0, None, before + mark + body + mark, b"", 0.0)
    try:
        script.read(result, "web01")
    except VmconnectError as error:
        assert isinstance(error, AgentError)


@given(st.text())
def test_literals_have_no_way_out(text: str) -> None:
    literal = quoted(text)
    assert literal[0] == literal[-1] == "'"
    inside = literal[1:-1]
    for mark in "'\u2018\u2019\u201a\u201b":
        inside = inside.replace(mark * 2, "")
        assert mark not in inside
    encoded(text)


def test_programs() -> None:
    windows = WindowsAgent()
    with played(windows) as channel:
        agent = GuestAgent(channel, "web01")
        assert agent.is_windows()
        seen: list[bytes] = []
        assert agent.run(["whoami.exe"]).stdout == b"some\r\n"
        # It comes at the end, but it comes.
        assert agent.run(["whoami.exe"], stdout=seen.append).stdout == b""
        assert seen == [b"some\r\n"]
        agent.run(["whoami.exe"], env={"ONE": "two"})
        with pytest.raises(UnsupportedError, match="working directories"):
            agent.run(["whoami.exe"], cwd="C:\\")
        with pytest.raises(UnsupportedError, match="no more than 1 MiB of input"):
            agent.run(["more.com"], stdin=bytes(2 << 20))
        with pytest.raises(DeadlineError, match="was ended"):
            agent.run(["sleeps.exe"], timeout=0.3)
    assert windows.started[-1][:4] == ["taskkill", "/T", "/F", "/PID"]
    assert all(words[0] != "setsid" for words in windows.started)


def test_files(tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(b"some\r\n\x1a\xff" * 50_000)
    windows = WindowsAgent()
    with played(windows) as channel:
        agent = GuestAgent(channel, "web01")
        agent.put(source, "C:\\ann's.bin")
        assert {*windows.files} == {"C:\\ann's.bin"}
        assert windows.files["C:\\ann's.bin"] == source.read_bytes()
        agent.get("C:\\ann's.bin", back)
        assert back.read_bytes() == source.read_bytes()
        with pytest.raises(GuestError, match="cannot find the file"):
            agent.get("C:\\none", back)
