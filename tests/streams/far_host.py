"""Another host: a real sshd, reached by the user's ssh with a configuration of its own.

The sshd is started by ssh itself (ProxyCommand), for one connection: so it listens nowhere, and
nothing of it stays.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openssh import configure_sshd, new_key, sshd_command
from vmconnect.paths import runtime_directory

__all__ = ["FarHost", "far_host", "leave"]


class FarHost:
    """The host ``kvm7``; what its sshd allows and what ssh_config says may be changed."""

    name = "kvm7"

    def __init__(self, directory: Path):
        self.directory = directory
        # Another host of the same tests may still be connected to, or be left just now.
        self._others = set(_masters())
        self.config = directory / "ssh_config"
        for name in ("host_key", "other_key", "user_key"):
            new_key(directory / name)
        self.know("host_key")
        self.serve()
        self.configure()

    def know(self, key: str | None) -> None:
        """Let known_hosts have this key of the host's, or none."""
        line = (self.directory / f"{key}.pub").read_text() if key else ""
        known = f"{self.name} {line}" if line else ""
        (self.directory / "known_hosts").write_text(known)

    def serve(self, *lines: str) -> None:
        """Let sshd_config have these lines first."""
        configure_sshd(self.directory, *lines)

    def configure(self, *lines: str) -> None:
        """Let the host's part of ssh_config have these lines first."""
        text = "\n".join(
            [
                f"Host {self.name}",
                *lines,
                f"HostKeyAlias {self.name}",
                # A host that is far away hears nothing of the terminal here.
                f"ProxyCommand setsid {' '.join(sshd_command(self.directory))}",
                f"IdentityFile {self.directory}/user_key",
                "IdentitiesOnly yes",
                f"UserKnownHostsFile {self.directory}/known_hosts",
                "GlobalKnownHostsFile /dev/null",
            ]
        )
        self.config.write_text(text + "\n")

    def ssh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ssh as a user does."""
        return _ssh(self.config, *arguments)

    def masters(self) -> list[Path]:
        """Return the control sockets of our own masters of this host."""
        return [path for path in _masters() if path not in self._others]

    def leave(self) -> None:
        """End all shared connections to it."""
        for path in self.masters():
            _end(self.config, path, self.name)


def _masters() -> list[Path]:
    return [path for path in runtime_directory().glob("ssh-*") if path.suffix != ".lock"]


def _end(config: Path, path: Path, host: str) -> None:
    _ssh(config, "-S", str(path), "-O", "exit", host)


def _ssh(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", "-F", str(config), *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def leave(config: Path, host: str) -> None:
    """End all shared connections of ours."""
    for path in _masters():
        _end(config, path, host)


@contextlib.contextmanager
def far_host(directory: Path) -> Iterator[FarHost]:
    """Give a host to reach by ssh, and end every connection to it."""
    host = FarHost(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMCONNECT_SSH", f"ssh -F {host.config}")
        try:
            yield host
        finally:
            host.leave()
