"""A command that runs in a guest, as `Guest.start` gives it: over a real sshd."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.direct.sshd import sshd_guest
from vmconnect.deadline import Deadline
from vmconnect.direct import Guest
from vmconnect.direct.library import paramiko

WAIT = 60.0


@pytest.fixture
def guest() -> Iterator[Guest]:
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as name,
        sshd_guest(Path(name)) as box,
        box.open() as guest,
    ):
        yield guest


def test_what_comes_with_the_preface_is_the_command_s(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = paramiko.Channel.recv_stderr

    def read_late(channel: paramiko.Channel, size: int) -> bytes:
        deadline = Deadline(WAIT)
        while not channel.eof_received:
            deadline.check("waiting for the end of the output")
            time.sleep(0.01)
        return read(channel, size)

    monkeypatch.setattr(paramiko.Channel, "recv_stderr", read_late)
    process = guest.start("echo b; echo a >&2; echo c >&2; exit 5", cwd="/")
    assert process.stderr.readline(timeout=WAIT) == b"a\n"
    result = process.wait(WAIT)
    assert (result.exit_code, result.stdout, result.stderr) == (5, b"b\n", b"c\n")
    whole = guest.start("echo b; echo a >&2; echo c >&2", cwd="/").wait(WAIT)
    assert (whole.stdout, whole.stderr) == (b"b\n", b"a\nc\n")
