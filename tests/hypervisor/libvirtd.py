"""Real libvirt daemons, each in a directory of its own; nothing of the host's is touched.

The session daemon is what every user has; a privileged one in a mount namespace, where
/etc/libvirt, /run/libvirt and the like are the test's directories, is ``qemu:///system``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.hypervisor.rig import soon
from vmconnect.hypervisor import LibvirtAddress

NOBODY = 65534

QEMU_CONF = """
user = "root"
group = "root"
cgroup_controllers = []
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
"""
LIBVIRTD_CONF = """
auth_unix_rw = "none"
auth_unix_ro = "none"
"""


@contextlib.contextmanager
def session_daemon() -> Iterator[tuple[LibvirtAddress, Path]]:
    """``qemu:///session`` of a user that is not root; gives a directory that its QEMUs can use."""
    with restartable_daemon() as (address, room, _daemon):
        yield address, room


@contextlib.contextmanager
def restartable_daemon() -> Iterator[tuple[LibvirtAddress, Path, Daemon]]:
    """The same, and the daemon, to be killed and started again."""
    with _room() as room:
        homes = {"HOME": room}
        for variable in ("CONFIG", "CACHE", "DATA"):
            homes[f"XDG_{variable}_HOME"] = room / variable.lower()
        homes["XDG_RUNTIME_DIR"] = room / "run"
        for path in homes.values():
            path.mkdir(exist_ok=True)
        command = ["libvirtd"]
        if os.getuid() == 0:
            for path in homes.values():
                os.chown(path, NOBODY, NOBODY)
            command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            command += ["libvirtd"]
        path = room / "run" / "libvirt" / "libvirt-sock"
        env = {name: str(each) for name, each in homes.items()}
        with _running(command, room, path, env) as daemon:
            yield LibvirtAddress("session", query=f"socket={path}"), room, daemon


@contextlib.contextmanager
def system_daemon() -> Iterator[tuple[LibvirtAddress, Path]]:
    """``qemu:///system``, privileged; needs root and mount namespaces."""
    with _room() as room:
        for name in ("etc", "run", "lib", "log", "cache"):
            (room / name).mkdir()
        (room / "etc" / "qemu.conf").write_text(QEMU_CONF)
        (room / "etc" / "libvirtd.conf").write_text(LIBVIRTD_CONF)
        # The Debian package's user and groups, for a system that does not have them.
        for name, line in (("passwd", "libvirt-qemu:x:64055:64055::/:/bin/false\n"), ("group", "")):
            text = Path("/etc", name).read_text(encoding="utf-8")
            if name == "group":
                for number, group in enumerate(("libvirt-qemu", "kvm", "libvirt"), 64055):
                    if f"\n{group}:" not in text:
                        text += f"{group}:x:{number}:\n"
            elif "\nlibvirt-qemu:" not in text:
                text += line
            (room / name).write_text(text)
        mounts = [(room / "passwd", "/etc/passwd"), (room / "group", "/etc/group")]
        for ours, theirs in (
            ("etc", "/etc/libvirt"),
            ("run", "/run/libvirt"),
            ("lib", "/var/lib/libvirt"),
            ("log", "/var/log/libvirt"),
            ("cache", "/var/cache/libvirt"),
        ):
            Path(theirs).mkdir(parents=True, exist_ok=True)
            mounts.append((room / ours, theirs))
        script = " && ".join(f"mount --bind {ours} {theirs}" for ours, theirs in mounts)
        # By itself it takes a pid file of the host's: there may be another one's.
        script += " && exec libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid"
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        path = room / "run" / "libvirt-sock"
        with _running(command, room, path, {}):
            yield LibvirtAddress("system", query=f"socket={path}"), room


@contextlib.contextmanager
def _room() -> Iterator[Path]:
    room = Path(tempfile.mkdtemp(prefix="vmc-"))
    room.chmod(0o755)
    try:
        yield room
    finally:
        shutil.rmtree(room)


class Daemon:
    """A libvirtd's process."""

    def __init__(self, command: list[str], log: Path, path: Path, env: dict[str, str]):
        self._command, self._log, self._path = command, log, path
        self._env = {**os.environ, **env}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it listens."""
        with self._log.open("ab") as output:
            process = self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, env=self._env, cwd="/"
            )
        deadline = soon()
        while True:
            deadline.check("waiting for libvirtd: " + self._log.read_text()[-500:])
            assert process.poll() is None, self._log.read_text()
            with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
                probe.connect(str(self._path))
                return

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it; its machines run on."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()


@contextlib.contextmanager
def _running(command: list[str], room: Path, path: Path, env: dict[str, str]) -> Iterator[Daemon]:
    daemon = Daemon(command, room / "libvirtd.log", path, env)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.kill(signal.SIGTERM)
        _end_machines(room)


def _end_machines(room: Path) -> None:
    """End the QEMUs that libvirtd left running, by the process ids that it wrote."""
    for note in room.rglob("*.pid"):
        with contextlib.suppress(OSError, ValueError):
            number = int(note.read_text())
            if b"qemu-system" in Path(f"/proc/{number}/cmdline").read_bytes():
                os.kill(number, signal.SIGKILL)
