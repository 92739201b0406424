"""Scripts of ours: real shells, Pythons and perl run them as a guest's login shell would."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmconnect.deadline import Deadline
from vmconnect.demo import DemoMachine
from vmconnect.direct import Script
from vmconnect.errors import ResourceError, TargetError
from vmconnect.session import connect

SHELLS = ("sh", "dash", "bash", "zsh")
INPUT = b"first line\n\0binary\xff\nlast, without an end"


def started(script: Script, *arguments: str, login: str = "sh") -> list[str]:
    """What sshd starts for it."""
    argv, _ = script.prepared(arguments)
    return [login, "-c", shlex.join(argv)]


def run(
    script: Script, *arguments: str, stdin: bytes = INPUT, login: str = "sh"
) -> subprocess.CompletedProcess[bytes]:
    argv, given = script.prepared(arguments, stdin)
    return subprocess.run(
        [login, "-c", shlex.join(argv)],
        input=b"".join(given),
        capture_output=True,
        check=False,
        timeout=60,
    )


def files() -> set[Path]:
    """What is in the places where a script's file may be."""
    return {path for place in ("/dev/shm", "/tmp") for path in Path(place).glob("vmconnect.*")}


@pytest.mark.parametrize("login", SHELLS)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("go.sh", b'read x; echo "[$x]" "$#" "$1" "$2"; cat; exit 7'),
        ("go", b'#!/bin/bash -eu\nread x; [[ $x ]]; echo "[$x]" $# "$1" "$2"; cat; exit 7\n'),
        ("go", b'#!/usr/bin/env -S zsh -f\nread x; echo "[$x]" $# "$1" "$2"; cat; exit 7\n'),
        (
            "go.py",
            b"""
import os, sys
line = os.read(0, 11)[:-1].decode()
print("[" + line + "]", len(sys.argv) - 1, *sys.argv[1:], flush=True)
os.write(1, os.read(0, 999))
sys.exit(7)
""",
        ),
        (
            "go.pl",
            b"""
my $x = <STDIN>; chomp $x; print "[$x] ", scalar(@ARGV), " @ARGV\n"; print <STDIN>; exit 7
""",
        ),
    ],
)
def test_arguments_input_and_exit_code_are_the_script_s(login: str, name: str, text: bytes) -> None:
    before = files()
    result = run(Script.of(text, name), "a  b", "$x'\"\\*", login=login)
    first, _, rest = result.stdout.partition(b"\n")
    assert first == b"[first line] 2 a  b $x'\"\\*"
    assert (rest, result.stderr, result.returncode) == (INPUT[11:], b"", 7)
    assert files() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"#!/bin/sh\n", ("/bin/sh",)),
        (b"#! /usr/bin/env python3\n", ("python3",)),
        (b"#!/usr/bin/env -S python3 -u -X dev\n", ("python3", "-u", "-X", "dev")),
        (b"#!/usr/bin/env -S A=1 perl", ("env", "A=1", "perl")),
        (b"#!/usr/bin/awk -f\n", ("/usr/bin/awk", "-f")),
        (b"echo\n", ("python3",)),
        (b"#!\n", ("python3",)),
    ],
)
def test_the_first_line_tells_what_runs_it_or_else_the_suffix(
    text: bytes, words: tuple[str, ...]
) -> None:
    assert Script.of(text, "some.py").interpreter == words
    assert Script.of(text, "some.py", "bash -x").interpreter == ("bash", "-x")


@given(st.binary(max_size=60))
def test_any_first_line_names_something_or_nothing(line: bytes) -> None:
    try:
        script = Script.of(b"#!" + line, "x")
    except TargetError:
        return
    assert script.interpreter[0]
    argv, _ = script.prepared()
    assert all("\0" not in word for word in argv)


def test_what_is_no_script(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="says what runs notes"):
        Script.of(b"hello", "notes")
    with pytest.raises(TargetError, match="no text"):
        Script.of(b"#!/bin/sh\n\0", "x.sh")
    with pytest.raises(TargetError, match="is no command: No closing quotation"):
        Script.of(b"hello", "notes", "sh -c 'x")
    with pytest.raises(ResourceError, match="larger than 16 MiB"):
        Script.of(b"#" * (16 << 20) + b"\n", "x.sh")
    with pytest.raises(ResourceError, match="No such file"):
        Script.read(tmp_path / "none.sh")


# Not all bytes: a script is a text, and a shell's lines end with a line feed.
LINES = st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\0", b"").replace(b"\n", b"")))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(lines=LINES, stdin=st.binary(max_size=200), name=st.sampled_from(["x.sh", "x.pl"]))
def test_a_text_arrives_as_it_is_and_takes_nothing_of_the_input(
    lines: list[bytes], stdin: bytes, name: str
) -> None:
    # What the interpreter sees of it, whatever it says: cat prints it, and what is left to read.
    # dash itself loses such a byte of a line that begins as the here-document's end does.
    lines = [line.lstrip(b"=") for line in lines]
    told = b"\n".join(lines) + b"\n"
    if name == "x.pl":
        result = run(Script.of(told, name, "cat"), "-", stdin=stdin)
    else:
        heredoc = b"cat <<'=end of it='\n" + told + b"=end of it=\ncat\n"
        result = run(Script.of(heredoc, name, "dash"), stdin=stdin)
    assert (result.stdout, result.stderr) == (told + stdin, b"")


@pytest.mark.parametrize("name", ["x.sh", "x.py", "x.pl"])
def test_a_script_that_is_cut_short_is_not_run(name: str) -> None:
    before = files()
    script = Script.of(b'print("half");\nprint("whole");\n', name)
    argv, given = script.prepared()
    sent = next(given)[: len(b'print("half");\n')]
    result = subprocess.run(argv, input=sent, capture_output=True, check=False, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (255, b"", b"")
    assert files() == before


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_file_is_gone_after_a_signal_too(how: signal.Signals) -> None:
    before = files()
    script = Script.of(b'$| = 1; print "up\n"; sleep 60', "x.pl")
    argv, given = script.prepared()
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(next(given))
    process.stdin.close()
    assert process.stdout.readline() == b"up\n"
    (file,) = files() - before
    assert file.stat().st_mode & 0o777 == 0o700
    os.killpg(process.pid, how)
    process.wait(60)
    process.stdout.close()
    deadline = Deadline(60)
    while files() != before:
        deadline.check("waiting for the file to go")
        time.sleep(0.01)


def test_nothing_of_a_script_is_on_a_command_line() -> None:
    for name in ("x.sh", "x.py", "x.pl", "x.ps1"):
        argv, given = Script.of(b"secret-word\n", name).prepared()
        assert "secret-word" not in " ".join(argv)
        assert "\n" not in argv[-1] or name == "x.py"
        assert b"secret-word" in next(given)


def test_powershell_gets_it_by_its_size_and_arguments_as_literals() -> None:
    # No PowerShell runs here: that this is what one takes is its documentation's word.
    argv, given = Script.of("'é'\n".encode(), "x.ps1").prepared(["it's", "$x"])
    assert argv[:5] == ["pwsh", "-NoLogo", "-NoProfile", "-NonInteractive", "-Command"]
    assert "[byte[]]::new(5)" in argv[5]
    assert "& $script 'it''s' '$x'; exit $LASTEXITCODE" in argv[5]
    assert next(given) == "'é'\n".encode()


@pytest.mark.guest
def test_in_a_guest_of_busybox_and_python(demo_machine: DemoMachine) -> None:
    with connect(demo_machine.name) as session:
        guest = session.guest(timeout=60, wait=True)
        result = guest.script(
            Script.of(b'#!/bin/sh\nread x; echo "$x $1"; cat; exit 3', "a"), ["arg"], stdin=INPUT
        )
        assert (result.stdout, result.exit_code) == (b"first line arg\n" + INPUT[11:], 3)
        assert result.argv == ("a", "arg")
        result = guest.script(Script.of(b"import sys; print(sys.argv)", "a.py"), ["arg"])
        assert (result.text, result.exit_code) == ("['a.py', 'arg']\n", 0)
        awk = Script.of(b'#!/usr/bin/awk -f\n{ print "[" $0 "]" }\n', "a.awk")
        assert guest.script(awk, ["-"], stdin=b"x\ny\n").text == "[x]\n[y]\n"
        assert not guest.run(["sh", "-c", "ls -d /dev/shm/vmconnect.* /tmp/vmconnect.*"]).stdout
