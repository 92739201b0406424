"""Who we are to a VNC server, and whom we trust, as said on the command line: real Xtigervnc."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.xtigervnc import PASSWORD, Servers
from tests.vnc.authority import Authority


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    if shutil.which("Xtigervnc") is None:
        pytest.skip("needs Xtigervnc (apt install tigervnc-standalone-server)")
    made = Servers(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let what is pinned be pinned here."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("VNC_PASSWORD", raising=False)
    monkeypatch.delenv("VNC_USERNAME", raising=False)
    return tmp_path / "state"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\nnot this\n")
    path.chmod(0o600)
    return path


def command(target: str, output: Path, *options: str) -> list[str]:
    words = [sys.executable, "-m", "vmconnect", "screenshot", target, "-o", str(output)]
    return [*words, *options]


def screenshot(
    target: str, *options: str | Path, descriptors: tuple[int, ...] = ()
) -> tuple[int, str]:
    """Take a screenshot with nobody at a terminal; return the exit code and what is said."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "x.png"
        result = subprocess.run(
            command(target, output, *map(str, options)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            pass_fds=descriptors,
        )
        assert output.exists() == (result.returncode == 0)
    assert not result.stdout
    assert result.stderr.count("\n") == (result.returncode != 0)
    assert PASSWORD not in result.stderr
    return result.returncode, result.stderr


def test_where_a_password_comes_from(
    servers: Servers, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.start("VncAuth")
    assert screenshot(servers.target, "--password-file", password_file) == (0, "")
    reader, writer = os.pipe()
    os.write(writer, f"{PASSWORD}\n".encode())
    # The writing end stays open: nothing waits for its end.
    assert screenshot(servers.target, "--password-fd", str(reader), descriptors=(reader,))[0] == 0
    os.close(reader)
    os.close(writer)
    monkeypatch.setenv("VNC_PASSWORD", PASSWORD)
    assert screenshot(servers.target)[0] == 0
    monkeypatch.setenv("VNC_PASSWORD", "wrong")
    assert screenshot(servers.target)[0] == 1
    assert screenshot(servers.target, "--password-file", password_file)[0] == 0


def test_files_that_give_no_password(password_file: Path) -> None:
    target = "vnc+unix:/nowhere"
    password_file.chmod(0o640)
    code, said = screenshot(target, "--password-file", password_file)
    assert code == 1
    assert f"chmod 600 {password_file}" in said
    password_file.write_bytes(b"\n")
    password_file.chmod(0o600)
    assert "no password" in screenshot(target, "--password-file", password_file)[1]
    password_file.write_bytes(b"\xff\n")
    assert "UTF-8" in screenshot(target, "--password-file", password_file)[1]
    password_file.write_bytes(b"x" * 100_000)
    assert "no password" in screenshot(target, "--password-file", password_file)[1]
    missing = password_file.with_name("missing")
    assert "No such file" in screenshot(target, "--password-file", missing)[1]
    assert "descriptor 99" in screenshot(target, "--password-fd", "99")[1]


def test_certificates_are_pinned(
    servers: Servers, authority: Authority, password_file: Path, state: Path
) -> None:
    options = "--password-file", password_file
    servers.start("X509Vnc", authority)
    code, said = screenshot(servers.target, *options)
    assert code == 1
    assert "--accept-new-host-key" in said
    assert "SHA256 " in said
    assert not (state / "vmconnect" / "vnc_keys").exists()

    assert screenshot(servers.target, *options, "--accept-new-host-key") == (0, "")
    (line,) = (state / "vmconnect" / "vnc_keys").read_text().splitlines()
    assert line.startswith(f"{servers.target} x509 ")
    assert screenshot(servers.target, *options) == (0, "")

    servers.start("X509Vnc", authority)
    code, said = screenshot(servers.target, *options, "--accept-new-host-key")
    assert code == 1
    assert said.count("SHA256 ") == 2
    assert "has changed" in said

    for kind in "TLSVnc", "VncAuth", "None":
        servers.start(kind)
        code, said = screenshot(servers.target, *options, "--accept-new-host-key")
        assert code == 1
        assert f"do not prove who it is: {kind}" in said


def test_a_ca_that_is_named(
    servers: Servers, authority: Authority, password_file: Path, state: Path, tmp_path: Path
) -> None:
    options = "--password-file", password_file, "--ca"
    servers.start("X509Vnc", authority)
    assert screenshot(servers.target, *options, authority.certificate) == (0, "")
    assert not (state / "vmconnect" / "vnc_keys").exists()
    address = f"vnc://127.0.0.1:{servers.port}"
    assert "not valid for '127.0.0.1'" in screenshot(address, *options, authority.certificate)[1]
    other = Authority(tmp_path / "other").certificate
    assert "certificate is not good" in screenshot(servers.target, *options, other)[1]
    servers.start("VncAuth")
    code, said = screenshot(servers.target, *options, authority.certificate)
    assert (code, "do not prove who it is" in said) == (1, True)


def test_readable_passwords_stay_here(servers: Servers, password_file: Path) -> None:
    servers.start("Plain")
    options = "-l", "ann", "--password-file", password_file
    assert "show the password to who listens: Plain" in screenshot(servers.target, *options)[1]
    # It gets as far as PAM, which knows no such user.
    assert "Plain" in screenshot(servers.target, *options, "--trust-network")[1]


@pytest.mark.parametrize("answer", ["yes", "no", ""])
def test_a_person_is_asked(
    servers: Servers, authority: Authority, tmp_path: Path, state: Path, answer: str
) -> None:
    servers.start("X509Vnc", authority)
    output = tmp_path / "x.png"
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, command(servers.target, output))  # noqa: S606
    shown = read_until(terminal, b"(yes/no)? ")
    assert b"x509 SHA256 " in shown
    os.write(terminal, answer.encode() + b"\n")
    if answer == "yes":
        shown = read_until(terminal, b"password of")
        os.write(terminal, PASSWORD.encode() + b"\n")
    shown = read_until(terminal, None)
    os.close(terminal)
    _pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (answer != "yes"), shown
    assert PASSWORD.encode() not in shown
    assert output.exists() == (answer == "yes")
    assert (state / "vmconnect" / "vnc_keys").exists() == (answer == "yes")


def read_until(terminal: int, words: bytes | None) -> bytes:
    """Read a terminal up to some words, or to its end."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO is a terminal's end of file.
        while (words is None or words not in shown) and (data := os.read(terminal, 1000)):
            shown += data
    assert words is None or words in shown, shown
    return shown
