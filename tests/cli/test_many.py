"""``exec -m`` and ``run``: real SSH servers behind hybrid vsock sockets; one real guest."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.direct.ssh_servers import SshServers, ssh_servers
from tests.hypervisor.rest_servers import CloudHypervisorModel, serving
from tests.openssh import new_key
from vmconnect.cli import exec as exec_one
from vmconnect.cli import exec_many, run
from vmconnect.cli.command_line import Parser
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine

COUNT = 4
WAIT = 60.0


@pytest.fixture(scope="module")
def servers() -> Iterator[SshServers]:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, ssh_servers(Path(name), COUNT) as all_:
        yield all_


@pytest.fixture(autouse=True)
def room(servers: SshServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The group ``@all``, and nothing known of anybody."""
    (tmp_path / "vmconnect").mkdir()
    targets = [servers.target(name) for name in servers.names]
    (tmp_path / "vmconnect" / "groups.toml").write_text(f"all = {json.dumps(targets)}\n")
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    return tmp_path


def command(servers: SshServers, name: str, *words: str) -> list[str]:
    login = ["-i", str(servers.identity_file), "--accept-new-host-key"]
    return [sys.executable, "-m", "vmconnect", name, *login, *words]


def vmconnect(
    servers: SshServers, name: str, *words: str, stdin: str = ""
) -> tuple[int, list[str], list[str]]:
    """Return the exit code and the lines of both outputs, targets shortened to names."""
    done = subprocess.run(
        command(servers, name, *words),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )

    def lines(text: str) -> list[str]:
        short = re.sub(rf"vsock-mux{servers.directory}/(vm\d+)\.vsock", r"\1", text)
        return re.sub(r"  +", " ", short).splitlines()

    return done.returncode, lines(done.stdout), lines(done.stderr)


@pytest.mark.parametrize(
    ("words", "arranged"),
    [
        ("exec -m web01 uname -a", "exec -m web01 -- uname -a"),
        ("exec -m web01 -l root --all uname", "exec -m web01 -l root --all -- uname"),
        ("exec --all --throttle 3 -- -x", "exec --all --throttle 3 -- -x"),
        (
            "exec -l root -m web01 --except web02 x -m",
            "exec -l root -m web01 --except web02 -- x -m",
        ),
    ],
)
def test_where_a_command_for_many_begins(words: str, arranged: str) -> None:
    assert exec_one.for_many(words.split())
    assert exec_many.arrange(words.split()) == arranged.split()


@pytest.mark.parametrize(
    "words", ["exec -m web01 run that", "exec --all run that", "exec -l ann -mweb01 run that"]
)
def test_the_broker_which_knows_of_one_machine_does_not_take_it_for_that(words: str) -> None:
    parser = Parser()
    exec_one.configure(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(exec_one.arrange(words.split())[1:])


@pytest.mark.parametrize(
    "words",
    [
        "exec web01 -- grep -m 1 x",
        "exec web01 grep -m 1 x",
        "exec -l -m web01 true",
        "exec -i --all web01",
        "exec web01",
        "exec",
    ],
)
def test_what_is_for_one_machine_as_ever(words: str) -> None:
    assert not exec_one.for_many(words.split())


@pytest.mark.parametrize(
    ("words", "arranged"),
    [
        ("run x.sh web01", "run x.sh web01"),
        ("run -l ann x.sh -q web01 --json @db", "run -l ann -q --json x.sh web01 @db"),
        ("run x.sh web01 -- -a -- b", "run --argument=-a --argument=-- --argument=b x.sh web01"),
        ("run --all x.sh --interpreter bash", "run --all --interpreter bash x.sh"),
        ("run --timeout", "run --timeout"),
    ],
)
def test_what_run_is_given(words: str, arranged: str) -> None:
    assert run.arrange(words.split()) == arranged.split()


def test_lines_have_their_machine_before_them(servers: SshServers) -> None:
    script = "printf 'one\\n\\ntwo'; echo err >&2"
    code, out, err = vmconnect(servers, "exec", "-m", "@all", "--", "sh", "-c", script)
    assert code == 0
    for name in servers.names:
        mine = [line.partition(" | ")[2] for line in out if line.startswith(f"{name} |")]
        assert mine == ["one", "", "two"]
        assert f"{name} | err" in err
    table = err[COUNT:]
    assert table[0].split() == ["MACHINE", "RESULT", "TOOK"]
    assert [line.split()[:2] for line in table[1:-1]] == [[name, "ok"] for name in servers.names]
    assert table[-1].startswith("4 machines: 4 ok, in ")


def test_all_there_are(
    servers: SshServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(tmp_path))
    with contextlib.ExitStack() as stack:
        for name, state in (*((each, "Running") for each in servers.names), ("idle", "Shutdown")):
            socket = f"{servers.directory}/{name}.vsock"
            model = CloudHypervisorModel({"payload": {}, "vsock": {"cid": 3, "socket": socket}})
            model.state = state
            stack.enter_context(serving(model, tmp_path / f"{name}.ch"))
        code, out, err = vmconnect(servers, "exec", "--all", "--", "hostname")
        without = ["exec", "--all", "--except", "vm000[12]", "--except", "idle"]
        _, some, told = vmconnect(servers, *without, "--", "hostname")
    assert code == 0, err
    assert sorted(out) == [f"{name} | {os.uname().nodename}" for name in servers.names]
    rows = [line.split()[:2] for line in err[-COUNT - 1 : -1]]
    assert rows == [[name, "ok"] for name in servers.names]
    assert re.fullmatch(r"4 machines: 4 ok, in .* s; 1 skipped, off or with no vsock", err[-1]), (
        err[-1]
    )
    assert sorted(line.partition(" |")[0] for line in some) == ["vm0003", "vm0004"]
    assert "skipped" not in told[-1]


def test_on_how_many_at_once(tmp_path: Path) -> None:
    count, at_once = 40, 32
    room = tmp_path / "under-way"
    room.mkdir()
    seen: set[str] = set()

    def begun(number: int) -> list[str]:
        """Wait until so many have begun, and return those that are under way then."""
        deadline = Deadline(WAIT)
        while True:
            now = [each.name for each in room.iterdir()]
            seen.update(now)
            if len(seen) >= number:
                return now
            deadline.check(f"waiting for {number} to begin, after {len(seen)}")
            time.sleep(0.02)

    # Each goes on until its directory is removed.
    script = f"mkdir {room}/$$; while [ -e {room}/$$ ]; do sleep 0.1; done"
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, ssh_servers(Path(name), count) as all_:
        targets = [word for each in all_.names for word in ("-m", all_.target(each))]
        words = command(all_, "exec", *targets, "--", "sh", "-c", script)
        with subprocess.Popen(words, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
            try:
                under_way = begun(at_once)
                for number in range(at_once + 1, count + 1):
                    assert len(under_way) == at_once
                    (room / under_way[0]).rmdir()
                    under_way = begun(number)
                assert len(under_way) == at_once
                for each in under_way:
                    (room / each).rmdir()
                assert process.stderr is not None
                said = process.stderr.read().decode()
                assert process.wait(WAIT) == 0, said
            finally:
                process.kill()
    assert "40 machines: 40 ok" in said


def test_what_comes_of_it_is_the_exit_code(servers: SshServers) -> None:
    first = servers.target("vm0001")
    some = ["-m", "@all", "--except", servers.target("vm0004"), "--", "sh", "-c"]
    code, out, err = vmconnect(servers, "exec", *some, "exit 3")
    assert (code, out) == (1, [])
    assert err[-1].startswith("3 machines: 3 failed, in ")
    assert [line.split()[1:4] for line in err[1:-1]] == [["exit", "code", "3"]] * 3
    code, _, err = vmconnect(servers, "exec", "-m", first, "--", "sh", "-c", "kill -9 $$")
    assert code == 1
    assert err[1].split()[:2] == ["vm0001", "SIGKILL"]
    code, _, err = vmconnect(servers, "exec", "-m", "no-such", *some, "exit 3")
    assert code == 255
    (row,) = [line for line in err if line.startswith("no-such")]
    assert "error - no machine is called 'no-such'" in row
    assert err[-1].startswith("4 machines: 3 failed, 1 error, in ")
    code, out, err = vmconnect(servers, "exec", "-m", "@none", "--", "true")
    assert (code, out, len(err)) == (255, [], 1)
    assert "there is no group 'none'" in err[0]
    code, _, err = vmconnect(servers, "exec", "-m", "@all")
    assert (code, len(err)) == (255, 1)
    assert "required: COMMAND" in err[0]


def test_quiet_says_errors_alone(servers: SshServers) -> None:
    code, out, err = vmconnect(servers, "exec", "-q", "-m", "@all", "-m", "none", "--", "echo", "x")
    assert code == 255
    assert sorted(out) == [f"{name} | x" for name in servers.names]
    assert len(err) == 1
    assert err[0].startswith("vmconnect: none: no machine is called")


def test_groups_of_output(servers: SshServers) -> None:
    script = "for n in 1 2 3; do echo $n; sleep 0.05; done; printf err >&2; exit 2"
    code, out, err = vmconnect(servers, "exec", "--group", "-q", "-m", "@all", "sh", "-c", script)
    assert code == 1
    groups = [out[place : place + 4] for place in range(0, len(out), 4)]
    assert sorted(groups) == [[f"== {name}: exit code 2", "1", "2", "3"] for name in servers.names]
    assert sorted(zip(err[::2], err[1::2], strict=True)) == [
        (f"== {name}: standard error", "err") for name in servers.names
    ]


def test_json_lines(servers: SshServers) -> None:
    script = "echo é; printf '\\377' >&2; exit 4"
    words = ["--json", "-m", "@all", "-m", "none", "--", "sh", "-c", script]
    code, out, err = vmconnect(servers, "exec", *words)
    assert (code, err) == (255, [])
    told = sorted((json.loads(line) for line in out), key=lambda each: str(each["machine"]))
    missing, first, *_ = told
    assert len(told) == COUNT + 1
    assert missing["error"]["kind"] == "MachineNotFoundError"
    assert missing["target"] is None
    assert first.pop("seconds") > 0
    assert first == {
        "machine": "vm0001",
        "target": "vm0001",
        "argv": ["sh", "-c", script],
        "exit_code": 4,
        "signal": None,
        "stdout": "é\n",
        "stderr_base64": "/w==",
        "error": None,
    }


def test_standard_input_for_each(servers: SshServers) -> None:
    given = "x" * 300_000
    code, out, _ = vmconnect(servers, "exec", "--stdin", "-m", "@all", "wc", "-c", stdin=given)
    assert code == 0
    assert sorted(out) == [f"{name} | 300000" for name in servers.names]
    code, out, _ = vmconnect(servers, "exec", "-m", "@all", "wc", "-c", stdin=given)
    assert sorted(out) == [f"{name} | 0" for name in servers.names]


def test_a_script_on_one_is_as_if_it_ran_here(servers: SshServers, tmp_path: Path) -> None:
    script = tmp_path / "ask.sh"
    script.write_text('read x; echo "$x $#"; cat; echo oh >&2; exit 9\n')
    one = servers.target("vm0001")
    code, out, err = vmconnect(
        servers, "run", str(script), one, "--", "-a", "b c", stdin="first\nsecond\n"
    )
    assert (code, out, err) == (9, ["first 2", "second"], ["oh"])
    code, out, _ = vmconnect(servers, "run", "--json", str(script), one, stdin="first\n")
    assert (code, json.loads(out[0])["stdout"]) == (9, "first 0\n")


# Writes down what it has started, and waits for it.
STARTER = """
sleep 1000 & one=$!
setsid sleep 1000 & two=$!
echo $$ $one $two >{room}/pids.new
mv {room}/pids.new {room}/pids
wait
"""


def started_by(room: Path) -> list[Path]:
    """Wait for what STARTER has started, and return where it is in /proc."""
    deadline = Deadline(WAIT)
    while not (room / "pids").exists():
        deadline.check("waiting for the script")
        time.sleep(0.01)
    return [Path("/proc", pid) for pid in (room / "pids").read_text().split()]


def await_end(processes: list[Path]) -> None:
    deadline = Deadline(WAIT)
    while left := [each for each in processes if each.exists()]:
        deadline.check(f"waiting for {left} to end")
        time.sleep(0.02)


def test_ctrl_c_ends_what_a_script_on_one_has_started(servers: SshServers, tmp_path: Path) -> None:
    script = tmp_path / "start.sh"
    script.write_text(STARTER.format(room=tmp_path))
    words = command(servers, "run", "-n", str(script), servers.target("vm0001"))
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        processes = started_by(tmp_path)
        assert all(each.exists() for each in processes)
        try:
            # The first asks the script to end; what it has left behind, a shell made ignore it.
            process.send_signal(signal.SIGINT)
            await_end(processes[:1])
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=WAIT)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    await_end(processes)


def test_a_time_out_ends_what_a_script_on_one_has_started(
    servers: SshServers, tmp_path: Path
) -> None:
    script = tmp_path / "start.sh"
    script.write_text(STARTER.format(room=tmp_path))
    words = ["--timeout", "2", str(script), servers.target("vm0001")]
    code, out, err = vmconnect(servers, "run", *words)
    assert (code, out, len(err)) == (255, [], 1)
    assert "timed out" in err[0]
    processes = started_by(tmp_path)
    assert len(processes) == 3
    await_end(processes)


@pytest.mark.parametrize("words", [["run", "--help"], ["exec", "--all", "--help"]])
def test_what_a_time_out_does_is_told(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vmconnect", *words], capture_output=True, text=True, check=True
    )
    text = " ".join(done.stdout.split())
    assert "and all that it has started, after that long" in text
    assert "hang up" not in text


def test_a_script_on_many(servers: SshServers, tmp_path: Path) -> None:
    script = tmp_path / "which.py"
    script.write_text("import sys\nprint(sys.argv[1:], sys.stdin.read())\n")
    code, out, err = vmconnect(servers, "run", str(script), "@all", "--", "-x")
    assert code == 0
    assert sorted(out) == [f"{name} | ['-x'] " for name in servers.names]
    assert err[-1].startswith("4 machines: 4 ok")
    for words, said in (
        ([str(script)], "no machine is named"),
        ([str(tmp_path / "none.sh"), "@all"], "No such file"),
    ):
        code, out, err = vmconnect(servers, "run", *words)
        assert (code, out, len(err)) == (255, [], 1)
        assert said in err[0]


def test_a_reader_that_leaves(servers: SshServers) -> None:
    words = command(servers, "exec", "-m", "@all", "--", "yes")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(100_000)
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(WAIT) == 141
    assert "Traceback" not in said


class Terminal:
    """A terminal on which the command runs."""

    def __init__(self, words: list[str]):
        ours, theirs = pty.openpty()
        self._terminal = ours
        self.process = subprocess.Popen(
            ["setsid", "-c", *words], stdin=theirs, stdout=theirs, stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def send(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, pattern: str) -> None:
        deadline = Deadline(WAIT)
        with selectors.DefaultSelector() as selector:
            selector.register(self._terminal, selectors.EVENT_READ)
            while not re.search(pattern, self.seen):
                deadline.check(f"waiting for {pattern!r}, after {self.seen!r}")
                if selector.select(0.2):
                    try:
                        data = os.read(self._terminal, 1 << 16)
                    except OSError as error:  # Nobody has it open any more.
                        raise AssertionError(self.seen) from error
                    self.seen += data.decode(errors="replace")

    def end(self) -> int:
        return self.process.wait(WAIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


def test_ctrl_c_ends_all_of_it(servers: SshServers, tmp_path: Path) -> None:
    script = f"echo up; echo $$ >{tmp_path}/pid-$$; while :; do echo on || exit; sleep 0.1; done"
    words = ["--throttle", "2", "-m", "@all", "--", "sh", "-c", script]
    with Terminal(command(servers, "exec", *words)) as screen:
        screen.until(r"(?s)up\r\n.*up\r\n")
        screen.send("\x03")
        screen.until(r"4 machines: .*, in ")
        assert screen.end() == 130
    assert screen.seen.count("cut off") == 3  # one in the sum
    assert screen.seen.count("not begun") == 3
    assert "Traceback" not in screen.seen
    pids = [path.read_text().strip() for path in tmp_path.glob("pid-*")]
    assert len(pids) == 2
    deadline = Deadline(WAIT)
    while any(Path("/proc", pid).exists() for pid in pids):
        deadline.check("waiting for the commands to end")
        time.sleep(0.02)


def test_a_passphrase_is_asked_for_once_while_the_line_waits(
    servers: SshServers, tmp_path: Path
) -> None:
    locked = tmp_path / "locked_key"
    line = new_key(locked, passphrase="open sesame")  # noqa: S106 (a test's)
    with (servers.directory / "user_key.pub").open("a") as file:
        file.write(line)
    words = ["exec", "-i", str(locked), "--accept-new-host-key", "-m", "@all", "--"]
    ours = [sys.executable, "-m", "vmconnect", *words]
    with Terminal([*ours, "sh", "-c", "sleep 2; echo done"]) as screen:
        screen.until("passphrase for .*locked_key: ")
        screen.send("open sesame\n")
        screen.until("0/4")  # how far they are
        screen.until("4 machines: 4 ok")
        assert screen.end() == 0
    assert screen.seen.count("passphrase for") == 1
    assert "open sesame" not in screen.seen
    assert screen.seen.count("| done") == COUNT

    with Terminal([*ours, "true"]) as screen:
        screen.until("passphrase for .*locked_key: ")
        screen.send("\x03")
        screen.until(r"4 machines: .*, in ")
        assert screen.end() == 130
    assert screen.seen.count("passphrase for") == 1


def test_a_signal_to_the_process_alone(servers: SshServers, tmp_path: Path) -> None:
    # They neither read nor write: no broken pipe ends them.
    silent = f"echo >{tmp_path}/$$; exec sleep 100 </dev/null >/dev/null 2>&1"
    words = command(servers, "exec", "-m", "@all", "--", "sh", "-c", silent)
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        deadline = Deadline(WAIT)
        while len(list(tmp_path.iterdir())) < COUNT:
            deadline.check("waiting for the commands")
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(WAIT) == 130
    assert "Traceback" not in said
    assert not any(Path("/proc", each.name).exists() for each in tmp_path.iterdir())


@pytest.mark.guest
def test_by_pattern_on_a_real_machine(demo_machine: DemoMachine, tmp_path: Path) -> None:
    script = tmp_path / "busy"
    script.write_text("#!/bin/busybox sh\nread x; echo $x $1; hostname\n")
    words = [sys.executable, "-m", "vmconnect", "run", str(script), "--stdin", "shar*", "--", "arg"]
    done = subprocess.run(
        words, input="in\n", capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert done.stdout.splitlines()[0] == f"{demo_machine.name} | in arg", done.stderr
    assert done.returncode == 0
    assert "1 machine: 1 ok" in done.stderr
