"""A real QEMU that is killed and started again, elsewhere; with a guest in it, or its firmware."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.demo import DemoImage
from vmconnect.demo.machine import _qemu_arguments
from vmconnect.errors import ConnectError, ConnectionLostError
from vmconnect.hypervisor import QmpClient
from vmconnect.streams import Unix
from vmconnect.vsock import VsockDevice

__all__ = ["Restartable", "restartable"]

PATIENCE = 60.0


class Restartable:
    """A machine that announces itself as ``NAME.qmp``; each start may be at other addresses.

    With an ``image`` it has a guest, on a vsock device that each start gets anew.
    """

    def __init__(self, directory: Path, name: str = "web01", image: DemoImage | None = None):
        self.directory = directory
        self.name = name
        self.uuid = str(uuid.uuid4())
        self.image = image
        self.process: subprocess.Popen[bytes] | None = None
        self._device: VsockDevice | None = None
        self._starts = 0

    @property
    def qmp_path(self) -> Path:
        return self.directory / f"{self.name}.qmp"

    @property
    def target(self) -> str:
        return f"qemu:{self.qmp_path}"

    def start(
        self,
        *options: str,
        vnc: str | None = None,
        identity: str | None = None,
        events: bool = False,
        stem: str | None = None,
        stopped: bool = False,
        within: tuple[str, ...] = (),
    ) -> Path:
        """Start QEMU and return when it answers, and where its VNC server is by default.

        ``identity`` is another UUID, ``stem`` another name of its monitor's socket, ``within`` a
        command that runs it.
        """
        self._starts += 1
        base = self.directory / f"{self.name}.{self._starts}"
        socket = Path(f"{base}.vnc")
        display = vnc or f"unix:{socket}"
        monitor = self.directory / f"{stem or self.name}.qmp"
        if self.image is None:
            argv = ["qemu-system-x86_64", "-nodefaults", "-accel", "tcg", "-m", "32"]
            argv += ["-vga", "std", "-display", "none", "-name", f"guest={self.name}"]
            argv += ["-uuid", identity or self.uuid, "-vnc", display]
            argv += ["-qmp", f"unix:{monitor},server=on,wait=off"]
        else:
            device = self._device = VsockDevice(f"{base}.vu", f"{base}.vsock", 100 + self._starts)
            device.start()
            argv = self._with_guest(base, monitor, display)
        if events:
            argv += ["-qmp", f"unix:{monitor.with_suffix('.events')},server=on,wait=off"]
        argv += ["-S"] if stopped else []
        self.process = subprocess.Popen([*within, *argv, *options])
        deadline = Deadline(PATIENCE)
        while True:
            deadline.check("waiting for QEMU")
            assert self.process.poll() is None
            with contextlib.suppress(ConnectError, ConnectionLostError):
                QmpClient.connect(Unix(str(monitor)), deadline).close()
                return socket

    def _with_guest(self, base: Path, monitor: Path, display: str) -> list[str]:
        assert self.image is not None
        argv = _qemu_arguments(self.name, self.image, base, self.uuid, 256)
        # Its own places, and its own monitor.
        drop = {f"unix:{base}.{each},server=on,wait=off" for each in ("qmp", "events")} | {"-qmp"}
        kept = [word for word in argv if word not in drop]
        replaced = [word.replace(",logfile=@LOG@", "") for word in kept]
        replaced[replaced.index(f"unix:{base}.vnc")] = display
        note = {
            "user": "root",
            "identity_file": str(self.image.client_key),
            "host_key": self.image.host_key,
            "endpoint": f"vsock-mux{base}.vsock",
        }
        path = monitor.with_suffix(".json")
        path.write_text(json.dumps({"guest": note}))
        path.chmod(0o600)
        return [*replaced, "-qmp", f"unix:{monitor},server=on,wait=off"]

    def kill(self) -> None:
        """End QEMU as the kernel does when memory is short; its sockets stay."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if self._device is not None:
            self._device.stop()
            self._device = None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Run a command of its monitor."""
        with QmpClient.connect(Unix(str(self.qmp_path)), PATIENCE) as monitor:
            return monitor.execute(command, **arguments)

    def clear(self) -> None:
        """End it, and remove what it left."""
        self.kill()
        for path in self.directory.glob(f"{self.name}.*"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def restartable(
    directory: Path, name: str = "web01", image: DemoImage | None = None
) -> Iterator[Restartable]:
    """Give a machine that is not started yet, and leave nothing of it."""
    machine = Restartable(directory, name, image)
    try:
        yield machine
    finally:
        machine.clear()
