"""``vmconnect info``: a real guest, over SSH and by its agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vmconnect
from vmconnect.demo import DemoMachine

pytestmark = pytest.mark.guest

WAIT = 60.0


def run(*words: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "vmconnect", "info", *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def as_json(*words: str | Path) -> dict[str, Any]:
    code, out, err = run("--json", *words)
    assert (code, err) == (0, "")
    told: dict[str, Any] = json.loads(out)
    return told


def test_over_ssh(demo_machine: DemoMachine) -> None:
    code, out, err = run(demo_machine.name)
    assert (code, err) == (0, "")
    told = dict(line.split("  ", 1) for line in out.splitlines() if not line.startswith(" "))
    assert told["machine"].strip() == f"{demo_machine.name} (running, qemu)"
    assert told["host name"].strip() == "demo"
    assert told["kernel"].strip().startswith("Linux ")
    assert told["kernel"].endswith(" x86_64")
    assert "lo: " in told["addresses"]
    assert told["SSH"].strip().startswith("as root by key ")
    assert told["guest agent"].strip().startswith("qemu-ga ")
    with vmconnect.connect(demo_machine.name) as session:
        facts = session.guest().info()
        uptime = float(session.guest().run(["cat", "/proc/uptime"]).text.split()[0])
    assert facts.uptime_s is not None
    assert 0 < facts.uptime_s <= uptime
    assert facts.cpus
    assert facts.memory_bytes is not None
    assert 100 << 20 < facts.memory_bytes < 1 << 30
    assert [each.name for each in facts.interfaces] == ["lo"]


def test_by_the_agent_where_nobody_is_let_in(demo_machine: DemoMachine, tmp_path: Path) -> None:
    over_ssh = as_json(demo_machine.name)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    by_agent = as_json("-i", key, demo_machine.name)
    assert by_agent["channels"]["ssh"].startswith("no: login as root refused")
    assert by_agent["channels"]["agent"] == over_ssh["channels"]["agent"]
    for fact in ("hostname", "os_id", "os_name", "architecture", "memory_bytes", "cpus"):
        assert by_agent["guest"][fact] == over_ssh["guest"][fact], fact
    assert over_ssh["guest"]["kernel"].endswith(by_agent["guest"]["kernel"])
    assert by_agent["guest"]["uptime_s"] > 0
    names = [each["name"] for each in by_agent["guest"]["interfaces"]]
    assert names == [each["name"] for each in over_ssh["guest"]["interfaces"]]


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    code, out, err = run(f"vsock-mux{tmp_path}/nobody")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("vmconnect: ")
