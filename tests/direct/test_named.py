"""Named sessions in a real guest."""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import vmconnect
from tests.broker.rig import Rig
from tests.direct.test_run import living, wait_gone
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest
from vmconnect.direct.control import Control
from vmconnect.direct.named import NamedSession
from vmconnect.errors import DeadlineError, GuestError, StateError, TargetError

pytestmark = pytest.mark.guest

WAIT = 60.0


@pytest.fixture(scope="module")
def guest(demo_machine: DemoMachine) -> Iterator[Guest]:
    with vmconnect.connect(demo_machine.name) as session:
        yield session.guest(timeout=WAIT, wait=True)


@pytest.fixture
def build(guest: Guest) -> Iterator[NamedSession]:
    with guest.named("build") as build:
        yield build


@pytest.fixture
def python(guest: Guest) -> Iterator[NamedSession]:
    with guest.named("data", python=True) as session:
        yield session


# A shell.


def test_state_is_kept(build: NamedSession) -> None:
    assert build.run("cd /srv; X='a b'; export Y=2; f() { echo f$X; }").ok
    result = build.run("pwd; f; sh -c 'echo $Y'; echo err >&2; (exit 7)")
    assert (result.stdout, result.stderr) == (b"/srv\nfa b\n2\n", b"err\n")
    assert result.exit_code == 7
    assert build.run(["cd", "/tmp"]).ok
    assert build.run(["pwd"]).stdout == b"/tmp\n"


def test_bytes_are_bytes_in_both_directions(build: NamedSession) -> None:
    noise = secrets.token_bytes(500_000)
    assert build.run("cat; echo end >&2", stdin=noise).stdout == noise
    assert build.run("cat").stdout == b""
    # What was not read of one call's input is not the next one's.
    assert build.run("head -c 1", stdin=b"abc\nrm -rf nothing\n").stdout == b"a"
    assert build.run("echo on").stdout == b"on\n"


def test_a_long_text(build: NamedSession) -> None:
    text = ":" * 300_000 + "\necho on"
    assert build.run(f"X={text.replace(':', 'x')}\n").stdout == b"on\n"
    assert build.run("echo ${#X}").stdout == b"300000\n"


def test_errors_do_not_end_it(build: NamedSession) -> None:
    build.run("X=kept")
    assert build.run("syntax ( error").exit_code == 2
    assert build.run("echo ${nope?no}").exit_code != 0
    assert build.run("no-such-command").exit_code == 127
    assert build.run("yes | head -n 1").stdout == b"y\n"
    assert build.run("echo $X").stdout == b"kept\n"


def test_environment_and_directory_stay(build: NamedSession) -> None:
    assert build.run("pwd", cwd="/srv", env={"A": "b'\nc"}).stdout == b"/srv\n"
    assert build.run('pwd; printf "%s" "$A"').stdout == b"/srv\nb'\nc"
    refused = build.run("touch /tmp/never", cwd="/nothere")
    assert refused.exit_code == 1
    assert b"/nothere" in refused.stderr


def test_it_outlives_the_connection(demo_machine: DemoMachine, guest: Guest) -> None:
    with vmconnect.connect(demo_machine.name) as session:
        session.guest().named("lasting").run("X=1; cd /srv")
    lasting = guest.named("lasting")
    assert lasting.run("echo $X; pwd").stdout == b"1\n/srv\n"
    lasting.close()
    assert lasting.run("echo $X; pwd").stdout == b"\n/root\n"
    lasting.close()


def test_callers_queue(demo_machine: DemoMachine, build: NamedSession) -> None:
    build.run("N=0")
    with vmconnect.connect(demo_machine.name) as session:
        other = session.guest().named("build")

        def one(number: int) -> bytes:
            caller = (build, other)[number % 2]
            return caller.run("A=$N; sleep 0.05; N=$((A + 1)); echo $N").stdout

        with ThreadPoolExecutor(6) as pool:
            results = [int(each) for each in pool.map(one, range(12))]
    assert sorted(results) == [*range(1, 13)]
    assert build.run("echo $N").stdout == b"12\n"


def test_several_do_not_know_of_each_other(guest: Guest, build: NamedSession) -> None:
    with guest.named("other") as other, guest.named("build", user="guest") as theirs:
        build.run("X=build")
        other.run("X=other")
        assert theirs.run("id -un; echo $X$HOME").stdout == b"guest\n/home/guest\n"
        assert build.run("echo $X").stdout == b"build\n"
        assert {each.name for each in guest.named_sessions()} == {"build", "other"}
        assert [each.state for each in guest.named_sessions("guest")] == ["ready"]
    assert {each.name for each in guest.named_sessions()} == {"build"}


def test_a_time_out_ends_the_call_and_not_the_session(guest: Guest, build: NamedSession) -> None:
    build.run("X=kept; sleep 6300 >/dev/null 2>&1 &")
    script = "(trap '' TERM INT; sleep 6301) & setsid sleep 6301 & sleep 6301; echo on"
    with pytest.raises(DeadlineError):
        build.run(script, timeout=1)
    assert living(guest, "sleep 6301") == []
    assert build.run("echo $X").stdout == b"kept\n"
    # What an earlier call has left to run is no business of a later one's time-out.
    assert [line for line in living(guest, "sleep 6300") if line.startswith("sleep")]
    build.close()
    wait_gone(guest, "sleep 6300")


def test_a_loop_of_the_shell_itself_is_stopped(build: NamedSession) -> None:
    build.run("X=kept")
    with pytest.raises(DeadlineError):
        build.run("while :; do :; done", timeout=1)
    assert build.run("echo $X").stdout == b"kept\n"


def test_a_shell_that_cannot_be_stopped_is_ended_and_says_so(build: NamedSession) -> None:
    with pytest.raises(DeadlineError):
        build.run("trap '' INT; while :; do :; done", timeout=1)
    with pytest.raises(StateError, match="the session build has ended"):
        build.run("echo on")


def interrupt_soon(guest: Guest, word: str) -> list[Control]:
    """Return a list that, once a control is put into it, is interrupted when the guest is busy."""
    found: list[Control] = []

    def run() -> None:
        deadline = Deadline(WAIT)
        while not found or not [line for line in living(guest, word) if line.startswith("sleep")]:
            deadline.check("waiting for the call")
        found[0].signal("INT")

    threading.Thread(target=run, daemon=True).start()
    return found


def test_an_interrupt_ends_all_of_the_call(guest: Guest, build: NamedSession) -> None:
    found = interrupt_soon(guest, "sleep 6310")
    result = build.run("X=1; sleep 6310; echo on", on_start=found.append)
    assert (result.exit_code, result.stdout) == (130, b"")
    assert build.run("echo $X").stdout == b"1\n"


def test_a_call_that_waits_is_taken_back(guest: Guest, build: NamedSession) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(build.run, "sleep 2; echo first")
        deadline = Deadline(WAIT)
        while not [each for each in guest.named_sessions() if each.state == "busy"]:
            deadline.check("waiting for the session to be busy")
        with pytest.raises(DeadlineError):
            build.run("touch /tmp/never", timeout=0.5)
        assert first.result().stdout == b"first\n"
    assert build.run("echo on").stdout == b"on\n"
    assert not guest.run(["test", "-e", "/tmp/never"]).ok


def test_one_that_has_ended_says_so_until_it_is_closed(guest: Guest, build: NamedSession) -> None:
    with pytest.raises(StateError, match="the session build has ended, with exit code 3"):
        build.run("echo bye; exit 3")
    with pytest.raises(StateError, match="exit code 3"):
        build.run("echo on")
    [status] = guest.named_sessions()
    assert (status.name, status.state, status.exit_code) == ("build", "ended", 3)
    build.close()
    assert build.run("echo on").stdout == b"on\n"


def test_one_that_was_killed_with_its_keeper_says_so(guest: Guest, build: NamedSession) -> None:
    build.run("X=1")
    place = "~/.local/state/vmconnect/sessions/build"
    guest.run(f"pid=$(cat {place}/pid); kill -9 $(sed -n 's/^PPid:.//p' /proc/$pid/status) $pid")
    with pytest.raises(StateError, match="the guest has restarted, or it was killed"):
        build.run("echo $X")
    assert [each.state for each in guest.named_sessions()] == ["ended"]


def test_one_whose_making_was_cut_short_is_none(guest: Guest, build: NamedSession) -> None:
    build.run("true")
    place = "~/.local/state/vmconnect/sessions/half"
    guest.run(f"mkdir {place}")
    try:
        assert [each.name for each in guest.named_sessions()] == ["build"]
    finally:
        guest.run(f"rmdir {place}")


def test_who_waits_when_it_ends_is_told(guest: Guest, build: NamedSession) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(build.run, "sleep 1; exit 5")
        deadline = Deadline(WAIT)
        while not [each for each in guest.named_sessions() if each.state == "busy"]:
            deadline.check("waiting for the session to be busy")
        second = pool.submit(build.run, "echo on")
        for each in (first, second):
            with pytest.raises(StateError, match="exit code 5"):
                each.result(WAIT)


def test_an_exit_code_is_not_taken_for_the_end(build: NamedSession) -> None:
    for code in (90, 93, 94, 95, 140):
        assert build.run(f"(exit {code})").exit_code == code


def test_nobody_else_may_speak_to_it(guest: Guest, build: NamedSession) -> None:
    build.run("true")
    place = "/root/.local/state/vmconnect"
    assert guest.run(["stat", "-c", "%a", place, f"{place}/sessions/build"]).text == "700\n700\n"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-x", "x" * 65, "é"])
def test_no_name_of_a_session(guest: Guest, name: str) -> None:
    with pytest.raises(TargetError):
        guest.named(name)


# Python.


def test_python_keeps_its_names(python: NamedSession) -> None:
    assert python.run("import sys, json\nx = 41").ok
    assert python.run("x + 1").stdout == b"42\n"
    result = python.run("print('a'); print('b', file=sys.stderr); sys.exit(4)")
    assert (result.exit_code, result.stdout, result.stderr) == (4, b"a\n", b"b\n")
    failed = python.run("def f():\n    1/0\nf()")
    assert failed.exit_code == 1
    assert failed.stderr.startswith(b'Traceback (most recent call last):\n  File "<session>"')
    assert python.run("1 +").exit_code == 1
    noise = secrets.token_bytes(100_000)
    copy = "b = sys.stdin.buffer.read(); n = sys.stdout.buffer.write(b)"
    assert python.run(copy, stdin=noise).stdout == noise
    assert python.run("x").stdout == b"41\n"
    assert python.run("import os; os.getcwd()", cwd="/srv").stdout == b"'/srv'\n"


def test_python_is_stopped(guest: Guest, python: NamedSession) -> None:
    python.run("import time, subprocess; x = 1")
    for source in ("time.sleep(6320)", "subprocess.run(['sleep', '6320'])", "while True: pass"):
        with pytest.raises(DeadlineError):
            python.run(source, timeout=1)
    assert living(guest, "sleep 6320") == []
    assert python.run("x").stdout == b"1\n"


def test_a_name_is_of_one_kind(guest: Guest, python: NamedSession) -> None:
    python.run("x = 1")
    with pytest.raises(StateError, match="runs Python"):
        guest.named("data").run("true")


# The command line.


def test_the_command_line(demo_machine: DemoMachine) -> None:
    name = demo_machine.name
    rig = Rig(os.environ)
    try:
        rig.warm(name, "true")
        alone = rig.with_(VMCONNECT_BROKER="0")
        words = ["exec", "--session", "web", name, "--"]
        assert rig.run(*words, "cd /srv && X=1") == (0, b"", b"")
        assert alone.run(*words, "pwd; echo $X; echo e >&2; cat; (exit 3)", stdin=b"in") == (
            3,
            b"/srv\n1\nin",
            b"e\n",
        )
        assert rig.run(*words, "printf", "[%s]", "a b", "$X") == (0, b"[a b][$X]", b"")
        python = ["exec", "--session", "py", "--python", name]
        assert rig.run(*python, "x = 5") == (0, b"", b"")
        assert alone.run(*python, "x + 1") == (0, b"6\n", b"")
        code, _out, err = rig.run(*python[:-1], name, "x", "y")
        assert code == 255
        assert b"one text" in err
        process = rig.start(*words, "echo up; sleep 6330; echo on")
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=WAIT) == (b"", b"")
        assert process.returncode == 130
        listed = json.loads(rig.run("sessions", "named", "--json", name)[1])
        assert [(each["name"], each["kind"], each["state"]) for each in listed] == [
            ("py", "python", "ready"),
            ("web", "shell", "ready"),
        ]
        assert rig.run("sessions", "close", name, "web", "py") == (0, b"", b"")
        code, _out, err = rig.run("sessions", "close", name, "web")
        assert code == 1
        assert b"there is no session 'web'" in err
        code, _out, err = rig.run("exec", "--python", name, "x")
        assert (code, err) == (255, b"vmconnect: --python goes with --session\n")
    finally:
        rig.stop()


def test_there_are_no_more_than_so_many(guest: Guest) -> None:
    place = "/root/.local/state/vmconnect/sessions"
    there = len(guest.named_sessions())
    one = f"d={place}/filler$n; mkdir $d; echo shell >$d/kind"
    make = f"for n in $(seq {there + 1} 63); do {one}; done"
    try:
        assert guest.run(f"mkdir -p {place}; {make}").ok
        with guest.named("last") as last:
            assert last.run("true").ok
            with pytest.raises(GuestError, match="there are too many sessions") as caught:
                guest.named("more").run("true")
            assert caught.value.hint == "close some"
            assert last.run("true").ok
        with guest.named("more") as more:
            assert more.run("true").ok
    finally:
        guest.run(f"rm -rf {place}/filler*")
