"""``vmconnect doctor``: what a person sees, and what a program reads."""

import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hypervisor.rig import qemu
from vmconnect.cli import main
from vmconnect.cli.doctor import _Paper
from vmconnect.doctor import Finding, Outcome


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        monkeypatch.setenv("VMCONNECT_HYPERVISORS", name)
        monkeypatch.setenv("XDG_STATE_HOME", f"{name}/state")
        yield Path(name)


def test_the_exit_code_says_whether_anything_is_broken(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("this host\n  Python  ")
    assert "nothing is broken" in out.splitlines()[-1]
    assert err == ""
    assert main(["doctor", "web01"]) == 1
    out, _ = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "web01"
    assert lines[1].split() == ["target", "ok", "a", "machine's", "name", "or", "UUID"]
    assert lines[-1] == "broken: hypervisor"
    assert "\x1b" not in out


def test_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with qemu(directory, "m"):
        assert main(["doctor", "--json", "m"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["subject"] == "m"
    assert told["ok"] is False
    checks = {each["check"]: each for each in told["checks"]}
    assert checks["hypervisor"]["outcome"] == "ok"
    assert checks["hypervisor"]["seconds"] > 0
    assert checks["display"]["outcome"] == "broken"
    assert "-vnc" in checks["display"]["remedy"]
    assert checks["picture"] == {
        "check": "picture",
        "tries": "waited for, and looked at",
        "outcome": "not tried",
        "account": "display is broken",
        "remedy": None,
        "seconds": 0.0,
    }


def test_a_password_comes_from_a_file(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmconnect.deadline import Deadline
    from vmconnect.session import connect, hypervisor_of

    file = directory / "password"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    with qemu(directory, "m", "-vga", "std", "-vnc", f"unix:{directory}/m.vnc,password=on"):
        with connect("m") as session, hypervisor_of(session.machine) as hypervisor:
            hypervisor.set_console_password(session.machine, "s3cret", Deadline(60))
        main(["doctor", "m"])
        assert "asks for a password" in capsys.readouterr().out
        main(["doctor", "m", "--password-file", str(file)])
        assert "login VncAuth" in capsys.readouterr().out
        monkeypatch.setenv("VNC_PASSWORD", "wr0ng")
        main(["doctor", "m"])
        out, err = capsys.readouterr()
        assert "refuses the login" in out
        assert "wr0ng" not in out + err


@pytest.mark.parametrize("colours", [True, False])
def test_a_terminal_has_colours_and_sees_what_is_tried(directory: Path, colours: bool) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    env |= {} if colours else {"NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "vmconnect", "doctor", "web01"], stdout=theirs, env=env
    )
    os.close(theirs)
    data = b""
    while True:
        try:
            data += os.read(ours, 1 << 16)
        except OSError:  # Of a terminal that nobody writes to any more.
            break
    os.close(ours)
    assert process.wait() == 1
    text = data.decode()
    assert "  hypervisor    …\r\x1b[K  hypervisor" in text
    assert ("\x1b[31;1mbroken\x1b[0m" in text) is colours
    for line in text.replace("\r\n", "\n").split("\n"):
        assert len(re.sub(r"\x1b\[[0-9;]*m|.*\r\x1b\[K", "", line)) <= 80


def test_the_remedy_that_is_a_file_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from vmconnect.doctor.guest_links import LISTENER

    paper = _Paper("m", 10)
    paper.take(Finding("guest port", "", Outcome.BROKEN, "nobody", LISTENER))
    out = capsys.readouterr().out
    assert re.search(r"\n +\[Socket\]\n +ListenStream=vsock::22\n +Accept=yes\n", out)
    assert re.search(r"\n +\[Service\]\n +ExecStart=-/usr/sbin/sshd -i\n", out)


def test_hostile_words_do_not_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[31m\x07b\u202e"
    paper = _Paper(evil, 10)
    paper.take(Finding("x", "", Outcome.BROKEN, evil, f"{evil}\n    {evil}"))
    paper.take(Finding("y", "", Outcome.WARNING, "", None))
    paper.take(Finding("z", "", Outcome.OK, "broken " * 40))
    for line in capsys.readouterr().out.splitlines():
        assert line.isprintable()
