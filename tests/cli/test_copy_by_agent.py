"""vmconnect cp where no SSH server is reached: by a real qemu-ga of this machine's."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_agent import played_at
from tests.direct.agent.real import RealAgent, agent_program
from tests.direct.agent.windows import WindowsAgent
from vmconnect.cli import cp, login, main
from vmconnect.errors import (
    AuthenticationError,
    HostKeyChangedError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor import Machine
from vmconnect.session import Session
from vmconnect.streams import HybridVsock, Unix

SAID = "vmconnect: web01: no vsock device is known of it; copying by its guest agent, as root\n"


@pytest.fixture(scope="module")
def qemu_ga(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_program(tmp_path_factory.mktemp("qemu-ga"))


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """What is in the guest, which is this host."""
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


def names(room: Path) -> list[str]:
    return sorted(each.name for each in room.iterdir())


class Cli:
    """The command, in this process, with one machine, whose agent is at ``path``."""

    def __init__(self, path: Path, capfd: pytest.CaptureFixture[str]):
        self.machine = Machine("web01", str(path), f"vnc+unix:{path}", agent=Unix(str(path)))
        self._capfd = capfd

    def __call__(self, *words: str | Path, code: int = 0) -> tuple[str, str]:
        """Return what is on standard output and standard error."""
        result = main(["cp", *map(str, words)])
        out, err = self._capfd.readouterr()
        assert result == code, err
        return out, err


@pytest.fixture
def cli(
    rooms_of_our_own: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    assert rooms_of_our_own.exists()
    cli = Cli(tmp_path / "qga", capfd)
    for module in (cp, login):
        monkeypatch.setattr(module, "connect", lambda *_, **__: Session(cli.machine))
    return cli


@pytest.fixture
def real(qemu_ga: Path, tmp_path: Path) -> Iterator[RealAgent]:
    with RealAgent(qemu_ga, tmp_path).running() as agent:
        yield agent


@pytest.mark.usefixtures("real")
def test_in_and_out_and_which_way_is_said(cli: Cli, room: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(os.urandom(300_000))
    (tmp_path / "new").chmod(0o751)
    assert cli(tmp_path / "new", f"web01:{room}") == ("", SAID)
    assert (room / "new").read_bytes() == (tmp_path / "new").read_bytes()
    assert stat.S_IMODE((room / "new").stat().st_mode) == 0o751
    (tmp_path / "back").mkdir()
    out, err = cli("-v", f"web01:{room}/new", tmp_path / "back")
    assert (out, err.startswith(SAID)) == ("", True)
    assert err.endswith(" by guest agent\n")
    assert (tmp_path / "back" / "new").read_bytes() == (tmp_path / "new").read_bytes()
    out, _ = cli("--json", f"web01:{room}/new", tmp_path / "other")
    [told] = json.loads(out)
    assert (told["way"], told["files"], told["size"]) == ("guest agent", 1, 300_000)
    assert cli("--via", "agent", tmp_path / "new", f"web01:{room}/called") == ("", "")
    assert names(room) == ["called", "new"]


@pytest.mark.usefixtures("real")
def test_what_fails_is_told_and_the_rest_is_copied(cli: Cli, room: Path, tmp_path: Path) -> None:
    (tmp_path / "good").write_text("good")
    (room / "directory").mkdir()
    _, err = cli(tmp_path / "bad", room, tmp_path / "good", f"web01:{room}", code=1)
    assert err == (
        f"{SAID}vmconnect: cannot copy {tmp_path}/bad: No such file or directory\n"
        f"vmconnect: cannot copy {room}: Is a directory\n"
    )
    sources = [f"web01:{room}/{each}" for each in ("none", "directory", "good")]
    _, err = cli(*sources, tmp_path, code=1)
    assert err == (
        f"{SAID}vmconnect: web01: cannot copy {room}/none: No such file or directory\n"
        f"vmconnect: web01: cannot copy {room}/directory: no regular file\n"
    )
    assert (tmp_path / "good").read_text() == "good"
    (tmp_path / "two").touch()
    refused: list[tuple[tuple[str | Path, ...], str]] = [
        ((tmp_path / "good", "web01:relative"), "'relative' is no whole path"),
        ((f"web01:{room}/good", "web01:/tmp"), "to and from this host alone"),
        ((tmp_path / "good", f"web01:{room}/none/"), "none/ is no directory"),
        ((tmp_path / "good", tmp_path / "two", f"web01:{room}/new"), "new is no directory"),
        ((f"web01:{room}/good", f"web01:{room}/none", tmp_path / "two"), "two is no directory"),
        (("--via", "agent", "--sync", "x", "web01:/x"), "all of each"),
    ]
    for words, said in refused:
        assert said in cli(*words, code=1)[1]


@pytest.mark.usefixtures("real")
def test_where_nobody_listens(cli: Cli, room: Path, tmp_path: Path) -> None:
    """It has a vsock device, and no SSH server behind it."""
    cli.machine = replace(cli.machine, guest=HybridVsock(str(tmp_path / "vsock"), 22))
    (tmp_path / "new").write_text("new")
    _, err = cli(tmp_path / "new", f"web01:{room}")
    assert err.startswith("vmconnect: web01: cannot connect to ")
    assert err.endswith("; copying by its guest agent, as root\n")
    assert (room / "new").read_text() == "new"


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(
    "words", [("-l", "ann"), ("-i", "key"), ("--sync",), ("--special",), ("--via", "sftp")]
)
def test_what_only_a_login_gives_is_not_had_by_the_agent(
    cli: Cli, room: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "new").touch()
    _, err = cli(*words, tmp_path / "new", f"web01:{room}", code=1)
    assert err.startswith("vmconnect: web01: no vsock device is known of it")
    assert "agent" not in err
    assert names(room) == []


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("words", [("-l", "ann"), ("-i", "key"), ("--sync",), ("--special",)])
def test_the_agent_is_not_asked_for_what_only_a_login_gives(
    cli: Cli, room: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "new").touch()
    _, err = cli("--via", "agent", *words, tmp_path / "new", f"web01:{room}", code=1)
    assert err == "vmconnect: a guest agent copies files, all of each, and as itself\n"
    assert names(room) == []


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("it refuses", machine="web01"),
        HostKeyChangedError("another key", machine="web01"),
        UnsupportedError("no such cipher", machine="web01"),
    ],
)
def test_a_guest_that_refuses_us_is_not_gone_round(
    cli: Cli, room: Path, monkeypatch: pytest.MonkeyPatch, error: VmconnectError
) -> None:
    cli.machine = replace(cli.machine, guest=HybridVsock(str(room / "vsock"), 22))

    def guest(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Session, "guest", guest)
    _, err = cli(__file__, f"web01:{room}", code=1)
    assert err == f"vmconnect: web01: {error.message}\n"
    assert names(room) == []


def test_where_no_agent_answers_either_it_is_said_why_not_by_ssh(
    cli: Cli, room: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").touch()
    _, err = cli(tmp_path / "new", f"web01:{room}", code=1)
    assert err.startswith("vmconnect: web01: no vsock device is known of it")
    assert "copying" not in err
    _, err = cli("--via", "agent", tmp_path / "new", f"web01:{room}", code=1)
    assert "cannot connect to" in err


def test_a_windows_guest(cli: Cli, tmp_path: Path) -> None:
    windows = WindowsAgent(
        lambda script: {"objects": [r"'C:\there'" in script]} if "Test-Path" in script else {}
    )
    (tmp_path / "new").write_text("new")
    with played_at(tmp_path / "qga", windows):
        assert cli(tmp_path / "new", r"web01:C:\there")[1].endswith(", as SYSTEM\n")
        cli(tmp_path / "new", r"web01:C:\called.txt")
        assert sorted(windows.files) == [r"C:\called.txt", r"C:\there/new"]
        (tmp_path / "back").mkdir()
        cli(r"web01:C:\called.txt", tmp_path / "back")
        assert "'C:new' is no whole path" in cli(tmp_path / "new", "web01:C:new", code=1)[1]
    assert (tmp_path / "back" / "called.txt").read_text() == "new"
