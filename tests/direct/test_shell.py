"""Shells in a guest, from Python: a real sshd of this machine's, over a UNIX socket."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.direct.sshd import SshdGuest, sshd_guest
from tests.direct.test_asciicast import events, text
from vmconnect.direct import Guest
from vmconnect.direct.asciicast import AsciicastRecorder
from vmconnect.direct.shell import KEPT_BYTES, Shell
from vmconnect.direct.terminal import Terminal
from vmconnect.errors import (
    ClosedError,
    ConnectionLostError,
    DeadlineError,
    GuestError,
    StateError,
    VmconnectError,
)
from vmconnect.operation import Operation

WAIT = 60.0
DUMB = Terminal("dumb")
# One that does not prompt: what it writes is what its commands do.
SH = ["env", "PS1=", "sh"]


@pytest.fixture(scope="module")
def box() -> Iterator[SshdGuest]:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, sshd_guest(Path(name)) as box:
        yield box


@pytest.fixture
def guest(box: SshdGuest) -> Iterator[Guest]:
    with box.open() as guest:
        yield guest


@pytest.fixture
def shell(guest: Guest) -> Iterator[Shell]:
    with guest.shell(SH, terminal=DUMB) as shell:
        yield shell


def say(shell: Shell, line: str) -> str:
    """Type a line, and return what came of it."""
    shell.send(f"{line}; echo =$?=\r")
    shell.wait_for("=$?=\r\n", WAIT)
    answer = shell.wait_for(re.compile(rb"=\d+="), WAIT)
    return answer.rpartition("=")[0].rpartition("=")[0]


def test_it_is_a_terminal(guest: Guest) -> None:
    with guest.shell(SH, terminal=Terminal("vt220", 100, 30)) as shell:
        assert say(shell, "tty").startswith("/dev/pts/")
        assert say(shell, "stty size; echo $TERM") == "30 100\r\nvt220\r\n"
        assert " iutf8" in say(shell, "stty -a | tr '\\n' ' '")
        assert say(shell, "test -t 0 && test -t 1 && test -t 2 && echo yes") == "yes\r\n"


def test_it_is_the_user_s_own_shell_that_starts_unless_told_otherwise(guest: Guest) -> None:
    with guest.shell(terminal=DUMB) as shell:
        shell.send("echo $((6 * 7)) $0\r")
        assert "42 -" in shell.wait_for(re.compile(rb"42 -\w+"), WAIT)


def test_variables_that_the_guest_accepts(guest: Guest) -> None:
    variables = {"LC_TIME": "it's", "COLORTERM": "truecolor", "SECRET": "x"}
    argv = ["sh", "-c", 'echo "[$LC_TIME $COLORTERM $SECRET]"']
    with guest.shell(argv, environment=variables) as shell:
        assert shell.wait_for("]", WAIT) == "[it's truecolor ]"


def test_words_are_arguments(guest: Guest) -> None:
    with guest.shell(["printf", "[%s]", "a b", "$HOME", "*", "é\udcff"]) as shell:
        assert shell.read(WAIT)[:14] == b"[a b][$HOME][*"
        assert shell.wait(WAIT).ok


def test_resizing_is_told(shell: Shell) -> None:
    say(shell, "trap 'stty size' WINCH")
    shell.resize(132, 43)
    assert say(shell, "stty size").count("43 132\r\n") in {1, 2}
    shell.resize(20, 5)
    assert "5 20" in say(shell, "stty size")


def test_how_it_ends(guest: Guest) -> None:
    with guest.shell(SH, terminal=DUMB) as shell:
        assert (shell.alive, shell.result) == (True, None)
        shell.send("exit 42\r")
        result = shell.wait(WAIT)
        assert (result.exit_code, result.signal, result.argv) == (42, None, tuple(SH))
        assert (shell.alive, shell.result) == (False, result)
        # What it wrote can still be read, and then there is no more.
        assert b"exit 42" in shell.read(WAIT)
        assert shell.read(WAIT) == b""
        with pytest.raises(StateError, match="the shell has ended"):
            shell.send("x")
        shell.resize(1, 1)
    with guest.shell(["sh", "-c", "kill -KILL $$"]) as shell:
        assert (shell.wait(WAIT).exit_code, shell.wait(WAIT).signal) == (None, "KILL")
    with guest.shell(["/no/such"]) as shell:
        assert shell.wait(WAIT).exit_code == 127


def test_control_keys(guest: Guest) -> None:
    loop = "trap 'echo caught; exit 5' INT; echo up; while :; do sleep 0.05; done"
    with guest.shell(["sh", "-c", loop]) as shell:
        shell.wait_for("up", WAIT)
        shell.send("\x03")
        shell.wait_for("caught", WAIT)
        assert shell.wait(WAIT).exit_code == 5
    with guest.shell(["cat"]) as shell:
        shell.send("twice\r")
        shell.wait_for("twice\r\ntwice\r\n", WAIT)
        shell.send("\x04")
        assert shell.wait(WAIT).ok


def test_job_control(shell: Shell) -> None:
    shell.send("sh -c 'echo $((4 + 1)) up; exec sleep 1000'\r")
    shell.wait_for("5 up", WAIT)
    shell.send("\x1a")
    shell.wait_for("Stopped", WAIT)
    assert "Stopped" in say(shell, "jobs")
    say(shell, "kill -CONT %1; kill %1")


def test_waiting_for_what_it_writes(shell: Shell) -> None:
    shell.send("printf 'one two '; sleep 0.3; printf 'three four'\r")
    shell.wait_for("four'\r\n", WAIT)
    assert shell.wait_for(b"two", WAIT) == "one two"
    assert shell.wait_for(re.compile(rb"t[a-z]+e"), WAIT) == " three"
    assert shell.wait_for("four", WAIT) == " four"
    with pytest.raises(DeadlineError, match="to write 'five'"):
        shell.wait_for("five", 0.05)
    shell.send("exit\r")
    with pytest.raises(GuestError, match="ended before it wrote 'five'"):
        shell.wait_for("five", WAIT)


def test_time_is_bounded(guest: Guest) -> None:
    with guest.shell(["sleep", "1000"]) as shell:
        for wait in (shell.read, shell.wait):
            with pytest.raises(DeadlineError):
                wait(0.05)


def test_what_nobody_reads_is_bounded(guest: Guest) -> None:
    with guest.shell(["yes"]) as shell:
        until = time.monotonic() + WAIT
        while len(shell._kept) < KEPT_BYTES:
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.3)
        held = len(shell._kept) + len(shell._channel.in_buffer)
        assert held < KEPT_BYTES + 3 * (1 << 18)
        # One who looks for something goes on, and remembers no more.
        with pytest.raises(DeadlineError):
            shell.wait_for("no", 0.5)
        assert len(shell._kept) <= KEPT_BYTES + (1 << 18)
        with pytest.raises(DeadlineError):
            shell.wait(0.3)
        shell.send("\x03")
        assert shell.wait(WAIT).signal == "INT"


def test_a_slow_reader_loses_nothing(guest: Guest) -> None:
    count = 500_000
    with guest.shell(["seq", str(count)]) as shell:
        received = bytearray()
        while data := shell.read(WAIT):
            received += data
            time.sleep(0.01)
    assert received.decode() == "".join(f"{number}\r\n" for number in range(1, count + 1))


def test_a_sink_takes_it_as_it_comes(guest: Guest) -> None:
    taken: list[bytes] = []
    with guest.shell(["sh", "-c", "echo one; read x; echo $x"], output=taken.append) as shell:
        while b"one\r\n" not in b"".join(taken):
            time.sleep(0.01)
        shell.send("two\r")
        assert shell.wait(WAIT).ok
        assert shell.read(WAIT) == b""
    assert b"".join(taken) == b"one\r\ntwo\r\ntwo\r\n"


def test_a_sink_that_fails_ends_it(guest: Guest) -> None:
    def sink(_data: bytes) -> None:
        raise BrokenPipeError

    with guest.shell(["yes"], output=sink) as shell, pytest.raises(BrokenPipeError):
        shell.wait(WAIT)


def test_closing_hangs_up_on_it(guest: Guest, tmp_path: Path) -> None:
    trap = f"trap 'echo gone >{tmp_path}/trace; exit' HUP; echo ready; while :; do sleep 0.05; done"
    with guest.shell(["sh", "-c", trap]) as shell:
        shell.wait_for("ready\r\n", WAIT)
    for call in (shell.wait, shell.read):
        with pytest.raises(ClosedError, match="hung up"):
            call(WAIT)
    with pytest.raises(VmconnectError):
        shell.send("x")
    shell.close()
    until = time.monotonic() + WAIT
    while not (tmp_path / "trace").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert guest.run(["echo", "well"]).text == "well\n"


def test_closing_wakes_who_waits(guest: Guest) -> None:
    with guest.shell(["sleep", "1000"]) as shell:
        errors: list[type[BaseException]] = []

        def wait() -> None:
            try:
                shell.read()
            except VmconnectError as error:
                errors.append(type(error))

        thread = threading.Thread(target=wait)
        thread.start()
        shell.close()
        thread.join(WAIT)
    assert errors == [ClosedError]


def test_a_connection_that_breaks(box: SshdGuest) -> None:
    with box.open() as guest:
        shell = guest.shell(["sh", "-c", "echo up; sleep 1000"])
        shell.wait_for("up", WAIT)
        box.cut()
        for call in (shell.wait, lambda: shell.send("x"), lambda: shell.wait_for("x", WAIT)):
            with pytest.raises(ConnectionLostError, match="box: the connection broke while the sh"):
                call()
        # The next one connects again.
        with guest.shell(["echo", "back"]) as again:
            again.wait_for("back", WAIT)


def test_a_guest_that_gives_no_terminal(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as name,
        sshd_guest(Path(name), "PermitTTY no") as box,
        box.open() as guest,
    ):
        told: list[Operation] = []
        guest.operations.subscribe(told.append)
        path = tmp_path / "a.cast"
        with (
            AsciicastRecorder(path, DUMB) as recorder,
            pytest.raises(GuestError, match=r"it gives us no terminal \(.*sshd_config"),
        ):
            guest.shell(recorder=recorder)
        assert not path.exists()
        assert isinstance(told[0].error, GuestError)


def test_it_is_noted_when_it_is_over(guest: Guest) -> None:
    told: list[Operation] = []
    guest.operations.subscribe(told.append)
    with guest.shell(["sh", "-c", "read x; exit 3"]) as shell:
        assert told == []
        shell.send("hello\r")
        shell.wait(WAIT)
    (operation,) = told
    assert (operation.name, operation.error) == ("shell", None)
    assert operation.details["argv"] == ("sh", "-c", "read x; exit 3")
    assert (operation.details["exit_code"], operation.details["signal"]) == (3, None)
    assert (operation.sent, operation.received) == (6, 7)


def test_a_recording(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "a.cast"
    recorder = AsciicastRecorder(path, DUMB)
    with guest.shell(SH, terminal=DUMB, recorder=recorder) as shell:
        say(shell, "echo €")
        shell.resize(100, 30)
        # What has come is there.
        assert "€\r\n" in text(events(path)[1])
        say(shell, "stty size")
        shell.send("exit\r")
        shell.wait(WAIT)
    _header, found = events(path)
    place = [each[1:] for each in found].index(["r", "100x30"])
    assert "€" in text(found[:place])
    assert "30 100" not in text(found[:place])
    assert "30 100" in text(found[place:])


@pytest.mark.guest
def test_in_the_demo_guest(demo_machine: object) -> None:
    import vmconnect
    from vmconnect.demo import DemoMachine

    assert isinstance(demo_machine, DemoMachine)
    with vmconnect.connect(demo_machine.name) as session:
        guest = session.guest(timeout=WAIT, wait=True)
        with guest.shell(terminal=Terminal("vt100", 70, 20)) as shell:
            shell.send("stty size; echo $TERM $((6 * 7))\r")
            assert "20 70\r\nvt100 42" in shell.wait_for("vt100 42", WAIT)
            shell.resize(90, 33)
            shell.send("stty size\r")
            shell.wait_for("33 90", WAIT)
            shell.send("exit 9\r")
            assert shell.wait(WAIT).exit_code == 9
