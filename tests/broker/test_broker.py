"""The broker's process: how it starts and ends, and what it has of whom."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import vmconnect
from tests.broker.rig import NAME, WAIT, Rig, empty_rig, is_alive, started, wait_gone
from vmconnect.broker import wire
from vmconnect.broker.order import Order
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine

pytestmark = pytest.mark.guest

# Its end, and what runs then.


def test_what_runs_when_the_broker_is_stopped_runs_on(rig: Rig) -> None:
    pid = rig.warm(NAME, "true")
    process = started(rig, "cat; exit 7")
    assert rig.run("sessions", "stop") == (0, b"", b"")
    assert rig.pid is None
    fresh = rig.warm(NAME, "true")
    assert fresh != pid
    assert process.communicate(b"still", WAIT) == (b"still", b"")
    assert process.returncode == 7
    wait_gone(pid)


def test_sigterm_ends_it_and_what_runs(rig: Rig) -> None:
    pid = rig.warm(NAME, "true")
    # It neither reads nor writes: no broken pipe ends it.
    process = started(rig, "exec sleep 6061 </dev/null >/dev/null 2>&1")
    os.kill(pid, signal.SIGTERM)
    _out, err = process.communicate(timeout=WAIT)
    wait_gone(pid)
    assert process.returncode == 255
    assert err.count(b"\n") == 1
    assert rig.pid is None
    rig.warm(NAME, "true")
    running = rig.run("exec", NAME, "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert b"sleep 6061" not in running[1]


def test_a_broker_that_is_killed_is_missed_by_nobody(rig: Rig) -> None:
    pid = rig.warm(NAME, "true")
    process = started(rig, "sleep 60")
    os.kill(pid, signal.SIGKILL)
    _out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, err) == (
        255,
        b"vmconnect: the broker has ended while the command ran\n",
    )
    assert rig.run("sessions", "--json") == (0, b"[]\n", b"")
    assert rig.run("exec", NAME, "echo", "on") == (0, b"on\n", b"")
    assert rig.warm(NAME, "true") != pid


# The process.


def test_it_ends_when_it_is_idle(demo_machine: DemoMachine) -> None:
    rig = Rig(os.environ)
    rig.stop()
    quick = rig.with_(VMCONNECT_BROKER_IDLE="1")
    pid = quick.warm(NAME, "true")
    wait_gone(pid)
    assert rig.pid is None
    left = Path(rig.environment["XDG_RUNTIME_DIR"], "vmconnect")
    assert not {path.name for path in left.iterdir()} & {"broker.sock", ".broker.lock"}


def test_it_has_nothing_of_who_started_it(demo_machine: DemoMachine, tmp_path: Path) -> None:
    rig = Rig(os.environ)
    rig.stop()
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    other = rig.with_(WORD="hush", SSH_AUTH_SOCK="/nonexistent")
    process = other.start("exec", NAME, "true", close_fds=False, cwd=tmp_path)
    process.communicate(timeout=WAIT)
    os.close(writer)
    pid = rig.warm(NAME, "true")
    try:
        assert os.read(reader, 1) == b""  # Nobody holds the other end.
        process_directory = Path(f"/proc/{pid}")
        assert process_directory.joinpath("cwd").readlink() == Path("/")
        environment = process_directory.joinpath("environ").read_bytes()
        assert b"hush" not in environment
        assert b"SSH_AUTH_SOCK" not in environment
        for number in range(3):
            assert process_directory.joinpath(f"fd/{number}").readlink() == Path("/dev/null")
        # A session of its own, and no terminal.
        fields = process_directory.joinpath("stat").read_text().rpartition(")")[2].split()
        assert (int(fields[3]), fields[4]) == (pid, "0")
    finally:
        os.close(reader)
        rig.stop()


def test_nothing_private_is_in_the_log(rig: Rig) -> None:
    rig.warm(NAME, "true")
    rig.run("exec", NAME, "echo", "a-private-word")
    rig.run("exec", "-l", "a-private-name", NAME, "true")
    log = Path(rig.environment["XDG_STATE_HOME"], "vmconnect", "broker.log")
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_text()
    assert "ready" in text
    assert "declined: AuthenticationError" in text
    assert "private" not in text


def test_many_that_start_at_once_make_one() -> None:
    with empty_rig() as rig:
        brokers = [
            subprocess.Popen([sys.executable, "-m", "vmconnect.cli.broker"], env=rig.environment)
            for _ in range(5)
        ]
        try:
            pid = rig.wait_started()
            (one,) = [each for each in brokers if each.pid == pid]
            for each in brokers:
                if each is not one:
                    assert each.wait(WAIT) == 0
            assert rig.pid == pid
        finally:
            for each in brokers:
                each.kill()
                each.wait()


def test_commands_that_start_at_once_make_one_broker(demo_machine: DemoMachine) -> None:
    rig = Rig(os.environ)
    rig.stop()
    try:
        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(lambda _: rig.run("exec", NAME, "echo", "x"), range(6)))
        assert results == [(0, b"x\n", b"")] * 6
        pid = rig.wait_started()
        time.sleep(1.0)  # The others need a moment to find that they are not wanted.
        brokers = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"vmconnect.cli.broker" in path.joinpath("cmdline").read_bytes():
                    environment = path.joinpath("environ").read_bytes()
                    if f"XDG_RUNTIME_DIR={rig.environment['XDG_RUNTIME_DIR']}\0".encode() in (
                        environment
                    ):
                        brokers.append(int(path.name))
        assert brokers == [pid]
    finally:
        rig.stop()


def test_a_failure_starts_no_broker() -> None:
    with empty_rig() as rig:
        assert rig.run("exec", "nothere", "true")[0] == 255
        assert rig.run("exec", "--help")[0] == 0
        assert rig.run("exec", "--no-broker", "nothere", "true")[0] == 255
        time.sleep(0.5)
        assert rig.pid is None


@pytest.fixture
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package once more, elsewhere."""
    path = tmp_path_factory.mktemp("copy")
    source = Path(vmconnect.__file__).parent
    shutil.copytree(source, path / "vmconnect", ignore=shutil.ignore_patterns("__pycache__"))
    return path


def test_another_installation_goes_its_own_way_and_the_broker_ends(
    demo_machine: DemoMachine, copy: Path
) -> None:
    rig = Rig(os.environ)
    pid = rig.warm(NAME, "true")
    process = started(rig, "cat")
    elsewhere = rig.with_(PYTHONPATH=str(copy))
    result = elsewhere.run("exec", NAME, "echo", "x", cwd=copy)
    assert result == (0, b"x\n", b"")
    assert is_alive(pid)
    assert process.communicate(b"on", WAIT) == (b"on", b"")
    wait_gone(pid)
    other = elsewhere.wait_started()
    assert other != pid
    # That one is no broker for the command as it is installed, either.
    assert rig.run("exec", NAME, "echo", "x") == (0, b"x\n", b"")
    wait_gone(other)
    rig.wait_started()
    rig.stop()


def test_a_broker_whose_code_has_changed_ends(demo_machine: DemoMachine, copy: Path) -> None:
    rig = Rig(os.environ)
    rig.stop()
    elsewhere = rig.with_(PYTHONPATH=str(copy))

    def run() -> None:
        assert elsewhere.run("exec", NAME, "echo", "x", cwd=copy) == (0, b"x\n", b"")

    run()
    pid = elsewhere.wait_started()
    run()
    assert elsewhere.pid == pid
    (copy / "vmconnect" / "channel.py").touch()
    time.sleep(1.0)  # It looks now and then.
    run()
    wait_gone(pid)
    rig.stop()


def test_hostile_clients_cost_it_nothing(rig: Rig) -> None:
    pid = rig.warm(NAME, "true")
    rig.run("exec", NAME, "true")
    descriptors = Path(f"/proc/{pid}/fd")

    def settled() -> int:
        """Return how many it has beside the one of each session, once they do not change."""
        deadline = Deadline(WAIT)
        before = (-1, -1)
        while (now := (len(list(descriptors.iterdir())), len(rig.sessions))) != before:
            deadline.check("waiting for the broker's descriptors")
            before = now
            time.sleep(0.2)
        return now[0] - now[1]

    before = settled()
    good = Order(["exec", NAME, "true"], "/", {}).to_bytes()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(Path(os.devnull).open("rb")).fileno() for _ in range(20)]
        for packet, count in [
            (b"", 0),
            (b"\0", 0),
            (b"?what", 0),
            (good, 0),
            (good, 2),
            (good, 4),
            (good, 20),
            (wire.RUN, 3),
            (wire.RUN + secrets.token_bytes(3000), 3),
            (wire.SESSIONS + secrets.token_bytes(100), 3),
            (wire.CLOSE + b"\xff\0\xfe", 1),
            (wire.INTERRUPT, 0),
            (good + b"x" * (wire.LIMIT_BYTES + 10), 3),
        ]:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                client.settimeout(WAIT)
                client.connect(wire.socket_path())
                socket.send_fds(client, [packet], files[:count])
                with contextlib.suppress(ConnectionResetError):
                    while client.recv(wire.LIMIT_BYTES):
                        pass
        silent = []
        for _ in range(50):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            client.connect(wire.socket_path())
            silent.append(client)
        assert rig.run("exec", NAME, "echo", "on") == (0, b"on\n", b"")
    assert rig.pid == pid
    deadline = Deadline(WAIT)
    while (now := settled()) != before:
        deadline.check(f"waiting for {before}, there are {now}: {rig.sessions}")
