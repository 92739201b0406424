"""A real qemu-ga of this machine's, on a UNIX socket: the distribution's, unpacked, not installed.

It runs as whoever runs the tests. What would change this machine as a whole is blocked: those
commands are tested in a guest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from vmconnect.demo import packages
from vmconnect.direct.agent import StreamChannel
from vmconnect.paths import cache_directory
from vmconnect.progress import Silent
from vmconnect.streams import Unix, dial

__all__ = ["RealAgent", "agent_program"]

_BLOCKED = (
    "guest-shutdown",
    "guest-suspend-disk",
    "guest-suspend-ram",
    "guest-suspend-hybrid",
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-freeze-list",
    "guest-set-time",
    "guest-set-vcpus",
    "guest-set-user-password",
    "guest-ssh-add-authorized-keys",
    "guest-ssh-remove-authorized-keys",
    "guest-fstrim",
)
_START_SECONDS = 30.0


def agent_program(directory: Path) -> Path:
    """Return a qemu-ga: the one that is installed, else that of the demo machine's package."""
    installed = shutil.which("qemu-ga", path=f"{os.environ['PATH']}:/usr/sbin")
    if installed:
        return Path(installed)
    wanted = [each for each in packages.resolve() if each.filename.startswith("qemu-guest-agent_")]
    archives = packages.fetch(wanted, cache_directory() / "demo" / "packages", Silent())
    packages.unpack(archives, directory, Silent())
    return directory / "usr" / "sbin" / "qemu-ga"


class RealAgent:
    """One qemu-ga, to be connected to, killed and started anew."""

    def __init__(self, program: Path, directory: Path, *, blocked: tuple[str, ...] = ()):
        self.path = directory / "qga"
        self._argv = [
            str(program),
            *("-m", "unix-listen", "-p", str(self.path), "-t", str(directory)),
            *("-f", str(directory / "pid"), "-b", ",".join((*_BLOCKED, *blocked))),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + _START_SECONDS
        while not self.path.exists():
            assert self._process.poll() is None, "qemu-ga does not start"
            assert time.monotonic() < end
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def channel(self) -> StreamChannel:
        return StreamChannel(dial(Unix(str(self.path)), _START_SECONDS), "web01")

    @contextlib.contextmanager
    def running(self) -> Iterator[RealAgent]:
        self.start()
        try:
            yield self
        finally:
            self.kill()
