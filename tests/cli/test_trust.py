"""``vmconnect trust`` and ``credential``: real sshd, qemu-ga and Xtigervnc; a keyring in a file."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.xtigervnc import Servers
from tests.vnc.authority import Authority
from vmconnect.cli import main
from vmconnect.demo import DemoMachine
from vmconnect.session import HostKey, TrustStore

WAIT = 60.0


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "vmconnect"


class Cli:
    """The command, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        """Return what is said, on standard output or, when it fails, as one line of error."""
        result = main(words)
        out, err = self._capsys.readouterr()
        assert result == code, err
        if code:
            assert (out, err.count("\n")) == ("", 1)
            return err
        return out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[1:]]


# Guests.


@pytest.fixture
def unnoted(demo_machine: DemoMachine) -> Iterator[DemoMachine]:
    """A machine of which nobody has written anything down."""
    hidden = demo_machine.description_path.with_suffix(".hidden")
    demo_machine.description_path.rename(hidden)
    yield demo_machine
    hidden.rename(demo_machine.description_path)


def fingerprint(machine: DemoMachine) -> str:
    key = HostKey.from_line(machine.image.host_key)
    assert key is not None
    return key.fingerprint


@pytest.mark.guest
def test_from_the_first_key_to_the_last(unnoted: DemoMachine, cli: Cli) -> None:
    name, known = unnoted.name, fingerprint(unnoted)
    assert cli("trust", "list").splitlines() == ["MACHINE  FOR  KEY  FINGERPRINT  TOLD BY  SINCE"]
    assert "trust add" in cli("trust", "show", name, code=1)
    (row,) = rows(cli("trust", "add", name))
    assert row[:7] == [name, "guest", "ED25519", "256", known, "guest", "agent"]
    assert rows(cli("trust", "list")) == rows(cli("trust", "show", name)) == [row]
    assert rows(cli("trust", "show", unnoted.uuid.upper())) == [row]
    (told,) = cli.json("trust", "list")
    assert told.pop("since").startswith("20")
    assert told == {
        "machine": name,
        "identity": unnoted.uuid,
        "for": "guest",
        "kind": "ssh-ed25519",
        "bits": 256,
        "fingerprint": known,
        "origin": "guest-agent",
    }
    assert known in cli("trust", "forget", "sha*")
    assert cli.json("trust", "list") == []
    assert "no key is pinned" in cli("trust", "forget", name, code=1)
    assert "no machine is called" in cli("trust", "forget", "no-such", code=1)


@pytest.mark.guest
def test_adding_another_than_is_pinned(unnoted: DemoMachine, cli: Cli) -> None:
    TrustStore().pin(unnoted.uuid, HostKey("ssh-ed25519", b"other"), machine=unnoted.name)
    said = cli("trust", "add", unnoted.name, "--yes", code=1)
    assert said.count("SHA256:") == 2
    assert f"vmconnect trust forget {unnoted.uuid}" in said
    cli("trust", "forget", unnoted.name)
    cli("trust", "add", unnoted.name)
    cli("trust", "add", unnoted.name)
    assert len(cli.json("trust", "list")) == 1


@pytest.mark.guest
def test_a_bare_address_has_no_agent_and_somebody_has_to_say_so(
    demo_machine: DemoMachine, cli: Cli
) -> None:
    address = f"vsock-mux{demo_machine.vsock_path}"
    known = fingerprint(demo_machine)
    said = cli("trust", "add", address, code=1)
    assert known in said
    assert "--fingerprint" in said
    said = cli("trust", "add", address, "--fingerprint", "SHA256:abc", code=1)
    assert f"it shows {known}, not SHA256:abc" in said
    (row,) = rows(cli("trust", "add", address, "--fingerprint", known.removeprefix("SHA256:")))
    assert row[5:7] == ["trust", "add"]
    cli("trust", "forget", address)
    assert rows(cli("trust", "add", address, "--yes"))[0][:5] == row[:5]


@pytest.mark.guest
@pytest.mark.parametrize("answer", ["yes", "no"])
def test_a_person_is_asked(demo_machine: DemoMachine, cli: Cli, answer: str) -> None:
    address = f"vsock-mux{demo_machine.vsock_path}"
    child, terminal = pty.fork()
    if child == 0:
        words = [sys.executable, "-m", "vmconnect", "trust", "add", address]
        os.execv(words[0], words)  # noqa: S606
    shown = b""
    with contextlib.suppress(OSError):  # EIO is a terminal's end of file.
        while b"(yes/no)? " not in shown and (data := os.read(terminal, 1000)):
            shown += data
        assert fingerprint(demo_machine).encode() in shown
        os.write(terminal, f"{answer}\n".encode())
        while data := os.read(terminal, 1000):
            shown += data
    os.close(terminal)
    _pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (answer != "yes"), shown
    assert len(cli.json("trust", "list")) == (answer == "yes")


@pytest.mark.guest
def test_a_machine_s_note_is_shown(demo_machine: DemoMachine, cli: Cli) -> None:
    (row,) = rows(cli("trust", "show", demo_machine.name))
    assert row[4:] == [fingerprint(demo_machine), "its", "note", "-"]
    (told,) = cli.json("trust", "show", demo_machine.name)
    assert told["origin"] == "note"
    assert cli.json("trust", "list") == []


# VNC servers.


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    if shutil.which("Xtigervnc") is None:
        pytest.skip("needs Xtigervnc (apt install tigervnc-standalone-server)")
    made = Servers(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("kind", ["X509None", "X509Vnc", "X509Plain"])
def test_a_console_s_key(servers: Servers, tmp_path: Path, cli: Cli, kind: str) -> None:
    """No password is asked for: a key is shown before anything secret is."""
    servers.start(kind, Authority(tmp_path / "pki"))
    said = cli("trust", "add", servers.target, code=1)
    shown = said.partition("SHA256 ")[2].split()[0]
    assert len(shown) == 95
    other = f"{'00:' * 31}00"
    assert f"not {other}" in cli("trust", "add", servers.target, "--fingerprint", other, code=1)
    named = f"SHA256 {shown.lower()}"
    (row,) = rows(cli("trust", "add", servers.target, "--fingerprint", named))
    assert row[1:5] == ["console", "x509", "SHA256", shown]
    (told,) = cli.json("trust", "show", servers.target)
    assert (told["for"], told["bits"], told["origin"]) == ("console", None, "added")
    spelled = servers.target.replace("localhost", "LOCALHOST")
    assert shown in cli("trust", "forget", spelled)
    assert cli.json("trust", "list") == []


@pytest.mark.parametrize("kind", ["None", "VncAuth", "TLSVnc"])
def test_a_console_with_no_key(servers: Servers, cli: Cli, kind: str) -> None:
    servers.start(kind)
    assert "no key that could be pinned" in cli("trust", "add", servers.target, "--yes", code=1)
    assert cli.json("trust", "list") == []


# Passwords in the keyring.


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.session.file_keyring.FileKeyring")
    monkeypatch.setenv("VMCONNECT_TEST_KEYRING", str(tmp_path / "ring"))
    return tmp_path / "ring"


def credential(*words: str, stdin: str | None = None) -> tuple[int, str]:
    """Run it in a process of its own: the library remembers its backend."""
    result = subprocess.run(
        [sys.executable, "-m", "vmconnect", "credential", *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout + result.stderr


def test_a_console_s_password_from_the_keyring(
    servers: Servers, ring: Path, state: Path, tmp_path: Path
) -> None:
    from tests.cli.xtigervnc import PASSWORD

    servers.start("VncAuth")
    words = [sys.executable, "-m", "vmconnect", "screenshot", servers.target, "-o"]
    words.append(str(tmp_path / "x.png"))
    assert subprocess.run(words, capture_output=True, timeout=WAIT, check=False).returncode == 1
    assert credential(
        "set", servers.target, "console", "--password-fd", "0", stdin=f"{PASSWORD}\n"
    ) == (0, "")
    assert json.loads(ring.read_text()) == {f"vmconnect/console {servers.target}": PASSWORD}
    assert PASSWORD not in (state / "credentials").read_text()
    assert (state / "credentials").stat().st_mode & 0o777 == 0o600
    assert subprocess.run(words, timeout=WAIT, check=False).returncode == 0
    assert json.loads(credential("list", "--json")[1]) == [
        {
            "machine": servers.target,
            "identity": servers.target,
            "for": "console",
            "user": None,
        }
    ]
    assert credential("forget", servers.target, "console") == (0, "")
    assert json.loads(ring.read_text()) == {}
    assert subprocess.run(words, capture_output=True, timeout=WAIT, check=False).returncode == 1
    code, said = credential("forget", servers.target, "console")
    assert (code, "there is no console password" in said) == (1, True)


def test_keyrings_that_will_not_do(ring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "set", "vnc://127.0.0.1", "console", "--password-fd", "0"
    monkeypatch.setenv("VMCONNECT_TEST_KEYRING", "")
    code, said = credential(*words, stdin="secret\n")
    assert (code, "the keyring refuses: nobody unlocks it" in said) == (1, True)
    monkeypatch.setenv("VMCONNECT_TEST_KEYRING", str(ring))
    for backend in ("tests.session.file_keyring.UnsafeKeyring", "keyring.backends.null.Keyring"):
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", backend)
        code, said = credential(*words, stdin="secret\n")
        assert (code, "no keyring here that keeps a password safe" in said) == (1, True)
    assert not ring.exists()
    assert "there is no password to keep" in credential(*words[:3])[1]
    assert credential("list")[1] == "MACHINE  FOR  USER  IDENTITY\n"


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keyring.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, said = credential(
        "set", "vnc://127.0.0.1", "console", "--password-fd", "0", stdin="secret\n"
    )
    assert (code, "pip install 'vmconnect[keyring]'" in said) == (1, True)
