"""Servers that are no VNC servers, or broken or silent ones: one line, an exit code, no file."""

import contextlib
import os
import pty
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

INIT = struct.pack(
    ">HH16sI", 64, 48, bytes([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]), 1
)
READY = b"RFB 003.008\n" + b"\1\1" + b"\0\0\0\0" + INIT + b"x"


@contextlib.contextmanager
def server(says: bytes, *, stall: bool = False) -> Iterator[Path]:
    """Say something to one client, then hang up, or say no more."""
    over = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as directory,
        socket.socket(socket.AF_UNIX) as s,
    ):
        path = Path(directory) / "vnc"
        s.bind(str(path))
        s.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _peer = s.accept()
                with connection:
                    connection.sendall(says)
                    if stall:
                        over.wait(60)
                    else:
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(1000):
                            pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            over.set()
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"", "closed"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH-2.0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        (b"RFB 003.008\n\x00\x00\x00\x00\x08too busy", "too busy"),
        (b"RFB 003.008\n\x01\x63", "99"),
        (READY, "closed"),
        (READY + b"\xfe" * 40, "254"),
        (READY + b"\0\0\0\1" + struct.pack(">HHHHi", 60, 40, 10, 10, 0), "rectangle"),
        (READY + b"\0\0\0\1" + struct.pack(">HHHHi", 0, 0, 1, 1, 4242), "4242"),
    ],
)
def test_broken_servers(tmp_path: Path, says: bytes, words: str) -> None:
    with server(says) as path:
        check(path, tmp_path, words)


@pytest.mark.parametrize("says", [b"", b"RFB 0", b"RFB 003.008\n", READY])
def test_silent_servers_meet_the_deadline(tmp_path: Path, says: bytes) -> None:
    with server(says, stall=True) as path:
        check(path, tmp_path, "", "--timeout", "0.5")


def check(path: Path, directory: Path, words: str, *options: str) -> None:
    output = directory / "x.png"
    command = [sys.executable, "-m", "vmconnect", "screenshot", f"vnc+unix:{path}"]
    result = subprocess.run(
        [*command, "-o", str(output), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert str(path) in result.stderr
    assert not output.exists()


@contextlib.contextmanager
def qemu_with_password(directory: str, password: str) -> Iterator[Path]:
    path = Path(directory) / "vnc"
    process = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg", "-S"),
            *("-vga", "std", "-object", "secret,id=word,format=raw,file=/dev/stdin"),
            *("-vnc", f"unix:{path},password-secret=word"),
        ],
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(password.encode())
    process.stdin.close()
    try:
        while not path.exists():
            assert process.poll() is None
        yield path
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(("answer", "code"), [("secret", 0), ("wrong", 1)])
def test_a_password_is_asked_for_on_the_terminal(answer: str, code: int) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as directory,
        qemu_with_password(directory, "secret") as path,
    ):
        output = Path(directory) / "x.png"
        child, terminal = pty.fork()
        if child == 0:
            argv = [sys.executable, "-m", "vmconnect", "screenshot", f"vnc+unix:{path}"]
            os.execv(sys.executable, [*argv, "-o", str(output)])  # noqa: S606
        shown = b""
        while b"password" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, answer.encode() + b"\n")
        with contextlib.suppress(OSError):  # EIO is a terminal's end of file.
            while data := os.read(terminal, 1000):
                shown += data
        os.close(terminal)
        _pid, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == code
        assert answer.encode() not in shown
        assert output.exists() == (code == 0)
        if code:
            assert b"password" in shown.splitlines()[-1]


def test_a_password_that_nobody_can_be_asked_for() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as directory,
        qemu_with_password(directory, "secret") as path,
    ):
        check(path, Path(directory), "password")
