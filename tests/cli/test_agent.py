"""vmconnect agent: by a real qemu-ga of this machine's, by a stand-in for Windows', in a guest."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.direct.agent.played import Played
from tests.direct.agent.real import ContainedAgent, RealAgent, agent_program
from tests.direct.agent.windows import WindowsAgent
from vmconnect.cli import agent_login, main
from vmconnect.demo import DemoMachine
from vmconnect.hypervisor import Machine
from vmconnect.session import Session
from vmconnect.streams import Unix

WAIT = 60.0
PASSWORD = "tell-n0body"  # noqa: S105 (of nobody)
needs_root = pytest.mark.skipif(
    not ContainedAgent.possible(), reason="needs root, loop devices and mkfs.ext4"
)


class Cli:
    """The command, in this process, with one machine, whose agent is at ``path``."""

    def __init__(self, path: Path, capfd: pytest.CaptureFixture[str]):
        self.machine = Machine("web01", str(path), f"vnc+unix:{path}", agent=Unix(str(path)))
        self._capfd = capfd

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        """Return what is on standard output and standard error."""
        result = main(["agent", *words])
        out, err = self._capfd.readouterr()
        assert result == code, err
        return out, err

    def json(self, *words: str) -> Any:
        return json.loads(self(words[0], "--json", *words[1:])[0])


@pytest.fixture(scope="module")
def qemu_ga(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_program(tmp_path_factory.mktemp("qemu-ga"))


@pytest.fixture
def cli(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    cli = Cli(tmp_path / "qga", capfd)
    monkeypatch.setattr(agent_login, "connect", lambda *_: Session(cli.machine))
    return cli


@pytest.fixture
def real(qemu_ga: Path, tmp_path: Path) -> Iterator[RealAgent]:
    with RealAgent(qemu_ga, tmp_path).running() as agent:
        yield agent


@pytest.fixture
def contained(qemu_ga: Path, tmp_path: Path) -> Iterator[ContainedAgent]:
    agent = ContainedAgent(qemu_ga, tmp_path)
    with agent.running():
        yield agent


@contextlib.contextmanager
def played_at(path: Path, script: Callable[[Played], None]) -> Iterator[None]:
    """Play an agent behind a socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = server.accept()
                with end, contextlib.suppress(EOFError, ConnectionError):
                    script(Played(end))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Let a test say what standard input has."""
    saved = os.dup(0)
    ends: list[int] = []

    def give(data: bytes) -> None:
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        os.dup2(reading, 0)
        os.close(reading)
        monkeypatch.setattr(sys, "stdin", open(0, encoding="utf-8", closefd=False))  # noqa: SIM115

    give(b"")
    yield give
    os.dup2(saved, 0)
    for each in (saved, *ends):
        os.close(each)


def test_info_and_interfaces(real: RealAgent, cli: Cli) -> None:
    assert real.path.exists()
    out, _ = cli("info", "web01")
    lines = {line[2:].split("  ")[0]: line for line in out.splitlines()[1:]}
    assert out.splitlines()[0] == "web01"
    assert lines["host name"].endswith(f" {socket.gethostname()}")
    assert "kernel" in lines["system"]
    assert "127.0.0.1/8" in lines["lo"]
    assert "set-time" in lines["not permitted"]
    told = cli.json("info", "web01")
    assert told["machine"] == "web01"
    assert told["system"]["machine"] == os.uname().machine
    assert told["file_systems_are"] == "thawed"
    assert "guest-shutdown" in told["lacks"]
    assert abs(told["ahead_s"]) < WAIT
    out, _ = cli("interfaces", "web01")
    assert out.splitlines()[0].split() == ["NAME", "MAC", "ADDRESSES"]
    names = [each["name"] for each in cli.json("interfaces", "web01")]
    assert "lo" in names
    assert [line.split()[0] for line in out.splitlines()[1:]] == names


def test_exec(
    real: RealAgent,
    cli: Cli,
    typed: Callable[[bytes], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert real.path.exists()
    script = 'cat; echo "$ONE $PWD" >&2; exit 3'
    typed(b"in\n")
    options = ("--env", "ONE=a b", "--cwd", str(tmp_path))
    out, err = cli("exec", *options, "web01", "sh", "-c", script, code=3)
    assert (out, err) == ("in\n", f"a b {tmp_path}\n")
    typed(b"not read")
    assert cli("exec", "-n", "web01", "cat") == ("", "")
    _, err = cli("exec", "-n", "web01", "sh", "-c", "kill -9 $$", code=137)
    assert "SIGKILL" in err
    told = cli.json("exec", "-n", "web01", "sh", "-c", r"printf 'a\377' >&2; echo out")
    assert (told["stdout"], told["stderr_base64"], told["exit_code"]) == ("out\n", "Yf8=", 0)
    assert cli("exec", "-n", "web01", "--", "ls", "--json", "/no/such", code=2)[0] == ""
    _, err = cli("exec", "-n", "web01", "no-such-program", code=127)
    assert "no-such-program" in err
    _, err = cli("exec", "-n", "--timeout", "0.3", "web01", "sleep", "300", code=255)
    assert "and was ended" in err
    _, err = cli("exec", "-n", "--env", "1=ONE", "web01", "true", code=255)
    assert "NAME=VALUE" in err
    monkeypatch.setenv("ONE", "ours")
    said, _ = cli("exec", "-n", "--env", "ONE", "web01", "sh", "-c", "echo $ONE")
    assert said == "ours\n"
    real.kill()
    _, err = cli("exec", "-n", "web01", "true", code=255)
    assert err.startswith("vmconnect: web01: ")


def test_exec_without_a_command_is_our_own_failure(cli: Cli) -> None:
    with pytest.raises(SystemExit) as caught:
        cli("exec", "web01")
    assert caught.value.code == 255


def test_powershell(cli: Cli, typed: Callable[[bytes], None]) -> None:
    """The agent is a stand-in that says of itself that it is Windows'."""
    told = {"objects": ["plain", {"Id": 7}, 8], "errors": ["not \x1b[2Jthis"], "text": "seen\r\n"}
    windows = WindowsAgent(lambda script: told if "Get-Process" in script else {"exit_code": 4})
    with played_at(cli.machine.agent.path, windows):  # type: ignore[union-attr]
        out, err = cli("powershell", "web01", "Get-Process", code=1)
        assert out.splitlines() == ["seen", "plain", '{"Id": 7}', "8"]
        assert err == "vmconnect: not ?[2Jthis\n"
        typed(b"exit 4")
        assert cli("powershell", "web01", code=4)[0] == ""
        assert "exit 4" in windows.scripts[-1]
        main(["agent", "powershell", "--json", "web01", "Get-Process"])
        assert json.loads(cli._capfd.readouterr().out)["objects"] == told["objects"]


@needs_root
def test_passwords_and_keys(contained: ContainedAgent, cli: Cli, tmp_path: Path) -> None:
    secret, keys = tmp_path / "secret", tmp_path / "keys.pub"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    cli("set-password", "--password-file", str(secret), "web01", "ann")
    line = next(
        each for each in (contained.etc / "shadow").read_text().splitlines() if "ann:" in each
    )
    assert line.startswith("ann:$")
    keys.write_text("# two\nssh-ed25519 AAAA one\n\nssh-ed25519 BBBB two\n")
    assert cli("keys", "--add", str(keys), "web01", "ann") == ("", "")
    assert sorted(cli("keys", "web01", "ann")[0].splitlines()) == [
        "ssh-ed25519 AAAA one",
        "ssh-ed25519 BBBB two",
    ]
    keys.write_text("ssh-ed25519 AAAA one\n")
    told = cli.json("keys", "--remove", str(keys), "web01", "ann")
    assert told == {"machine": "web01", "user": "ann", "keys": ["ssh-ed25519 BBBB two"]}
    keys.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert "no file of public keys" in cli("keys", "--add", str(keys), "web01", "ann", code=1)[1]
    keys.write_text("# nothing\n")
    assert "no public keys" in cli("keys", "--add", str(keys), "web01", "ann", code=1)[1]
    assert "cannot read" in cli("keys", "--add", "/no/such", "web01", "ann", code=1)[1]


@needs_root
def test_freeze_and_thaw(contained: ContainedAgent, cli: Cli) -> None:
    there = ("--mount", str(contained.mountpoint))
    out, err = cli("freeze", *there, "web01", "--", "sh", "-c", "echo meanwhile; exit 3", code=3)
    assert (out, err) == ("meanwhile\n", "vmconnect: web01: frozen meanwhile: 1 file system\n")
    _, err = cli("freeze", *there, "web01", "no-such-program", code=1)
    assert "cannot run no-such-program" in err
    _, err = cli("freeze", *there, "web01")
    assert "vmconnect agent thaw web01" in err
    assert "frozen" in cli("info", "web01")[0]
    assert cli.json("thaw", "web01") == {"machine": "web01", "file_systems": 1}
    assert "frozen" not in cli("info", "web01")[0]


@needs_root
def test_a_signal_thaws(contained: ContainedAgent, cli: Cli, tmp_path: Path) -> None:
    going = tmp_path / "going"

    def end() -> None:
        while not going.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end)
    thread.start()
    words = ["--mount", str(contained.mountpoint), "web01", "--"]
    with pytest.raises(SystemExit) as caught:
        main(["agent", "freeze", *words, "sh", "-c", f"touch {going}; exec sleep 300"])
    thread.join()
    assert caught.value.code == 128 + signal.SIGTERM
    assert cli.json("info", "web01")["file_systems_are"] == "thawed"


def test_the_clock(cli: Cli) -> None:
    """The agent is played: no test sets this machine's clock."""
    asked: list[Any] = []

    def script(agent: Played) -> None:
        while True:
            request = agent.request()
            if request["execute"] == "guest-sync-delimited":
                agent.synced(request["arguments"]["id"])
                continue
            answer: object = {}
            if request["execute"] == "guest-set-time":
                asked.append(request.get("arguments", {}).get("time"))
            elif request["execute"] == "guest-get-time":
                answer = int(1e18)
            agent.reply({"return": answer, "id": request["id"]})

    with played_at(cli.machine.agent.path, script):  # type: ignore[union-attr]
        out, _ = cli("time", "web01")
        assert out.startswith("2001-09-09 01:46:40.000+00:00, ")
        assert out.endswith("behind this host\n")
        assert cli.json("time", "web01")["time"] == 1e9
        cli("time", "--set", "rtc", "web01")
        cli("time", "--set", "now", "web01")
        cli("time", "--set", "2030-01-02T03:04:05+00:00", "web01")
        assert "no time" in cli("time", "--set", "soon", "web01", code=1)[1]
    assert asked[0] is None
    assert abs(asked[1] / 1e9 - time.time()) < WAIT
    assert asked[2] == 1_893_553_445 * 10**9


def test_power(cli: Cli) -> None:
    """The agent is played: no test turns this machine off."""
    heard: list[tuple[str, Any]] = []

    def script(agent: Played) -> None:
        while True:
            request = agent.request()
            if request["execute"] == "guest-sync-delimited":
                agent.synced(request["arguments"]["id"])
            elif request["execute"] == "guest-ping":
                agent.reply({"return": {}, "id": request["id"]})
            elif request["execute"] == "guest-suspend-disk":
                words = {"class": "GenericError", "desc": "the kernel cannot"}
                agent.reply({"error": words, "id": request["id"]})
            else:
                heard.append((request["execute"], request.get("arguments")))

    with played_at(cli.machine.agent.path, script):  # type: ignore[union-attr]
        assert cli("shutdown", "--mode", "reboot", "web01") == ("", "")
        assert cli.json("suspend", "web01") == {"machine": "web01", "mode": "ram"}
        assert "the kernel cannot" in cli("suspend", "--mode", "disk", "web01", code=1)[1]
    assert heard == [("guest-shutdown", {"mode": "reboot"}), ("guest-suspend-ram", None)]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("vmconnect agent fr", {"freeze"}),
        ("vmconnect agent suspend --mode ", {"ram", "disk", "hybrid"}),
        ("vmconnect agent exec vnc+t", {"vnc+tls://"}),
        ("vmconnect agent exec web01 -- l", set()),
    ],
)
def test_a_shell_completes(tmp_path: Path, line: str, offered: set[str]) -> None:
    env = {
        **os.environ,
        "VMCONNECT_HYPERVISORS": str(tmp_path),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    # It answers on descriptor 8 (argcomplete's protocol).
    words = ["sh", "-c", 'exec "$@" 8>&1 >/dev/null', "sh", sys.executable, "-m", "vmconnect"]
    told = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    assert {each.strip() for each in told.splitlines()} - {""} == offered


def test_verbose(real: RealAgent, cli: Cli) -> None:
    assert real.path
    said = "vmconnect: web01: by the guest agent, as root\n"
    assert cli("exec", "-v", "web01", "echo", "up") == ("up\n", said)
    assert cli("time", "-v", "web01")[1] == said
    assert cli("time", "web01")[1] == ""
    assert cli("interfaces", "-v", "web01")[1] == said


def test_it_starts_without_ssh() -> None:
    modules = "agent, agent_change, agent_exec, agent_facts, agent_freeze, agent_login"
    code = f"import sys; from vmconnect.cli import {modules}; assert 'paramiko' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.guest
def test_in_a_guest(demo_machine: DemoMachine) -> None:
    command = [sys.executable, "-m", "vmconnect", "agent"]

    def agent(*words: str) -> str:
        return subprocess.run(
            [*command, *words], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
        ).stdout

    assert "vmconnect demo" in agent("info", demo_machine.name)
    assert agent("exec", demo_machine.name, "cat", "/etc/hostname") == "demo\n"
    size = 3_000_000
    words = ("exec", demo_machine.name, "head", "-c", str(size), "/dev/zero")
    assert agent(*words) == "\0" * size
    agent("time", "--set", "now", demo_machine.name)
    told = json.loads(agent("time", "--json", demo_machine.name))
    assert abs(told["ahead_s"]) < WAIT
