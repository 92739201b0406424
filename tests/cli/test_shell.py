"""``vmconnect shell`` as a person has it: a real tmux, and a real sshd over a UNIX socket."""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.tmux import PROMPT, Tmux, tmux
from tests.direct.sshd import SshdGuest, sshd_guest
from tests.direct.test_asciicast import events, text
from vmconnect.cli.shell import arrange
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.hypervisor import QmpClient
from vmconnect.streams import Unix

WAIT = 60.0
# A shell in the guest whose prompt is not ours.
SH = "env PS1=there: sh"
UNTOUCHED = "1 0 0 0 0 0 0"


@pytest.fixture(scope="module")
def box() -> Iterator[SshdGuest]:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, sshd_guest(Path(name)) as box:
        yield box


@pytest.fixture
def terminal() -> Iterator[Tmux]:
    with tmux() as terminal:
        yield terminal


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "vmconnect", *map(str, words)]


def start(terminal: Tmux, box: SshdGuest, program: str = SH, *options: str) -> None:
    """Start a shell, and wait until it prompts."""
    line = shlex.join(command("shell", *options, *box.login))
    terminal.type(f"clear; {line} -- {program}")
    if program == SH:
        terminal.wait_line("there:")


def modes(terminal: Tmux) -> str:
    """The terminal's own modes, as stty reads them."""
    terminal.type("clear; stty -a | tail -n +2 | tr '\\n' ' ' | md5sum")
    return terminal.wait_for("  -")[0]


def run(*words: str | Path, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        command(*words), input=stdin, capture_output=True, timeout=WAIT, check=False
    )
    return done.returncode, done.stdout, done.stderr


# Programs that take the whole screen.


def test_vim(terminal: Tmux, box: SshdGuest, tmp_path: Path) -> None:
    before = modes(terminal)
    path = tmp_path / "poem"
    path.write_text("".join(f"line {number}\n" for number in range(1, 100)))
    start(terminal, box, f"vim -n -u NONE -N +'set mouse=a ruler' {path}")
    terminal.wait_for("\nline 29\n")
    lines = terminal.wait_for("Top")
    assert (len(lines), lines[0]) == (30, "line 1")
    terminal.resize(70, 12)
    terminal.wait_rows(12)
    assert terminal.wait_for("Top")[10] == "line 11"
    terminal.keys("G")
    terminal.wait_for("line 99")
    terminal.keys("o")
    terminal.run("send-keys", "-l", "Zwölf Boxkämpfer €")
    terminal.keys("Up", "Down", "Escape")
    terminal.wait_for("Boxkämpfer €")
    terminal.type(":x")
    terminal.wait_line(PROMPT)
    assert path.read_text().endswith("line 99\nZwölf Boxkämpfer €\n")
    assert terminal.flags() == UNTOUCHED
    assert modes(terminal) == before


def test_tmux(terminal: Tmux, box: SshdGuest) -> None:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, contextlib.ExitStack() as stack:
        stop = ["tmux", "-S", f"{name}/t", "kill-server"]
        stack.callback(subprocess.run, stop, capture_output=True, check=False)
        start(terminal, box, f"env PS1=inner: tmux -S {name}/t -f /dev/null new -s inside sh")
        lines = terminal.wait_for("[inside]")
        assert lines[-1].startswith("[inside] 0:")
        terminal.resize(80, 20)
        assert terminal.wait_rows(20)[-1].startswith("[inside]")
        terminal.type("stty size")
        terminal.wait_for("19 80")  # tmux has a line of its own.
        terminal.keys("C-b", "%")
        terminal.wait_for("│")
        terminal.keys("C-b", "d")
        terminal.wait_for("[detached (from session inside)]")


def test_htop(terminal: Tmux, box: SshdGuest) -> None:
    start(terminal, box, "env HTOPRC=/dev/null htop")
    assert terminal.wait_for("F10Quit")[-1].startswith("F1Help")
    assert "\x1b[30m\x1b[46mHelp" in terminal.run("capture-pane", "-p", "-e")
    terminal.resize(80, 16)
    assert terminal.wait_rows(16)[-1].startswith("F1Help")
    terminal.keys("F10")
    terminal.wait_line(PROMPT)
    assert terminal.flags() == UNTOUCHED


def test_its_size_type_and_colours_are_ours(terminal: Tmux, box: SshdGuest) -> None:
    start(terminal, box)
    terminal.type("stty size; echo $TERM; printf '\\033[31mred\\033[m\\n'")
    lines = terminal.wait_for("\nred")
    assert "30 100" in lines
    assert terminal.run("display-message", "-p", "#{default-terminal}").strip() in {*lines, ""}
    assert "\x1b[31mred" in terminal.run("capture-pane", "-p", "-e")


# Leaving it.


def test_exit_codes_and_the_terminal_after_it(terminal: Tmux, box: SshdGuest) -> None:
    before = modes(terminal)
    start(terminal, box)
    terminal.type("exit 42")
    terminal.wait_line(PROMPT)
    terminal.type("echo code $?")
    terminal.wait_for("code 42")
    assert modes(terminal) == before


def test_keys_are_the_guest_s(terminal: Tmux, box: SshdGuest) -> None:
    start(terminal, box)
    terminal.type("sh -c 'trap \"\" TSTP; echo $((40 + 2)) up; exec sleep 1000'")
    terminal.wait_for("42 up")
    terminal.keys("C-z", "C-s", "C-q", "C-c")
    terminal.wait_line("there:")
    terminal.type("echo $?")
    terminal.wait_for("130")


def test_hanging_up(terminal: Tmux, box: SshdGuest) -> None:
    before = modes(terminal)
    start(terminal, box)
    terminal.type("sleep 1000")
    terminal.keys("~", ".")
    lines = terminal.wait_for("hung up")
    told = "".join(lines).partition("vmconnect: ")[2]
    assert told.startswith(f"{box.target}: the shell was hung up on")
    terminal.type("echo code $?")
    terminal.wait_for("code 255")
    assert modes(terminal) == before


def test_hanging_up_on_a_guest_that_does_not_answer(terminal: Tmux, box: SshdGuest) -> None:
    start(terminal, box)
    box.freeze()
    try:
        terminal.type("is anybody there?")
        terminal.keys("~", ".")
        terminal.wait_for("hung up")
        terminal.type("echo code $?")
        terminal.wait_for("code 255")
    finally:
        box.cut()


def test_help_and_the_character_itself(terminal: Tmux, box: SshdGuest) -> None:
    start(terminal, box)
    terminal.keys("~", "?")
    lines = terminal.wait_for("~~   send the character itself")
    place = lines.index("At the beginning of a line:")
    assert [line.split()[0] for line in lines[place + 1 : place + 5]] == ["~.", "~^Z", "~?", "~~"]
    terminal.type("")
    terminal.type("~~ 2>&1 | tail -c 5000; echo in ~.")
    terminal.wait_for("in ~.")


def test_another_escape_character_and_none(terminal: Tmux, box: SshdGuest) -> None:
    start(terminal, box, SH, "-e", "%")
    terminal.type("~.")
    terminal.wait_for("not found")
    terminal.keys("%", ".")
    terminal.wait_for("hung up")
    start(terminal, box, SH, "-e", "none")
    terminal.type("~.")
    terminal.wait_for("not found")
    terminal.type("exit")
    terminal.wait_line(PROMPT)


def test_suspending_in_the_midst_of_vim(terminal: Tmux, box: SshdGuest, tmp_path: Path) -> None:
    before = modes(terminal)
    path = tmp_path / "poem"
    path.write_text("roses are red\n")
    start(terminal, box, f"vim -n -u NONE -N +'set mouse=a' {path}")
    terminal.wait_for("roses are red")
    changed = terminal.flags()
    assert changed != UNTOUCHED
    terminal.keys(":")
    terminal.keys("Enter", "~", "C-z")
    terminal.wait_for("Stopped")
    assert terminal.flags() == UNTOUCHED
    assert modes(terminal) == before
    terminal.resize(60, 10)
    terminal.type("fg")
    terminal.wait_for("roses are red")
    terminal.wait_for("\n".join("~" * 8))  # Of ten lines; the last is vim's own.
    assert terminal.flags() == changed
    terminal.type(":q")
    terminal.wait_line(PROMPT)


def test_it_can_be_stopped_from_outside(terminal: Tmux, box: SshdGuest) -> None:
    start(terminal, box)
    (pid,) = terminal_processes(terminal)
    for number in (signal.SIGTSTP, signal.SIGSTOP):
        os.kill(pid, number)
        terminal.wait_for("Stopped")
        terminal.type("clear; fg")
        terminal.wait_for("vmconnect shell")
        terminal.type("echo $((6 * 7)) again")
        terminal.wait_for("42 again")
        terminal.keys("C-c")  # It is the guest's again.
        terminal.wait_line("there:")


def terminal_processes(terminal: Tmux) -> list[int]:
    """Return the processes of ours that the terminal's shell has started."""
    bash = int(terminal.run("display-message", "-p", "#{pane_pid}"))
    words = Path(f"/proc/{bash}/task/{bash}/children").read_text().split()
    return [
        int(word) for word in words if b"vmconnect" in Path(f"/proc/{word}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_signals_end_it_and_leave_the_terminal_well(
    terminal: Tmux, box: SshdGuest, number: signal.Signals, code: int
) -> None:
    before = modes(terminal)
    start(terminal, box, "vim -n -u NONE -N +'set mouse=a'")
    terminal.wait_for("VIM - Vi IMproved")
    (pid,) = terminal_processes(terminal)
    os.kill(pid, number)
    terminal.wait_line(PROMPT)
    terminal.type("echo code $?")
    terminal.wait_for(f"code {code}")
    assert terminal.flags() == UNTOUCHED
    assert modes(terminal) == before
    box.wait_servers(0)


def test_a_connection_that_breaks_in_the_midst_of_vim(terminal: Tmux, box: SshdGuest) -> None:
    before = modes(terminal)
    start(terminal, box, "vim -n -u NONE -N +'set mouse=a'")
    terminal.wait_for("VIM - Vi IMproved")
    box.cut()
    lines = terminal.wait_for("restart?)")
    told = "".join(lines).partition("vmconnect: ")[2]
    assert told.startswith(f"{box.target}: the connection broke while the shell ran (did the ")
    assert "VIM" not in told
    terminal.type("echo code $?")
    terminal.wait_for("code 255")
    assert terminal.flags() == UNTOUCHED
    assert modes(terminal) == before


def test_a_terminal_that_takes_nothing_can_be_left(box: SshdGuest) -> None:
    child, controller = pty.fork()
    if child == 0:
        words = command("shell", *box.login, "--", "sh", "-c", "read x; exec yes")
        os.execv(words[0], words)  # noqa: S606
    try:
        # It is raw when a line feed is not sent as two characters any more.
        deadline = Deadline(WAIT)
        while termios.tcgetattr(controller)[1] & termios.OPOST:
            deadline.check("waiting for a raw terminal")
            time.sleep(0.02)
        os.write(controller, b"go\r")
        time.sleep(1)  # It fills all buffers; nobody reads here.
        os.write(controller, b"~.")
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            deadline.check("waiting for it to end")
            time.sleep(0.02)
    finally:
        os.close(controller)


def test_a_terminal_that_goes_away_hangs_up(box: SshdGuest, tmp_path: Path) -> None:
    child, controller = pty.fork()
    if child == 0:
        trap = (
            f"trap 'echo gone >{tmp_path}/trace; exit' HUP; echo up; while :; do sleep 0.05; done"
        )
        words = command("shell", *box.login, "--", "sh", "-c", trap)
        os.execv(words[0], words)  # noqa: S606
    shown = b""
    while b"up" not in shown:
        shown += os.read(controller, 1000)
    os.close(controller)
    _pid, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGHUP
    deadline = Deadline(WAIT)
    while not (tmp_path / "trace").exists():
        deadline.check("waiting for the guest's shell to be told")
        time.sleep(0.02)


# Without a terminal.


def test_input_that_is_no_terminal_is_typed(box: SshdGuest) -> None:
    code, out, err = run("shell", *box.login, "--", *SH.split(), stdin=b"tty; stty size\nexit 7\n")
    assert (code, err) == (7, b"")
    assert b"/dev/pts/" in out
    assert b"24 80" in out
    assert b"~" not in out


@pytest.mark.parametrize("stdin", [b"", b"no end of line", b"~.\n"])
def test_the_end_of_input_is_told(box: SshdGuest, stdin: bytes) -> None:
    code, out, err = run("shell", *box.login, "--", "cat", stdin=stdin)
    assert (code, err) == (0, b"")
    assert stdin.strip() in out
    # A shell may take the terminal over just then.
    code, _out, err = run("shell", *box.login, stdin=stdin.replace(b"no end of line", b"true"))
    assert (code in {0, 126, 127}, err) == (True, b"")


def test_who_reads_the_output_may_leave(box: SshdGuest) -> None:
    process = subprocess.Popen(
        command("shell", *box.login, "--", "yes"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdout is not None
    assert process.stdout.read(3) == b"y\r\n"
    process.stdout.close()
    assert process.wait(WAIT) == 141
    assert process.stderr is not None
    assert process.stdin is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    process.stdin.close()


def test_a_signal_ends_the_guest_s_command(box: SshdGuest) -> None:
    code, _out, err = run("shell", *box.login, "--", "sh", "-c", "kill -TERM $$")
    assert (code, err) == (143, b"vmconnect: the command was ended by SIGTERM\n")


def test_exec_with_a_terminal(box: SshdGuest) -> None:
    code, out, err = run("exec", "-t", "-n", *box.login, "--", "sh", "-c", "tty; exit 3")
    assert (code, out[:9], err) == (3, b"/dev/pts/", b"")
    code, out, err = run("exec", "-n", *box.login, "--", "sh", "-c", "tty; exit 3")
    assert (code, out, err) == (3, b"not a tty\n", b"")
    code, out, err = run("exec", "-t", "--json", *box.login, "--", "true")
    assert (code, out) == (255, b"")
    assert b"-t goes with no option but those of the login, and -n" in err


def test_bad_command_lines(tmp_path: Path) -> None:
    code, _out, err = run("shell")
    assert (code, b"TARGET" in err, b"COMMAND" in err) == (255, True, False)
    code, _out, err = run("shell", "-e", "xy", "web01")
    assert (code, b"'xy' is neither one character nor none" in err) == (255, True)
    code, _out, err = run("shell", "nobody-there")
    assert (code, err.count(b"\n")) == (255, 1)


@pytest.mark.parametrize(
    ("line", "arranged"),
    [
        ("shell web01", "shell web01 --"),
        ("shell -l root web01 -- vim -R x", "shell -l root web01 -- vim -R x"),
        ("shell web01 -l root vim -R x", "shell -l root web01 -- vim -R x"),
        ("shell web01 grep -- -x", "shell web01 -- grep -- -x"),
        ("shell web01 -- --", "shell web01 -- --"),
        ("shell --help", "shell --help"),
        ("shell -e", "shell -e"),
    ],
)
def test_the_command_is_the_guest_s(line: str, arranged: str) -> None:
    assert arrange(line.split()) == arranged.split()


# Recording.


def test_a_recording(terminal: Tmux, box: SshdGuest, tmp_path: Path) -> None:
    path = tmp_path / "a.cast"
    start(terminal, box, SH, "--record", str(path))
    terminal.type("echo $((6 * 7)) €")
    terminal.wait_for("42 €")
    # It is all there, should we be killed now.
    assert "42 €\r\n" in text(events(path)[1])
    terminal.resize(80, 20)
    terminal.type("stty size")
    terminal.wait_for("20 80")
    (pid,) = terminal_processes(terminal)
    os.kill(pid, signal.SIGKILL)
    terminal.wait_for("Killed")
    header, found = events(path)
    assert (header["width"], header["height"], header["title"]) == (100, 30, box.target)
    place = [each[1:] for each in found].index(["r", "80x20"])
    assert "20 80" in text(found[place:])
    assert path.stat().st_mode & 0o777 == 0o600
    code, _out, err = run("shell", "--record", path, *box.login, "--", "true")
    assert (code, b"exists" in err) == (255, True)


def test_a_recording_that_fails_is_told(box: SshdGuest, tmp_path: Path) -> None:
    code, _out, err = run("shell", "--record", "/proc/no/such", *box.login, "--", "true")
    assert (code, b"cannot be written" in err) == (255, True)
    process = subprocess.run(
        [
            *("bash", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$@"', "-"),
            *command("shell", "--record", tmp_path / "a", *box.login, "--", "seq", "10000"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WAIT,
        check=False,
    )
    assert process.returncode == 0
    assert process.stdout.endswith(b"10000\r\n")
    assert b"the recording is not whole" in process.stderr
    assert b"File too large" in process.stderr


# The demo's guest.


@pytest.mark.guest
def test_a_guest_that_loses_power(terminal: Tmux, fresh_machine: type[DemoMachine]) -> None:
    with fresh_machine.start("dark") as machine:
        before = modes(terminal)
        terminal.type(f"clear; {shlex.join(command('shell', '--wait', '60', machine.name))}")
        terminal.wait_line("root@demo:~#")
        terminal.type("stty size; vi /etc/passwd")
        terminal.wait_for("root:x:0:0")
        with (
            QmpClient.connect(Unix(str(machine.qmp_path))) as monitor,
            contextlib.suppress(OSError),
        ):
            monitor.execute("quit")
        terminal.wait_for("dark: the connection broke while the shell ran")
        terminal.type("echo code $?")
        terminal.wait_for("code 255")
        assert terminal.flags() == UNTOUCHED
        assert modes(terminal) == before
