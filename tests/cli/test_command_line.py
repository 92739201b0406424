"""The command line: what is read, what is refused, with which exit code and which words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vmconnect.cli.exec import arrange


@pytest.mark.parametrize(
    ("words", "arranged"),
    [
        ("exec web01 -- uname -a", "exec web01 -- uname -a"),
        ("exec web01 uname -a", "exec web01 -- uname -a"),
        ("exec -l root web01 uname -a", "exec -l root web01 -- uname -a"),
        ("exec web01 -l root -i key uname -a", "exec web01 -l root -i key -- uname -a"),
        ("exec web01 -n sh -c -- x", "exec web01 -n -- sh -c -- x"),
        ("exec web01 --json --wait 3 true", "exec web01 --json --wait 3 -- true"),
        ("exec web01 -lroot id -u", "exec web01 -lroot -- id -u"),
        ("exec web01", "exec web01"),
    ],
)
def test_the_guest_s_command_begins_where_ssh_s_would(words: str, arranged: str) -> None:
    assert arrange(words.split()) == arranged.split()


def vmconnect(
    *arguments: str, directory: Path, display: bool = False
) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if display or name != "DISPLAY"}
    env.pop("WAYLAND_DISPLAY", None)
    env |= {"XDG_RUNTIME_DIR": str(directory), "XDG_STATE_HOME": str(directory)}
    return subprocess.run(
        [sys.executable, "-m", "vmconnect", *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["exec", "web01", "--", "true"], 255, ["no machine is called 'web01'", "vmconnect demo"]),
        (["exec", "web01"], 255, ["required: COMMAND"]),
        (["exec", "no/such", "--", "true"], 255, ["'no/such' is no target", "vsock-mux/PATH"]),
        (["exec", "vsock-mux/nonexistent", "--", "true"], 255, ["is the machine running"]),
        (["exec", "vnc://localhost:1", "--", "true"], 255, ["no vsock device is known"]),
        (["screenshot", "web01", "-o", "x.png"], 1, ["no machine is called 'web01'"]),
        (["screenshot", "vnc+unix:/nonexistent", "-o", "x.png"], 1, ["No such file"]),
        (["screenshot", "vsock/3", "-o", "x.png"], 1, ["no console is known"]),
        (["console", "web01"], 1, ["no display", "vmconnect screenshot"]),
        (["nonsense"], 2, ["invalid choice: 'nonsense'"]),
        ([], 2, ["required: COMMAND"]),
        (["vsock-device", "--socket", "x", "--uds", "y", "--cid", "z"], 2, ["--cid"]),
    ],
)
def test_failures_are_one_line_with_a_code(
    tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    result = vmconnect(*arguments, directory=tmp_path)
    assert result.returncode == code
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("vmconnect")
    for word in words:
        assert word in result.stderr


def test_list_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(tmp_path))  # not what runs on this host
    result = vmconnect("list", directory=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["NAME", "STATE", "HYPERVISOR", "CONSOLE", "GUEST", "UUID"]
    assert vmconnect("list", "--json", directory=tmp_path).stdout == "[]\n"


def test_a_runtime_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vmconnect").mkdir()
    (tmp_path / "vmconnect").chmod(0o777)
    result = vmconnect("list", directory=tmp_path)
    assert result.returncode == 1
    assert "open to other users" in result.stderr


def test_help_names_every_command(tmp_path: Path) -> None:
    from vmconnect.cli.command_line import COMMANDS

    result = vmconnect("--help", directory=tmp_path)
    assert result.returncode == 0
    assert all(command in result.stdout for command in COMMANDS)
    for command in COMMANDS:
        text = vmconnect(command, "--help", directory=tmp_path)
        assert text.returncode == 0
        assert "usage: vmconnect" in text.stdout


def test_what_a_peer_says_cannot_drive_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmconnect.cli import main
    from vmconnect.errors import GuestError

    def fail(_name: str, _arguments: list[str]) -> int:
        raise GuestError("a\x1b[31mred\nline", machine="m\x07")

    monkeypatch.setattr("vmconnect.cli.command_line._run", fail)
    assert main(["list"]) == 1
    assert capsys.readouterr().err == "vmconnect: m?: a?[31mred line\n"
