"""This machine's sshd for the tests' rigs: a process a connection, which listens nowhere.

A rig keeps in a directory of its own what such a sshd needs: ``host_key``, ``user_key`` whose owner
is let in, and ``sshd_config``.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["configure_sshd", "new_key", "sshd_command"]


def new_key(path: Path, passphrase: str = "") -> str:
    """Make a key, and return its public line."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "a test's", "-f"]
    subprocess.run([*words, str(path)], check=True)
    return path.with_name(f"{path.name}.pub").read_text()


def configure_sshd(directory: Path, *lines: str) -> None:
    """Write the directory's sshd_config; of what is said twice the first holds: ``lines``."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd confines itself
    text = [
        *lines,
        f"HostKey {directory}/host_key",
        f"AuthorizedKeysFile {directory}/user_key.pub",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        # What a person's shell does when it starts is not ours to wait for.
        f"SetEnv HOME={directory}",
        "UsePAM no",
        "StrictModes no",
        "PrintMotd no",
        "PrintLastLog no",
        "LogLevel QUIET",
    ]
    (directory / "sshd_config").write_text("\n".join(text) + "\n")


def sshd_command(directory: Path) -> list[str]:
    """Return the command that serves one connection on its standard input and output."""
    return ["/usr/sbin/sshd", "-i", "-f", f"{directory}/sshd_config"]
