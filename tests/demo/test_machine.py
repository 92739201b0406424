"""Real demo machines: what the guest offers, and that nothing of them outlives its owner."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vmconnect
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoImage, DemoMachine
from vmconnect.errors import DeadlineError, MissingDependencyError, ResourceError, StateError
from vmconnect.hypervisor.qmp import QmpClient
from vmconnect.streams import Unix

WAIT = 60.0
POLL = 0.02

pytestmark = pytest.mark.guest


@pytest.fixture
def room() -> Iterator[Path]:
    """Give a runtime directory of the test's own, private and with a short path."""
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        yield Path(name)


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = Deadline(WAIT)
    while not true():
        deadline.check(f"waiting for {what}")
        time.sleep(POLL)


def processes(*words: str) -> list[int]:
    """Return the processes whose command lines have all the words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if all(word.encode() in line for word in words):
            found.append(int(path.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# The guest.


class Agent:
    """The least that speaks to qemu-ga (QEMU, docs/interop/qemu-ga-ref)."""

    def __init__(self, path: Path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(WAIT)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def __call__(self, command: str, **arguments: Any) -> Any:
        request = {"execute": command, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(self._lines.readline())
        assert "error" not in answer, answer
        return answer["return"]

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@pytest.fixture
def agent(demo_machine: DemoMachine) -> Iterator[Agent]:
    agent = Agent(demo_machine.agent_path)
    yield agent
    agent.close()


def test_the_guest_agent_answers_and_runs_a_command(agent: Agent) -> None:
    assert agent("guest-ping") == {}
    pid = agent("guest-exec", path="uname", arg=["-n"], **{"capture-output": True})["pid"]
    status: dict[str, Any] = {}

    def exited() -> bool:
        status.update(agent("guest-exec-status", pid=pid))
        return bool(status["exited"])

    until(exited, "the agent's command")
    assert (status["exitcode"], b64decode(status["out-data"])) == (0, b"demo\n")


def test_the_guest_is_what_it_says(demo_machine: DemoMachine) -> None:
    script = """
    . /etc/os-release; echo "$PRETTY_NAME"
    ls /sys/class/net
    python3 -c 'import ssl, socket, json, subprocess, asyncio, hashlib; print(socket.AF_VSOCK)'
    uname -r
    stat -c '%a %U %n' /root/.ssh /etc/shadow /etc/ssh/ssh_host_ed25519_key /home/guest/.ssh
    """
    with vmconnect.connect(f"qemu:{demo_machine.qmp_path}") as session:
        guest = session.guest(timeout=WAIT, wait=True)
        result = guest.run(["sh", "-c", script], timeout=WAIT)
    assert result.text.splitlines() == [
        "vmconnect demo",
        "lo",
        "40",
        demo_machine.image.version,
        "700 root /root/.ssh",
        "600 root /etc/shadow",
        "600 root /etc/ssh/ssh_host_ed25519_key",
        "700 guest /home/guest/.ssh",
    ]


def test_both_consoles_ask_for_a_login(demo_machine: DemoMachine) -> None:
    def asks() -> bool:
        return demo_machine.serial_log.read_bytes().rstrip().endswith(b"demo login:")

    until(asks, "the serial console's login prompt")
    log = demo_machine.serial_log.read_text()
    assert "Linux version" in log
    assert re.search(r"Kernel panic|insmod: |can't |not found|Unknown symbol", log) is None
    with vmconnect.connect(f"qemu:{demo_machine.qmp_path}") as session:
        console = session.console()
        console.wait_for(lambda _: "demo login:" in (console.text() or []), WAIT)


def test_the_serial_console_logs_in(demo_machine: DemoMachine) -> None:
    with socket.socket(socket.AF_UNIX) as serial:
        serial.settimeout(WAIT)
        serial.connect(str(demo_machine.serial_path))

        def expect(wanted: bytes) -> bytes:
            told = b""
            while wanted not in told:
                told += serial.recv(4096)
            return told

        serial.sendall(b"\n")
        expect(b"demo login:")
        serial.sendall(b"root\n")
        expect(b"root@demo:~# ")
        serial.sendall(b"echo $((6 * 7)); tty; exit\n")
        told = expect(b"demo login:")
    assert b"42\r\n/dev/ttyS0\r\n" in told


def test_the_power_button(fresh_machine: type[DemoMachine], room: Path) -> None:
    with fresh_machine.start("button", directory=room) as machine:
        assert machine.pid is not None
        with vmconnect.connect(f"qemu:{machine.qmp_path}") as session:
            guest = session.guest(timeout=WAIT, wait=True)
            guest.run(["sh", "-c", "until pidof acpid; do sleep 0.1; done"], timeout=WAIT)
        with QmpClient.connect(Unix(str(machine.qmp_path))) as monitor:
            monitor.execute("system_powerdown")
        assert machine.wait(WAIT) == "QEMU ended"
        assert not alive(machine.pid)
        assert list(room.iterdir()) == []


# What becomes of a machine, without a guest: its processors stay stopped.


def test_a_stopped_machine_leaves_nothing(fresh_machine: type[DemoMachine], room: Path) -> None:
    with fresh_machine.start("brief", directory=room, paused=True) as machine:
        assert (machine.running, machine.end_reason) == (True, None)
        assert {path.name for path in room.iterdir()} == {
            f"brief.{suffix}"
            for suffix in (
                "qmp",
                "vnc",
                "vsock",
                "vu",
                "qga",
                "events",
                "serial",
                "log",
                "json",
                "key",
                "lock",
            )
        }
        assert all(path.stat().st_mode & 0o077 == 0 for path in room.iterdir() if path.is_file())
        with pytest.raises(DeadlineError):
            machine.wait(0)
    machine.stop()
    assert machine.end_reason == "stopped"
    assert list(room.iterdir()) == []
    assert processes(str(room)) == []


def test_a_name_is_given_once(fresh_machine: type[DemoMachine], room: Path) -> None:
    with fresh_machine.start("twin", directory=room, paused=True) as machine:
        with pytest.raises(StateError, match=r"twin: a machine of this name is running already"):
            fresh_machine.start("twin", directory=room, paused=True)
        assert machine.running
        with QmpClient.connect(Unix(str(machine.qmp_path))) as monitor:
            assert monitor.execute("query-name") == {"name": "twin"}
    with fresh_machine.start("twin", directory=room, paused=True) as again:
        assert again.uuid != machine.uuid


_OWNER = """
import sys, time
from pathlib import Path
from vmconnect.demo import DemoMachine
machine = DemoMachine.start("orphan", directory=Path(sys.argv[1]), paused=True)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owner_takes_all_with_it(
    demo_image: DemoImage, room: Path, number: signal.Signals
) -> None:
    assert demo_image.kernel.exists()
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(room)], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        assert processes("qemu-system", str(room))
        assert processes("vsock-device", str(room))
        owner.send_signal(number)
    until(lambda: not processes("vmc-", str(room)), "its processes to end")
    until(lambda: not list(room.iterdir()), "its files to go")


def test_a_killed_keeper_takes_all_with_it(fresh_machine: type[DemoMachine], room: Path) -> None:
    machine = fresh_machine.start("kept", directory=room, paused=True)
    try:
        machine.process.kill()
        assert machine.wait(WAIT) == "the machine's keeper was killed"
        until(lambda: not processes(str(room)), "QEMU and the device to end")
        assert list(room.iterdir()) == []
        with fresh_machine.start("kept", directory=room, paused=True) as again:
            assert again.running
    finally:
        machine.stop()


def test_what_a_killed_keeper_left_is_no_hindrance(
    fresh_machine: type[DemoMachine], room: Path
) -> None:
    for suffix in ("qmp", "vnc", "vsock", "vu"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(room / f"again.{suffix}"))
    (room / "again.key").write_text("old")
    (room / "again.lock").touch()
    with fresh_machine.start("again", directory=room, paused=True) as machine:
        assert machine.client_key.read_bytes() == machine.image.client_key.read_bytes()
    assert list(room.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("vsock-device", "the vsock device was ended by signal 9"),
        ("qemu-system", "QEMU was ended by signal 9"),
    ],
)
def test_a_machine_ends_with_either_part(
    fresh_machine: type[DemoMachine], room: Path, program: str, reason: str
) -> None:
    with fresh_machine.start("part", directory=room, paused=True) as machine:
        [pid] = processes(program, str(room))
        os.kill(pid, signal.SIGKILL)
        assert machine.wait(WAIT).startswith(reason)
        assert machine.end_reason is not None
        assert list(room.iterdir()) == []
    assert processes(str(room)) == []


def test_a_kernel_that_is_none_is_told(
    fresh_machine: type[DemoMachine], demo_image: DemoImage, room: Path
) -> None:
    from dataclasses import replace

    nothing = room / "nothing"
    image = replace(demo_image, kernel=nothing)
    with pytest.raises(ResourceError, match=f"could not open kernel file .*{nothing}"):
        fresh_machine.start("empty", image=image, directory=room)
    assert list(room.iterdir()) == []
    image = replace(demo_image, client_key=nothing)
    with pytest.raises(ResourceError, match=f"cannot read {nothing}"):
        fresh_machine.start("empty", image=image, directory=room)
    assert list(room.iterdir()) == []


def test_a_path_too_long_for_a_socket_is_told(
    fresh_machine: type[DemoMachine], tmp_path: Path
) -> None:
    room = tmp_path / ("x" * 100)
    with pytest.raises(ResourceError, match=r"too long for a socket \(a shorter name"):
        fresh_machine.start("long", directory=room)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-option", "a" * 64, "a b", "a\nb"])
def test_what_is_no_name_is_refused(fresh_machine: type[DemoMachine], name: str) -> None:
    with pytest.raises(StateError, match="is no name for a machine"):
        fresh_machine.start(name)


def test_too_little_memory_is_refused(fresh_machine: type[DemoMachine]) -> None:
    with pytest.raises(StateError, match="needs 160 to 65536 MiB"):
        fresh_machine.start("small", memory_mib=64)


def test_without_qemu_its_package_is_named(
    fresh_machine: type[DemoMachine], room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingDependencyError, match="apt install qemu-system-x86"):
        fresh_machine.start("none", directory=room)
    assert list(room.iterdir()) == []


def demo(room: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``vmconnect demo`` with a runtime directory of its own."""
    return subprocess.run(
        [sys.executable, "-m", "vmconnect", "demo", "--once", "--no-window"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(room), **environment},
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"PATH": "/nonexistent"},
            "qemu-system-x86_64 is not installed (apt install qemu-system-x86)",
        ),
        (
            {"XDG_CACHE_HOME": "/proc"},
            "cannot make the directory /proc/vmconnect/demo: No such file or directory",
        ),
    ],
)
def test_the_command_says_in_one_line_why_it_cannot(
    demo_image: DemoImage, room: Path, environment: dict[str, str], message: str
) -> None:
    assert demo_image.kernel.exists()
    result = demo(room, **environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"vmconnect: {message}\n"
    assert [path for path in room.rglob("*") if not path.is_dir()] == []
