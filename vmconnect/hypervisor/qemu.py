"""QEMU machines, found by the QMP sockets that lie in a directory.

Anybody's QEMU becomes known by ``-qmp unix:DIRECTORY/NAME.qmp,server=on,wait=off``. Beside it
may lie

``NAME.vsock``
    the hybrid vsock socket of a vhost-user vsock device, which QEMU itself does not know of
``NAME.json``
    a note on how to log in to the guest: ``{"guest": {"user": ..., "identity_file": ...,
    "host_key": ..., "endpoint": "vsock-mux/PATH"}}``
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectError,
    HypervisorError,
    QmpError,
    ResourceError,
    VmconnectError,
)
from vmconnect.hypervisor.base import GuestNote, Machine, PowerState
from vmconnect.hypervisor.qmp import QmpClient
from vmconnect.streams import SSH_PORT, Endpoint, HybridVsock, Tcp, Unix, Vsock

__all__ = ["Qemu"]

_NOTE_BYTES = 64 << 10
_QUERY_TIMEOUT = 2.0
_AT_ONCE = 16

_STATES = {
    "running": PowerState.RUNNING,
    "paused": PowerState.PAUSED,
    "suspended": PowerState.PAUSED,
    "prelaunch": PowerState.PAUSED,
    "inmigrate": PowerState.PAUSED,
    "postmigrate": PowerState.PAUSED,
    "finish-migrate": PowerState.PAUSED,
    "save-vm": PowerState.PAUSED,
    "restore-vm": PowerState.PAUSED,
    "debug": PowerState.PAUSED,
    "colo": PowerState.RUNNING,
    "watchdog": PowerState.CRASHED,
    "guest-panicked": PowerState.CRASHED,
    "internal-error": PowerState.CRASHED,
    "io-error": PowerState.CRASHED,
    "shutdown": PowerState.OFF,
}


class Qemu:
    """The machines whose monitors lie in ``directory``."""

    name = "qemu"

    def __init__(self, directory: Path):
        self._directory = directory

    def machines(self, deadline: Deadline) -> list[Machine]:
        """Return every machine, by name; one that does not answer has state UNKNOWN.

        Sockets that nobody serves any more are left out.
        """
        sockets = sorted(self._sockets())
        if len(sockets) <= 1:
            found = [self._inspect_or_none(path, deadline) for path in sockets]
        else:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(min(_AT_ONCE, len(sockets))) as pool:
                found = list(pool.map(lambda path: self._inspect_or_none(path, deadline), sockets))
        machines = [machine for machine in found if machine is not None]
        return sorted(machines, key=lambda machine: (machine.name, machine.identity))

    def look_up(self, name: str, deadline: Deadline) -> list[Machine]:
        """Return the machines with that name or UUID: none, one, or several."""
        # The socket is most often named as the machine is: one question instead of many.
        path = self._directory / f"{name}.qmp"
        if path.name == f"{name}.qmp" and _is_socket(path):
            machine = self._inspect_or_none(path, deadline)
            if machine is not None and machine.name == name:
                return [machine]
        return [
            machine for machine in self.machines(deadline) if name in {machine.name, machine.uuid}
        ]

    def inspect(self, path: Path, deadline: Deadline) -> Machine:
        """Ask the monitor at ``path`` about its machine; raises as `QmpClient` does."""
        with QmpClient.connect(Unix(str(path)), deadline) as monitor, _answers_checked(path):
            uuid = str(monitor.execute("query-uuid", timeout=deadline).get("UUID", ""))
            if not uuid.strip("0-"):
                uuid = ""  # QEMU's answer where none was given.
            name = str(monitor.execute("query-name", timeout=deadline).get("name") or path.stem)
            status = str(monitor.execute("query-status", timeout=deadline).get("status"))
            console = _console(monitor, deadline)
            vsock = _kernel_vsock(monitor, deadline)
        note, noted_endpoint = _read_note(path.with_suffix(".json"))
        hybrid = path.with_suffix(".vsock")
        beside = HybridVsock(str(hybrid), SSH_PORT) if _is_socket(hybrid) else None
        return Machine(
            name=name,
            identity=uuid or f"qemu:{path}",
            target=f"qemu:{path}",
            hypervisor=self.name,
            uuid=uuid or None,
            state=_STATES.get(status, PowerState.UNKNOWN),
            console=console,
            guest=vsock or noted_endpoint or beside,
            note=note,
        )

    def _sockets(self) -> Iterator[Path]:
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if entry.name.endswith(".qmp") and _is_socket(Path(entry.path)):
                        yield Path(entry.path)
        except OSError as error:
            raise ResourceError(f"cannot read {self._directory}: {error.strerror}") from error

    def _inspect_or_none(self, path: Path, deadline: Deadline) -> Machine | None:
        try:
            return self.inspect(path, deadline.sooner(_QUERY_TIMEOUT))
        except ConnectError:
            return None  # A socket file that its machine left behind.
        except VmconnectError:
            note, endpoint = _read_note(path.with_suffix(".json"))
            return Machine(
                name=path.stem,
                identity=f"qemu:{path}",
                target=f"qemu:{path}",
                hypervisor=self.name,
                guest=endpoint,
                note=note,
            )


@contextlib.contextmanager
def _answers_checked(path: Path) -> Iterator[None]:
    """Turn the stumble over an answer of the wrong shape into a protocol error."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        raise QmpError("the monitor gave a senseless answer", machine=str(path)) from error


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _console(monitor: QmpClient, deadline: Deadline) -> Endpoint | None:
    """Return where the first VNC display listens, plain RFB before WebSocket."""
    try:
        servers = monitor.execute("query-vnc-servers", timeout=deadline)
    except HypervisorError:
        return None  # A QEMU built without VNC.
    for display in servers:
        for address in display.get("server", ()):
            if address.get("websocket"):
                continue
            host, service = str(address.get("host", "")), str(address.get("service", ""))
            if address.get("family") == "unix":
                return Unix(host or service)
            if service.isdigit():
                return Tcp(_reachable(host), int(service))
    return None


def _reachable(host: str) -> str:
    """Turn the address that means every interface into one that can be dialled."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (not bound here)


def _kernel_vsock(monitor: QmpClient, deadline: Deadline) -> Endpoint | None:
    """Return the guest's CID if it has the kernel's vsock device (vhost-vsock)."""
    for parent in ("/machine/peripheral", "/machine/peripheral-anon"):
        for entry in monitor.execute("qom-list", path=parent, timeout=deadline):
            if re.fullmatch(r"child<vhost-vsock-.*>", str(entry.get("type"))):
                path = f"{parent}/{entry.get('name')}"
                cid = monitor.execute("qom-get", path=path, property="guest-cid", timeout=deadline)
                return Vsock(int(cid), SSH_PORT)
    return None


def _read_note(path: Path) -> tuple[GuestNote, Endpoint | None]:
    """Read the note beside a monitor; a missing or unreadable one says nothing."""
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            # A note names a private key and a user: only our own word, or root's, counts.
            if info.st_uid not in {os.getuid(), 0} or info.st_mode & 0o022:
                return GuestNote(), None
            content = json.loads(file.read(_NOTE_BYTES))
    except (OSError, ValueError, RecursionError):
        return GuestNote(), None
    guest: Any = content.get("guest") if isinstance(content, dict) else None
    if not isinstance(guest, dict):
        return GuestNote(), None

    def text(key: str) -> str | None:
        value = guest.get(key)
        return value if isinstance(value, str) and value else None

    endpoint = text("endpoint") or ""
    hybrid = endpoint.removeprefix("vsock-mux")
    return (
        GuestNote(text("user"), text("identity_file"), text("host_key")),
        HybridVsock(hybrid, SSH_PORT) if hybrid.startswith("/") and hybrid != endpoint else None,
    )
