"""Real Xtigervncs on one TCP port, one after the other."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

from tests.vnc.authority import Authority

__all__ = ["PASSWORD", "Servers"]

PASSWORD = "opensesam"[:8]
NAME = "localhost"
START_SECONDS = 30.0


class Servers:
    """Xtigervncs on one TCP port, one after the other."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = subprocess.run(
            ["tigervncpasswd", "-f"], input=PASSWORD.encode(), stdout=subprocess.PIPE, check=True
        )
        (directory / "passwords").write_bytes(words.stdout)

    @property
    def target(self) -> str:
        return f"vnc://{NAME}:{self.port}"

    def start(self, kind: str, authority: Authority | None = None) -> None:
        """Let one server with one login take the place of the one before."""
        self.stop()
        words = ["Xtigervnc", "-SecurityTypes", kind, "-interface", "127.0.0.1"]
        words += ["-rfbport", str(self.port), "-geometry", "64x48", "-depth", "24"]
        words += ["-PasswordFile", str(self.directory / "passwords")]
        if authority is not None:
            certificate, key = authority.issue("server", NAME)
            words += ["-X509Cert", str(certificate), "-X509Key", str(key)]
        reader, writer = os.pipe()
        with os.fdopen(reader) as lines:
            self._process = subprocess.Popen(
                [*words, "-displayfd", str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[writer],
            )
            os.close(writer)
            assert lines.readline()
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            assert time.monotonic() < end
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
