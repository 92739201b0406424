"""The broker, its clients and a real guest: with it all is as without it, only sooner."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import vmconnect
from tests.broker.rig import WAIT, Rig, empty_rig, is_alive, wait_gone
from vmconnect.broker import wire
from vmconnect.broker.order import Order
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest
from vmconnect.session import TrustStore

pytestmark = pytest.mark.guest

NAME = "shared"


@pytest.fixture(scope="module")
def rig(demo_machine: DemoMachine) -> Iterator[Rig]:
    """A broker with a session open with the shared machine."""
    assert demo_machine.name == NAME
    rig = Rig(os.environ)
    try:
        rig.warm(NAME, "true")
        yield rig
    finally:
        rig.stop()


@pytest.fixture(scope="module")
def guest(demo_machine: DemoMachine) -> Iterator[Guest]:
    """A connection of the test's own, to look at the guest from inside."""
    with vmconnect.connect(demo_machine.name) as session:
        yield session.guest(timeout=WAIT, wait=True)


# The same as without.

CASES = {
    "nothing": ["true"],
    "exit code": ["sh", "-c", "exit 42"],
    "our own exit code": ["sh", "-c", "exit 255"],
    "both outputs": ["sh", "-c", "echo out; echo err >&2; exit 3"],
    "arguments": ["printf", "[%s]", "a b", "it's", "$HOME", "*", "", "-n", "--no-stdin", "é"],
    "ended by a signal": ["sh", "-c", "echo before; kill -TERM $$"],
    "killed": ["sh", "-c", "kill -KILL $$"],
    "not found": ["/no/such/command"],
    "no program": ["/etc/passwd"],
    "bytes": ["printf", "\\377\\000\\n"],
    "much": ["head", "-c", "3000000", "/dev/zero"],
    "the environment": ["sh", "-c", "echo $LANG $SSH_AUTH_SOCK $HOME; pwd; id"],
}


@pytest.mark.parametrize("options", [[], ["-n"]], ids=["", "-n"])
@pytest.mark.parametrize("argv", CASES.values(), ids=CASES)
def test_it_is_as_without(rig: Rig, argv: list[str], options: list[str]) -> None:
    words = ["exec", *options, NAME, "--", *argv]
    before = rig.done
    assert rig.run(*words) == rig.alone(*words)
    assert rig.done == before + 1


ENDS = {
    "time-out": ["--timeout", "0.3", NAME, "sleep", "60"],
    "no machine": ["nothere", "true"],
    "no target": ["no/such", "true"],
    "no vsock": ["vnc://127.0.0.1:1", "true"],
    "no socket": ["vsock-mux/nonexistent", "true"],
    "nobody there": ["-l", "nobody", NAME, "id"],
    "no key": ["-i", "nonexistent.pem", NAME, "id"],
    "no key at all": ["-i", "/etc/passwd", NAME, "id"],
    "no command": [NAME],
    "no option": ["--nonsense", NAME, "true"],
    "help": ["--help"],
    "a file": ["nonexistent.vv", "true"],
    "another host": ["libvirt+tcp://127.0.0.1:1/system/web01", "true"],
    "another host's libvirt": ["ssh://127.0.0.1:1/web01", "true"],
    "options behind": [NAME, "-n", "--timeout", "30", "sh", "-c", "echo $0 $@", "-n"],
}


@pytest.mark.parametrize("words", ENDS.values(), ids=ENDS)
def test_it_ends_as_without(rig: Rig, words: list[str]) -> None:
    assert rig.run("exec", *words) == rig.alone("exec", *words)


def test_megabytes_each_way(rig: Rig) -> None:
    noise = secrets.token_bytes(4_000_000)
    before = rig.done
    assert rig.run("exec", NAME, "--", "cat", stdin=noise) == (0, noise, b"")
    assert rig.done == before + 1


def test_json(rig: Rig) -> None:
    words = ["exec", "--json", NAME, "sh", "-c", "printf '\\377'; echo e >&2; exit 3"]
    told = []
    for code, out, err in (rig.run(*words), rig.alone(*words)):
        assert (code, err) == (3, b"")
        told.append(json.loads(out))
        assert told[-1].pop("seconds") >= 0
    assert told[0] == told[1]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(rig: Rig, closed: str) -> None:
    command = f"{sys.executable} -m vmconnect exec {NAME} -- sh -c 'echo out; exit 3' {closed}"
    results = [
        subprocess.run(
            ["sh", "-c", command],
            env={**rig.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=WAIT,
            check=False,
        )
        for environment in ({}, {"VMCONNECT_BROKER": "0"})
    ]
    assert len({(each.returncode, each.stdout) for each in results}) == 1


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_that_leaves(rig: Rig, kind: str) -> None:
    def leave(run: Rig) -> tuple[int, bytes]:
        ours, theirs = socket.socketpair() if kind == "socket" else os.pipe()
        with contextlib.ExitStack() as stack:
            for each in (ours, theirs):
                stack.callback(os.close, each if isinstance(each, int) else each.fileno())
                if not isinstance(each, int):
                    stack.callback(each.detach)
            process = run.start("exec", NAME, "--", "yes", stdout=theirs, stdin=None)
            read = os.read(ours if isinstance(ours, int) else ours.fileno(), 1)
            assert read == b"y"
        _out, err = process.communicate(timeout=WAIT)
        return process.returncode, err

    assert leave(rig) == leave(rig.with_(VMCONNECT_BROKER="0", X="1")) == (141, b"")


def test_a_file_is_written_where_it_stands_by_both_streams(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before\n")
    with path.open("ab") as file:
        for _ in range(2):
            rig.run("exec", NAME, "--", "sh", "-c", "echo a; echo b >&2", stdout=file, stderr=file)
    assert sorted(path.read_bytes().split()) == [b"a", b"a", b"b", b"b", b"before"]


def test_what_a_command_does_not_read_is_left_to_the_next(rig: Rig) -> None:
    reader, writer = os.pipe()
    try:
        before = rig.done
        process = rig.start("exec", NAME, "true", stdin=reader)
        assert process.communicate(timeout=WAIT) == (b"", b"")
        os.write(writer, b"later")
        assert os.read(reader, 100) == b"later"
        assert rig.done == before + 1
    finally:
        os.close(reader)
        os.close(writer)


# Signals, and clients that die.


def started(rig: Rig, script: str, **options: object) -> subprocess.Popen[bytes]:
    """Start a shell script in the guest, and return when it has said a line."""
    process = rig.start("exec", NAME, "--", "sh", "-c", f"echo up; {script}", **options)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_ctrl_c(rig: Rig) -> None:
    results = []
    for each in (rig, rig.with_(VMCONNECT_BROKER="0")):
        process = started(each, "sleep 60")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT)
        results.append((process.returncode, out, err))
    assert results[0] == results[1] == (130, b"", b"vmconnect: interrupted\n")


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_ctrl_c_at_any_moment(rig: Rig, delay: float) -> None:
    entry = "import os, sys; from vmconnect.__main__ import main; os.write(1, b'.'); "
    process = subprocess.Popen(
        [sys.executable, "-c", f"{entry} sys.exit(main())", "exec", NAME, "sleep", "60"],
        env=rig.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"."
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, err) == (130, b"vmconnect: interrupted\n")


def test_a_client_that_dies_takes_its_command_alone_along(rig: Rig, guest: Guest) -> None:
    other = started(rig, "cat")
    process = started(rig, "trap '' HUP; echo $$ >/tmp/hung-up; while :; do sleep 0.1; done")
    deadline = Deadline(WAIT)
    while not (pid := guest.run(["cat", "/tmp/hung-up"]).text.strip()):
        deadline.check("waiting for the guest's command")
    process.kill()
    assert process.wait(WAIT) == -signal.SIGKILL
    process.communicate()
    while guest.run(["test", "-e", f"/proc/{pid}"]).ok:
        deadline.check("waiting for the guest's command to be ended")
    guest.run(["rm", "/tmp/hung-up"])
    assert other.communicate(b"still here", WAIT) == (b"still here", b"")
    assert other.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_is_hung_up_on_is_waited_for_by_nobody(rig: Rig, number: signal.Signals) -> None:
    process = rig.start("exec", "-n", NAME, "--", "sh", "-c", "echo up; sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    process.communicate(timeout=WAIT)
    deadline = Deadline(WAIT)
    while any(session["running"] for session in rig.sessions):
        deadline.check("waiting for the command to be hung up on")


def test_a_client_that_does_not_read_holds_up_nobody(rig: Rig) -> None:
    slow = started(rig, "head -c 9000000 /dev/zero")
    pid = rig.pid
    assert rig.run("exec", NAME, "echo", "quick") == (0, b"quick\n", b"")
    out, err = slow.communicate(timeout=WAIT)
    assert (slow.returncode, len(out), err) == (0, 9_000_000, b"")
    stuck = started(rig, "yes")
    assert rig.run("exec", NAME, "echo", "quick") == (0, b"quick\n", b"")
    stuck.kill()
    # Its pipe still has no room, and somebody who might read it.
    assert rig.run("exec", NAME, "echo", "quick") == (0, b"quick\n", b"")
    deadline = Deadline(WAIT)
    while any(session["running"] for session in rig.sessions):
        deadline.check("waiting for the command of the client that was killed to end")
    stuck.communicate()
    assert rig.pid == pid


def test_twenty_clients_at_once(rig: Rig) -> None:
    before = rig.done

    def one(number: int) -> tuple[int, bytes, bytes]:
        return rig.run("exec", NAME, "--", "sh", "-c", f"cat; exit {number}", stdin=b"%d" % number)

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(one, range(20)))
    assert results == [(number, b"%d" % number, b"") for number in range(20)]
    assert rig.done == before + 20


def test_a_stopped_client_s_output_stops(rig: Rig) -> None:
    process = started(rig, "while echo x; do sleep 0.05; done", process_group=0)
    assert process.stdout is not None
    process.send_signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    os.set_blocking(process.stdout.fileno(), False)
    deadline = Deadline(WAIT)
    while True:  # What was on its way may still come.
        process.stdout.read()
        time.sleep(1.0)
        if not process.stdout.read():
            break
        deadline.check("waiting for the output to stop")
    process.send_signal(signal.SIGCONT)
    while not process.stdout.read():
        deadline.check("waiting for the output to go on")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130


def test_a_terminal_is_typed_at(rig: Rig) -> None:
    before = rig.done
    master, slave = os.openpty()
    try:
        process = rig.start("exec", NAME, "--", "cat", stdin=slave)
        os.write(master, b"hello\n")
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        os.write(master, b"again\n\x04")
        assert process.communicate(timeout=WAIT) == (b"again\n", b"")
    finally:
        os.close(master)
        os.close(slave)
    assert process.returncode == 0
    assert rig.done == before + 1


# Whose session it is.


def test_another_user_has_another_session(rig: Rig, demo_machine: DemoMachine) -> None:
    key = str(demo_machine.client_key)
    for _ in range(2):
        assert rig.run("exec", NAME, "id", "-un") == (0, b"root\n", b"")
        assert rig.run("exec", "-l", "guest", "-i", key, NAME, "id", "-un") == (0, b"guest\n", b"")
    assert {"root", "guest"} <= {session["user"] for session in rig.sessions}


def test_a_host_key_that_is_not_known_is_refused_and_then_accepted(
    rig: Rig, demo_machine: DemoMachine
) -> None:
    address = f"vsock-mux{demo_machine.vsock_path}"
    login = ["-l", "root", "-i", str(demo_machine.client_key)]
    refused = rig.run("exec", *login, address, "true")
    assert refused == rig.alone("exec", *login, address, "true")
    assert refused[0] == 255
    assert b"is not known yet" in refused[2]
    before = rig.done
    accepted = rig.run("exec", *login, "--accept-new-host-key", address, "true")
    assert accepted == (0, b"", b"")
    assert rig.run("exec", *login, address, "true") == (0, b"", b"")
    assert rig.done == before + 2
    TrustStore().forget(address)


def test_a_changed_host_key_is_refused_though_a_session_is_open(
    rig: Rig, demo_machine: DemoMachine, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    path = demo_machine.description_path
    before = path.read_text()
    note = json.loads(before)
    note["guest"]["host_key"] = key.with_suffix(".pub").read_text()
    path.write_text(json.dumps(note))
    try:
        result = rig.run("exec", NAME, "true")
        assert result == rig.alone("exec", NAME, "true")
    finally:
        path.write_text(before)
    assert result[0] == 255
    assert b"the host key has changed" in result[2]
    assert rig.run("exec", NAME, "true") == (0, b"", b"")


@pytest.fixture
def agent(demo_machine: DemoMachine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An ssh-agent with the machine's key."""
    path = str(tmp_path_factory.mktemp("a") / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        deadline = Deadline(WAIT)
        while not Path(path).exists():
            deadline.check("waiting for ssh-agent")
            time.sleep(0.01)
        subprocess.run(
            ["ssh-add", "-q", str(demo_machine.client_key)],
            env={**os.environ, "SSH_AUTH_SOCK": path},
            check=True,
        )
        yield path
    finally:
        process.terminate()
        process.wait()


def test_the_client_s_agent_is_asked_and_not_another_s(
    rig: Rig, demo_machine: DemoMachine, agent: str
) -> None:
    address = f"vsock-mux{demo_machine.vsock_path}"
    words = ["exec", "--accept-new-host-key", "-l", "root", address, "true"]
    with_agent = rig.with_(SSH_AUTH_SOCK=agent)
    before = rig.done
    assert with_agent.run(*words) == (0, b"", b"")
    assert with_agent.run(*words) == (0, b"", b"")
    assert rig.done == before + 2
    refused = rig.run(*words)
    assert refused == rig.alone(*words)
    assert refused[0] == 255
    assert rig.done == before + 2
    TrustStore().forget(address)


def test_a_machine_that_was_replaced_is_not_taken_for_the_one_before(
    rig: Rig, fresh_machine: type[DemoMachine]
) -> None:
    seen = set()
    for _ in range(2):
        with fresh_machine.start("twin"):
            words = ["exec", "--wait", "60", "twin", "cat", "/proc/sys/kernel/random/boot_id"]
            before = rig.done
            first, second = rig.run(*words), rig.run(*words)
            assert first[0] == 0, first
            assert first == second
            assert rig.done == before + 2
            seen.add(first[1])
        gone = rig.run("exec", "twin", "true")
        assert gone == rig.alone("exec", "twin", "true")
        assert b"no machine is called 'twin'" in gone[2]
    assert len(seen) == 2


def test_a_server_that_takes_fewer_commands_gets_more_connections(
    rig: Rig, fresh_machine: type[DemoMachine]
) -> None:
    with fresh_machine.start("narrow"):
        words = ["exec", "--wait", "60", "narrow", "--", "sh", "-c"]
        change = "sed -i 's/^MaxSessions.*/MaxSessions 2/' /etc/ssh/sshd_config"
        assert rig.run(*words, change) == (0, b"", b"")
        assert rig.run("sessions", "close", "narrow")[0] == 0
        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(lambda n: rig.run(*words, f"sleep 4; echo {n}"), range(6)))
        assert results == [(0, b"%d\n" % number, b"") for number in range(6)]
        assert len([each for each in rig.sessions if each["machine"] == "narrow"]) > 1


def test_a_guest_that_reboots_is_reached_again(rig: Rig, fresh_machine: type[DemoMachine]) -> None:
    with fresh_machine.start("riser"):
        words = ["exec", "--wait", "60", "riser"]
        first = rig.run(*words, "cat", "/proc/sys/kernel/random/boot_id")
        lost = rig.run(*words, "--", "sh", "-c", "reboot; sleep 60")
        assert lost[0] == 255
        assert b"the connection broke while the command ran" in lost[2]
        again = rig.run(*words, "cat", "/proc/sys/kernel/random/boot_id")
        assert (first[0], again[0]) == (0, 0), again
        assert first[1] != again[1]


def test_another_environment_is_not_the_broker_s(rig: Rig, tmp_path: Path) -> None:
    before = rig.done
    other = rig.with_(XDG_STATE_HOME=str(tmp_path))
    assert other.run("exec", NAME, "true") == (0, b"", b"")
    assert rig.done == before


# vmconnect sessions.


def test_sessions_are_listed_and_closed(rig: Rig) -> None:
    rig.warm(NAME, "true")
    code, out, err = rig.run("sessions")
    head, *rows = out.decode().splitlines()
    assert (code, err) == (0, b"")
    assert head.split() == [
        *("MACHINE", "USER", "CHANNELS", "STATE", "AGE", "IDLE", "RUNNING", "DONE")
    ]
    assert any(row.split()[:4] == [NAME, "root", "guest", "ready"] for row in rows)
    assert rig.run("sessions", "close", "nothere") == (
        1,
        b"",
        b"vmconnect: no session with 'nothere' is open (vmconnect sessions lists them)\n",
    )
    assert rig.run("sessions", "close", NAME) == (0, b"", b"")
    deadline = Deadline(WAIT)
    while any(session["machine"] == NAME for session in rig.sessions):
        deadline.check("waiting for the sessions to be closed")
    assert rig.run("exec", NAME, "echo", "on") == (0, b"on\n", b"")
    assert rig.run("sessions", "close", "--all") == (0, b"", b"")
    assert rig.run("sessions", "close")[0] == 2


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
    assert elsewhere.wait_started() != pid
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
