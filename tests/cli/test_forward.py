"""`vmconnect forward`, as a person and as a script use it."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.direct.forward.rig import WAIT, PlayedGuest, played_guest
from vmconnect.cli import main


@pytest.fixture(scope="module")
def played() -> Iterator[PlayedGuest]:
    with played_guest() as guest:
        yield guest


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def login(played: PlayedGuest) -> list[str]:
    key = str(played.key)
    return ["-l", getpass.getuser(), "-i", key, "--accept-new-host-key", played.target]


@contextlib.contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "vmconnect", "forward", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_ends_cleanly(
    played: PlayedGuest, tmp_path: Path, number: signal.Signals
) -> None:
    words = ["-L", f"{tmp_path}/s:localhost:1", "-R", "0:localhost:1", "-D", "0"]
    with started(*login(played), *words) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0] == f"{played.target}: listens on {tmp_path}/s for localhost:1\n"
        assert lines[1].startswith(f"{played.target}: listens in the guest on localhost:")
        assert lines[1].endswith(" for localhost:1\n")
        assert lines[2].startswith(f"{played.target}: listens on localhost:")
        assert lines[2].endswith(" for SOCKS\n")
        assert ":0 " not in "".join(lines)
        process.send_signal(number)
        out, err = process.communicate(timeout=WAIT)
        assert (process.returncode, out, err) == (0, "", "")
    assert not os.path.lexists(tmp_path / "s")


def test_scripts_get_it_as_json_and_trouble_on_standard_error(
    played: PlayedGuest, tmp_path: Path
) -> None:
    nobody = f"{tmp_path}/nobody"
    with started(*login(played), "--json", "-L", f"0:{nobody}") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        port = told.pop("port")
        assert told == {
            "machine": played.target,
            "kind": "local",
            "listens": f"localhost:{port}",
            "path": None,
            "target": nobody,
        }
        calling = socket.create_connection(("127.0.0.1", port))
        with calling, pytest.raises(ConnectionResetError):
            calling.recv(1)
        said = process.stderr.readline()
        assert said.startswith(f"vmconnect: {played.target}: the guest cannot connect to")
        assert nobody in said
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing is to be forwarded (say -L, -R or -D, as to ssh)"),
        (["-L", "80"], "-L '80' is no forward"),
        (["-R", "1:x:y"], "-R '1:x:y' has no valid port"),
        (["-D", "/path"], "-D '/path' is more than a port"),
    ],
)
def test_what_is_wrong_is_said_before_anybody_is_asked(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forward", "no-such-machine", *words]) == 1
    assert said in capsys.readouterr().err


def test_nothing_is_left_listening_when_one_cannot(played: PlayedGuest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["-L", f"{tmp_path}/s:localhost:1", "-L", f"{tmp_path}/file:localhost:1"]
    with started(*login(played), *words) as process:
        out, err = process.communicate(timeout=WAIT)
        assert (process.returncode, out) == (1, "")
        assert f"cannot listen on {tmp_path}/file" in err
    assert not os.path.lexists(tmp_path / "s")
