"""``-v``: as whom we come in, how, and as whom commands run; in a real guest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vmconnect.demo import DemoMachine

pytestmark = pytest.mark.guest

WAIT = 60.0


@pytest.fixture
def said(demo_machine: DemoMachine) -> str:
    """What all of them say."""
    return f"vmconnect: {demo_machine.name}: logged in as root by key {demo_machine.client_key}"


def vmconnect(*words: str, code: int = 0) -> tuple[str, list[str]]:
    """Return standard output, and the lines of standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "vmconnect", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
        env={**os.environ, "VMCONNECT_BROKER": "0"},
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr.splitlines()


def test_exec(demo_machine: DemoMachine, said: str) -> None:
    words = ["-v", demo_machine.name, "id", "-un"]
    assert vmconnect("exec", *words) == ("root\n", [said])
    assert vmconnect("exec", "-u", "root", *words) == ("root\n", [said])
    other = f"{said}; commands run as guest, by runuser or su"
    assert vmconnect("exec", "-u", "guest", *words) == ("guest\n", [other])
    _, lines = vmconnect("exec", "-l", "guest", "-u", "root", *words, code=255)
    assert lines[0].endswith("; commands run as root, by sudo or doas")


def test_exec_on_many(demo_machine: DemoMachine, said: str) -> None:
    words = ["-q", "-v", "-m", demo_machine.name, "--", "id", "-un"]
    name = demo_machine.name
    assert vmconnect("exec", *words) == (f"{name} | root\n", [said])
    other = f"{said}; commands run as guest, by runuser or su"
    assert vmconnect("exec", "-u", "guest", *words) == (f"{name} | guest\n", [other])


def test_run(demo_machine: DemoMachine, said: str, tmp_path: Path) -> None:
    script = tmp_path / "who.sh"
    script.write_text("id -un\n")
    words = ["-v", str(script), demo_machine.name]
    assert vmconnect("run", *words) == ("root\n", [said])
    other = f"{said}; commands run as guest, by runuser or su"
    assert vmconnect("run", "-u", "guest", *words) == ("guest\n", [other])


def test_shell(demo_machine: DemoMachine, said: str) -> None:
    out, lines = vmconnect("shell", "-v", demo_machine.name, "--", "id", "-un")
    assert (out.split(), lines[0]) == (["root"], said)


def test_jobs(demo_machine: DemoMachine, said: str) -> None:
    assert vmconnect("jobs", "list", "-v", demo_machine.name)[1] == [said]
    other = f"{said}; commands run as guest, by runuser or su"
    name, lines = vmconnect("exec", "--detach", "-v", "-u", "guest", demo_machine.name, "id", "-un")
    assert lines == [other]
    words = ["-v", "-u", "guest", demo_machine.name, name.strip()]
    assert vmconnect("jobs", "collect", *words) == ("guest\n", [other])
    assert vmconnect("jobs", "forget", *words) == ("", [other])
