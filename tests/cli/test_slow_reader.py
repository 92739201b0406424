"""Much output for who reads slowly: no more of it is held than is on its way."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.rig import Rig
from tests.direct.ssh_servers import SshServers, ssh_servers

WAIT = 60.0
SIZE = 300_000_000
# What may be held on the way: the SSH window (4 MiB) at each stage, and what Python makes of it.
MOST_BYTES = 48 << 20


@pytest.fixture(scope="module")
def servers() -> Iterator[SshServers]:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, ssh_servers(Path(name), 1) as all_:
        yield all_


def peak(pid: int) -> int:
    """Return the most memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def words(servers: SshServers, script: str) -> list[str]:
    login = ["-i", str(servers.identity_file), "--accept-new-host-key"]
    return ["exec", *login, "-n", servers.target("vm0001"), "--", "sh", "-c", script]


def read_slowly(process: subprocess.Popen[bytes], pid: int) -> None:
    """Read all of it, slowly at first; the process ``pid`` must not keep what is not read."""
    assert process.stdout is not None
    assert process.stdout.read(1)
    before = peak(pid)
    left = SIZE - 1
    for _ in range(20):
        left -= len(process.stdout.read(1000))
        time.sleep(0.1)
    assert peak(pid) - before < MOST_BYTES
    while left > SIZE // 10 and (data := process.stdout.read(1 << 20)):
        left -= len(data)
    assert peak(pid) - before < MOST_BYTES
    while data := process.stdout.read(1 << 20):
        left -= len(data)
    assert left == 0


def test_by_the_command_line_alone(servers: SshServers) -> None:
    rig = Rig(os.environ).with_(VMCONNECT_BROKER="0")
    with rig.start(*words(servers, f"head -c {SIZE} /dev/zero")) as process:
        try:
            read_slowly(process, process.pid)
            assert process.wait(WAIT) == 0
        finally:
            process.kill()


def test_through_the_broker(servers: SshServers) -> None:
    rig = Rig(os.environ)
    try:
        broker = rig.warm(*words(servers, "true")[1:])
        done = rig.done
        with rig.start(*words(servers, f"head -c {SIZE} /dev/zero")) as process:
            try:
                read_slowly(process, broker)
                assert process.wait(WAIT) == 0
            finally:
                process.kill()
        assert rig.done == done + 1
    finally:
        rig.stop()
