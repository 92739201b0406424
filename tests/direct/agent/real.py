"""A real qemu-ga of this machine's, on a UNIX socket: the distribution's, unpacked, not installed.

It runs as whoever runs the tests. What would change this machine as a whole is blocked: those
commands are tested in a guest, or by a `ContainedAgent`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmconnect.demo import packages
from vmconnect.direct.agent import GuestAgent, StreamChannel
from vmconnect.paths import cache_directory
from vmconnect.progress import Silent
from vmconnect.streams import Unix, dial

__all__ = ["ContainedAgent", "RealAgent", "agent_program"]

_BLOCKED = (
    "guest-shutdown",
    "guest-suspend-disk",
    "guest-suspend-ram",
    "guest-suspend-hybrid",
    "guest-set-time",
    "guest-set-vcpus",
    "guest-fstrim",
)
_BLOCKED_OUTSIDE = (
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-freeze-list",
    "guest-set-user-password",
    "guest-ssh-add-authorized-keys",
    "guest-ssh-remove-authorized-keys",
)
_START_SECONDS = 60.0


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

    def __init__(
        self,
        program: Path,
        directory: Path,
        *,
        blocked: Sequence[str] = _BLOCKED_OUTSIDE,
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ):
        self.path = directory / "qga"
        self._argv = [
            *prefix,
            str(program),
            *("-m", "unix-listen", "-p", str(self.path), "-t", str(directory)),
            *("-f", str(directory / "pid"), "-b", ",".join((*_BLOCKED, *blocked))),
        ]
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._env
        )
        end = time.monotonic() + _START_SECONDS
        with socket.socket(socket.AF_UNIX) as probe:
            # It binds before it listens.
            while probe.connect_ex(str(self.path)) != 0:
                assert self._process.poll() is None, "qemu-ga does not start"
                assert time.monotonic() < end
                time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def channel(self) -> StreamChannel:
        return StreamChannel(dial(Unix(str(self.path)), _START_SECONDS), "web01")

    def open(self) -> GuestAgent:
        return GuestAgent(self.channel(), "web01")

    @contextlib.contextmanager
    def running(self) -> Iterator[RealAgent]:
        self.start()
        try:
            yield self
        finally:
            self.kill()


class ContainedAgent(RealAgent):
    """One in a mount namespace of its own, where /etc is a copy and a file system is mounted.

    Needs root, loop devices and mkfs.ext4. It may freeze that file system, and no other is asked
    for; and change users, which are those of the copy.
    """

    def __init__(self, program: Path, directory: Path):
        self.etc = directory / "etc"
        self.mountpoint = directory / "mounted"
        script = (
            f"mount --bind {directory}/etc /etc &&"
            f' mount -o loop {directory}/disk {directory}/mounted && exec "$@"'
        )
        prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        super().__init__(program, directory, blocked=("guest-fsfreeze-freeze",), prefix=prefix)
        self.etc.mkdir()
        self.mountpoint.mkdir()
        for name in ("passwd", "shadow", "group", "nsswitch.conf", "login.defs", "localtime"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(f"/etc/{name}", self.etc)
        for name in ("pam.d", "security", "alternatives", "default"):
            if Path("/etc", name).is_dir():
                shutil.copytree(f"/etc/{name}", self.etc / name, symlinks=True)
        home = directory / "ann"
        home.mkdir()
        with (self.etc / "passwd").open("a") as passwd, (self.etc / "shadow").open("a") as shadow:
            passwd.write(f"ann:x:0:0::{home}:/bin/sh\n")
            shadow.write("ann:!:19000:0:99999:7:::\n")
        disk = directory / "disk"
        with disk.open("wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)

    @staticmethod
    def possible() -> bool:
        if os.getuid() != 0 or not shutil.which("mkfs.ext4") or not Path("/dev/loop0").exists():
            return False
        words = ["unshare", "--mount", "true"]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
