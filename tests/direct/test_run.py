"""Commands in a real guest: who runs them, where, with what; how they are stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import vmconnect
from tests.broker.rig import Rig
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest
from vmconnect.errors import ConnectionLostError, DeadlineError, GuestError

pytestmark = pytest.mark.guest

WAIT = 60.0


@pytest.fixture(scope="module")
def guest(demo_machine: DemoMachine) -> Iterator[Guest]:
    with vmconnect.connect(demo_machine.name) as session:
        yield session.guest(timeout=WAIT, wait=True)


@pytest.fixture(scope="module")
def rig(demo_machine: DemoMachine) -> Iterator[Rig]:
    """A broker with a session open with the shared machine."""
    rig = Rig(os.environ)
    try:
        rig.warm(demo_machine.name, "true")
        yield rig
    finally:
        rig.stop()


@pytest.fixture(params=["broker", "alone"])
def either(request: pytest.FixtureRequest, rig: Rig) -> Rig:
    """The command line with and without the broker."""
    return rig if request.param == "broker" else rig.with_(VMCONNECT_BROKER="0")


def living(guest: Guest, word: str) -> list[str]:
    """Return the command lines of the guest's processes that have a word in them."""
    text = guest.run("for each in /proc/[0-9]*; do tr '\\0' ' ' <$each/cmdline; echo; done").text
    return [line for line in text.splitlines() if word in line and "for each" not in line]


def wait_gone(guest: Guest, word: str) -> None:
    deadline = Deadline(WAIT)
    while left := living(guest, word):
        deadline.check(f"waiting for {left} to end")


# What it runs with.


def test_a_text_is_run_by_the_shell(guest: Guest) -> None:
    assert guest.run("echo a b | tr a x; exit 3").stdout == b"x b\n"


def test_the_environment_and_the_directory(guest: Guest) -> None:
    value = "it's\n two \udcff lines $HOME"
    result = guest.run(
        ["sh", "-c", 'pwd; printf %s "$A"; cat'], env={"A": value, "B": ""}, cwd="/srv", stdin=b"in"
    )
    assert result.stdout == b"/srv\n" + value.encode("utf-8", "surrogateescape") + b"in"
    assert (result.exit_code, result.stderr) == (0, b"")


def test_no_value_shows_in_the_guest(guest: Guest) -> None:
    with guest.start("read x; echo up; sleep 60", env={"A": "sesame"}) as process:
        process.write(b"go\n")
        assert process.stdout.readline() == b"up\n"
        assert living(guest, "sesame") == []


@pytest.mark.parametrize("name", ["guest", "root"])
def test_another_user(guest: Guest, name: str) -> None:
    result = guest.run("id -un; echo $HOME $A; pwd; cat", user=name, env={"A": "x"}, stdin=b"in")
    home = "/root" if name == "root" else "/home/guest"
    assert result.text == f"{name}\n{home} x\n{home}\nin"
    assert (result.exit_code, result.stderr) == (0, b"")


def test_a_user_that_is_not_there(guest: Guest) -> None:
    with pytest.raises(GuestError, match="cannot run as ann: there is no such user"):
        guest.run(["id"], user="ann")


def test_who_may_not_become_another(demo_machine: DemoMachine) -> None:
    with vmconnect.connect(demo_machine.name) as session:
        own = session.guest(user="guest")
        assert own.run(["id", "-un"], user="guest").text == "guest\n"
        with pytest.raises(GuestError, match="root: the guest has neither sudo nor doas") as caught:
            own.run(["id"], user="root")
    assert "log in as that user" in str(caught.value)


def test_a_directory_that_is_not_there_or_not_theirs(guest: Guest) -> None:
    with pytest.raises(GuestError, match=r"cannot start: .*/nothere"):
        guest.run(["touch", "/tmp/never"], cwd="/nothere")
    with pytest.raises(GuestError, match=r"cannot start: .*/root.*ermission"):
        guest.run(["touch", "/tmp/never"], cwd="/root", user="guest")
    assert not guest.run(["test", "-e", "/tmp/never"]).ok


@pytest.mark.parametrize("options", [{}, {"cwd": "/"}], ids=["plain", "cwd"])
def test_what_cannot_run_is_told_as_a_shell_does(guest: Guest, options: dict[str, str]) -> None:
    assert guest.run(["/no/such/command"], cwd=options.get("cwd")).exit_code == 127
    assert guest.run(["/etc/passwd"], cwd=options.get("cwd")).exit_code == 126


# How it is stopped.

# The demo's sh ignores SIGQUIT, and tells of what its children die of.
CATCHER = """
import os, signal, sys, time
def caught(number, frame):
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())
    os._exit(7)
signal.signal(getattr(signal, sys.argv[1]), caught)
os.write(1, b"up\\n")
while True:
    time.sleep(60)
"""

STUBBORN = """
trap '' HUP INT TERM QUIT
(trap '' HUP TERM; exec sleep 6001) &
setsid sleep 6002 &
VMCONNECT_RUN= setsid sh -c 'sleep 6003; :' &
env -i sleep 6004 &
echo up
while :; do sleep 6005; done
"""


def test_a_time_out_leaves_nothing_behind(guest: Guest) -> None:
    with pytest.raises(DeadlineError, match="timed out") as caught:
        guest.run(STUBBORN.replace("VMCONNECT_RUN= setsid sh", "sh"), timeout=1.0)
    assert caught.value.hint is None
    assert living(guest, "sleep 600") == []
    assert guest.run(["echo", "on"]).text == "on\n"


def test_another_user_s_command_is_ended_too(guest: Guest) -> None:
    with pytest.raises(DeadlineError):
        guest.run("sleep 6010 & sleep 6011", user="guest", timeout=0.5)
    assert living(guest, "sleep 601") == []


def test_what_others_run_is_left_alone(guest: Guest) -> None:
    with guest.start("echo up; sleep 6020") as other:
        assert other.stdout.readline() == b"up\n"
        with pytest.raises(DeadlineError):
            guest.run(["sleep", "6021"], timeout=0.5)
        assert living(guest, "sleep 6021") == []
        assert "sleep 6020" in living(guest, "sleep 6020")[-1]
        assert other.running
    wait_gone(guest, "sleep 6020")


def test_a_process_that_claims_to_be_another_is_not_taken_for_it(guest: Guest) -> None:
    process = guest.start(["sleep", "6030"])
    mark = process._command.mark
    # An environment in which a line looks like what our own programs write.
    forged = f"x\n==> /proc/1/environ <==\nVMCONNECT_RUN={mark}"
    with guest.start("echo up; sleep 6031", env={"FORGED": forged}) as other:
        assert other.stdout.readline() == b"up\n"
        process.kill()
        assert process.wait(WAIT).signal == "KILL"
        assert other.running
    assert guest.run(["true"]).ok


def test_a_sink_that_fails_ends_the_command(guest: Guest) -> None:
    def sink(_data: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        guest.run("echo up; sleep 6040", stdout=sink)
    assert living(guest, "sleep 6040") == []


# While it runs.


def test_a_process_is_spoken_with(guest: Guest) -> None:
    with guest.start(["cat"]) as process:
        assert process.running
        process.write(b"one\ntw")
        assert process.stdout.readline(timeout=WAIT) == b"one\n"
        process.write(b"o\nthree")
        process.end_input()
        assert [*process.stdout] == [b"two\n", b"three"]
        result = process.wait(WAIT)
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"", b"")
    assert process.wait() is result
    assert not process.signal("TERM")


def test_what_was_not_read_is_in_the_result(guest: Guest) -> None:
    process = guest.start("echo a; echo b; echo c >&2; exit 5", cwd="/")
    assert process.stdout.readline(timeout=WAIT) == b"a\n"
    result = process.wait(WAIT)
    assert (result.exit_code, result.stdout, result.stderr) == (5, b"b\n", b"c\n")


def test_a_wait_that_is_over_loses_nothing(guest: Guest) -> None:
    process = guest.start("echo a; read x; echo b; exit 1")
    with pytest.raises(DeadlineError):
        process.wait(0.5)
    assert process.running
    process.write(b"\n")
    assert process.wait(WAIT).stdout == b"a\nb\n"


def test_reading_has_a_deadline(guest: Guest) -> None:
    with guest.start(["sleep", "6050"]) as process, pytest.raises(DeadlineError, match="reading"):
        process.stdout.read(timeout=0.1)
    wait_gone(guest, "sleep 6050")


@pytest.mark.parametrize("name", ["INT", "SIGTERM", "hup", "QUIT", "USR1", "USR2"])
def test_signals_arrive(guest: Guest, name: str) -> None:
    full = f"SIG{name.upper().removeprefix('SIG')}"
    with guest.start(["python3", "-c", CATCHER, full]) as process:
        assert process.stdout.readline(timeout=WAIT) == b"up\n"
        assert process.signal(name)
        result = process.wait(WAIT)
    assert (result.exit_code, result.stdout) == (7, f"got {full}\n".encode())


def test_a_daemon_does_not_get_the_command_s_signals(guest: Guest) -> None:
    text = "setsid sh -c 'trap \"\" HUP; sleep 6060' >/dev/null 2>&1 & echo up; sleep 6061"
    with guest.start(text) as process:
        process.stdout.readline(timeout=WAIT)
        process.signal("TERM")
        assert process.wait(WAIT).signal == "TERM"
        assert [line for line in living(guest, "sleep 6060") if line.startswith("sleep")]
        assert process.control.end()
    assert living(guest, "sleep 6060") == []


def test_no_signal_of_that_name(guest: Guest) -> None:
    with (
        guest.start(["sleep", "6070"]) as process,
        pytest.raises(vmconnect.VmconnectError, match="no signal"),
    ):
        process.signal("WHATEVER; reboot")
    wait_gone(guest, "sleep 6070")


def test_a_server_that_takes_no_more_commands_still_lets_them_be_ended(
    demo_machine: DemoMachine, guest: Guest
) -> None:
    # The demo's server takes 256; what it is asked for the next is refused.
    with vmconnect.connect(demo_machine.name) as session, contextlib.ExitStack() as stack:
        other = session.guest()
        connection = other._connection
        assert connection is not None
        process = other.start(["sleep", "6080"])
        original = connection.open

        def refuse(*_: object) -> None:
            raise GuestError("refused")

        connection.open = refuse  # type: ignore[method-assign, assignment]
        stack.callback(setattr, connection, "open", original)
        process.kill()
        assert process.wait(WAIT).signal == "KILL"


# The command line, with and without the broker.


def started(rig: Rig, name: str, *argv: str) -> subprocess.Popen[bytes]:
    process = rig.start("exec", name, "--", *argv)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_of_ours_reach_the_command(
    either: Rig, demo_machine: DemoMachine, number: signal.Signals
) -> None:
    process = started(either, demo_machine.name, "python3", "-c", CATCHER, number.name)
    process.send_signal(number)
    assert process.communicate(timeout=WAIT) == (f"got {number.name}\n".encode(), b"")
    assert process.returncode == 7


def test_a_signal_that_ends_the_command(either: Rig, demo_machine: DemoMachine) -> None:
    process = started(either, demo_machine.name, "sh", "-c", "echo up; exec sleep 6100")
    process.send_signal(signal.SIGTERM)
    said = b"vmconnect: the command was ended by SIGTERM\n"
    assert process.communicate(timeout=WAIT) == (b"", said)
    assert process.returncode == 128 + signal.SIGTERM


def test_ctrl_c_is_the_command_s_to_answer(either: Rig, demo_machine: DemoMachine) -> None:
    process = started(either, demo_machine.name, "python3", "-c", CATCHER, "SIGINT")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=WAIT) == (b"got SIGINT\n", b"")
    assert process.returncode == 7


def test_a_second_ctrl_c_ends_what_ignores_the_first(
    either: Rig, guest: Guest, demo_machine: DemoMachine
) -> None:
    loop = "while :; do sleep 0.1; : 6110; done 2>/dev/null"
    text = f"trap 'echo no' INT; trap '' HUP TERM; echo up; {loop}"
    process = started(either, demo_machine.name, "sh", "-c", text)
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"no\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=WAIT)[1] == b"vmconnect: interrupted\n"
    assert process.returncode == 130
    wait_gone(guest, "6110")


def test_options_for_the_command(
    either: Rig, demo_machine: DemoMachine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("env") / "file"
    file.write_text("# ours\nB=from file\nC=overruled\n")
    words = ["-e", "A=a b", "-e", "C=c", "-C", "/srv", "-u", "guest", demo_machine.name]
    script = ["sh", "-c", 'echo "$A,$B,$C"; pwd; id -un']
    assert either.run("exec", *words, *script) == (0, b"a b,,c\n/srv\nguest\n", b"")
    words = ["--env-file", str(file), *words]
    assert either.run("exec", *words, *script) == (0, b"a b,from file,c\n/srv\nguest\n", b"")
    ours = either.with_(D="ours")
    script = ["sh", "-c", "echo $D"]
    assert ours.run("exec", "-e", "D", demo_machine.name, *script) == (0, b"ours\n", b"")


def test_options_that_are_wrong(either: Rig, demo_machine: DemoMachine) -> None:
    code, out, err = either.run("exec", "-e", "a b=sesame", demo_machine.name, "true")
    assert (code, out, err) == (255, b"", b"vmconnect: -e: a variable is NAME=VALUE or NAME\n")
    code, out, err = either.run("exec", "-C", "/nothere", demo_machine.name, "true")
    assert (code, out) == (255, b"")
    assert b"cannot start" in err


def test_a_client_that_is_killed_takes_its_command_along(
    rig: Rig, guest: Guest, demo_machine: DemoMachine
) -> None:
    process = started(rig, demo_machine.name, "sh", "-c", "trap '' HUP; echo up; sleep 6120; :")
    process.kill()
    process.communicate()
    wait_gone(guest, "6120")


def test_a_reader_that_leaves_ends_the_command(
    either: Rig, guest: Guest, demo_machine: DemoMachine
) -> None:
    process = started(either, demo_machine.name, "sh", "-c", "echo up; yes 6130")
    assert process.stdout is not None
    with process:
        process.stdout.close()
        assert process.wait(WAIT) == 141
    wait_gone(guest, "6130")


# Much output, slow readers, guests that go.

PEAK = """
import os, resource, sys, threading, time
import vmconnect
count = 0
def slow(data):
    global count
    count += len(data)
    if count < 12 << 20:
        time.sleep(0.02)
with vmconnect.connect(sys.argv[1]) as session:
    guest = session.guest()
    guest.run(["head", "-c", "1000000", "/dev/zero"], stdout=lambda data: None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    guest.run(["head", "-c", sys.argv[2], "/dev/zero"], stdout=slow)
    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_much_output_into_a_slow_reader_takes_bounded_memory(demo_machine: DemoMachine) -> None:
    grown = {}
    for size in (10_000_000, 50_000_000):
        out = subprocess.run(
            [sys.executable, "-c", PEAK, demo_machine.name, str(size)],
            capture_output=True,
            check=True,
            timeout=170,
        ).stdout
        count, grown[size] = map(int, out.split())
        assert count == size
    # In KiB: a window of 4 MiB, and what Python makes of it; five times as much is not more.
    assert grown[50_000_000] < grown[10_000_000] + 16 * 1024
    assert max(grown.values()) < 48 * 1024


def test_a_guest_that_reboots_in_the_midst(fresh_machine: type[DemoMachine]) -> None:
    with (
        fresh_machine.start("midst") as machine,
        vmconnect.connect(machine.name) as session,
    ):
        guest = session.guest(timeout=WAIT, wait=True)
        process = guest.start("echo up; sleep 600")
        assert process.stdout.readline(timeout=WAIT) == b"up\n"
        threading.Timer(0.5, lambda: guest.start(["reboot", "-f"])).start()
        began = time.monotonic()
        with pytest.raises(ConnectionLostError):
            process.wait(WAIT)
        process.close()
        assert time.monotonic() - began < WAIT
