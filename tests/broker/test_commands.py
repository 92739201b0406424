"""Commands by the broker: all is as without it, also for twenty clients at once."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.broker.rig import NAME, WAIT, Rig

pytestmark = pytest.mark.guest

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


def test_twenty_clients_at_once(rig: Rig) -> None:
    before = rig.done

    def one(number: int) -> tuple[int, bytes, bytes]:
        return rig.run("exec", NAME, "--", "sh", "-c", f"cat; exit {number}", stdin=b"%d" % number)

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(one, range(20)))
    assert results == [(number, b"%d" % number, b"") for number in range(20)]
    assert rig.done == before + 20
