"""What a QEMU monitor tells of its machine."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.errors import HypervisorError, QmpError, UnsupportedError
from vmconnect.hypervisor.machine import GuestNote, Machine, PowerState
from vmconnect.hypervisor.place import Place
from vmconnect.hypervisor.qemu.note import read_note
from vmconnect.hypervisor.qmp import QmpClient
from vmconnect.hypervisor.sockets import is_socket
from vmconnect.streams import SSH_PORT, Endpoint, HybridVsock, Tcp, Unix, Vsock

__all__ = ["answers_checked", "describe", "power_state", "unknown"]

_AGENT_PORT = "org.qemu.guest_agent.0"
# QEMU's own peer of the guest's spice-vdagent, which shares the clipboard with VNC.
_CLIPBOARD = "qemu-vdagent"

# QEMU's RunState (qapi/run-state.json).
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


def describe(monitor: QmpClient, path: Path, place: Place, deadline: Deadline) -> Machine:
    """Return what the monitor at ``path`` says, and what lies beside it; raises as `QmpClient`."""
    with answers_checked(path):
        uuid = str(monitor.execute("query-uuid", timeout=deadline).get("UUID", ""))
        if not uuid.strip("0-"):
            uuid = ""  # QEMU's answer where none was given.
        name = str(monitor.execute("query-name", timeout=deadline).get("name") or path.stem)
        state = power_state(monitor, deadline)
        console, handed = _console(monitor, deadline)
        devices = _devices(monitor, deadline)
        agent, serial, clipboard = _channels(monitor, devices.agent, deadline)
    note, beside = _beside(path, place, devices)
    machine = Machine(
        name=name,
        identity=uuid or place.target(path),
        target=place.target(path),
        hypervisor="qemu",
        uuid=uuid or None,
        state=state,
        console=console,
        guest=devices.vsock or beside,
        note=note,
        agent=agent,
        serial=serial,
        handed_console=handed,
        clipboard=clipboard,
    )
    return place.reached(machine)


def unknown(path: Path, place: Place, trouble: str) -> Machine:
    """Return what is known of the machine whose monitor at ``path`` does not answer."""
    note, endpoint = read_note(path.with_suffix(".json"))
    return Machine(
        name=path.stem,
        identity=place.target(path),
        target=place.target(path),
        hypervisor="qemu",
        guest=endpoint,
        note=note,
        trouble=trouble,
    )


def power_state(monitor: QmpClient, deadline: Deadline) -> PowerState:
    """Return what the machine is doing."""
    status = monitor.execute("query-status", timeout=deadline).get("status")
    return _STATES.get(str(status), PowerState.UNKNOWN)


@contextlib.contextmanager
def answers_checked(path: Path) -> Iterator[None]:
    """Turn the stumble over an answer of the wrong shape into a protocol error."""
    try:
        yield
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise QmpError("the monitor gave a senseless answer", machine=str(path)) from error


def _beside(path: Path, place: Place, devices: _Devices) -> tuple[GuestNote, Endpoint | None]:
    """Return the note beside the monitor, and the hybrid vsock socket, as far as one can look."""
    hybrid = path.with_suffix(".vsock")
    endpoint = HybridVsock(str(hybrid), SSH_PORT)
    if place.far:
        # Whoever gives QEMU such a device lays the socket there; who has not will be told.
        return GuestNote(), endpoint if devices.vhost_user else None
    note, noted = read_note(path.with_suffix(".json"))
    return note, noted or (endpoint if is_socket(hybrid) else None)


def _console(monitor: QmpClient, deadline: Deadline) -> tuple[Endpoint | None, bool]:
    """Return where the first VNC display listens, and whether there is a display at all.

    Plain RFB comes before WebSocket. A display that listens nowhere (``-vnc none``) still takes
    connections by ``add_client``.
    """
    try:
        servers = monitor.execute("query-vnc-servers", timeout=deadline)
    except (HypervisorError, UnsupportedError):
        return None, False  # A QEMU built without VNC.
    for display in servers:
        for address in display.get("server", ()):
            if address.get("websocket"):
                continue
            host, service = str(address.get("host", "")), str(address.get("service", ""))
            if address.get("family") == "unix":
                return Unix(host or service), True
            if service.isdigit():
                return Tcp(_reachable(host), int(service)), True
    return None, bool(servers)


def _reachable(host: str) -> str:
    """Turn the address that means every interface into one that can be dialled."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (not bound here)


@dataclass(slots=True)
class _Devices:
    """What of its devices matters here.

    ``vsock`` is the guest on the kernel's vsock device, ``vhost_user`` whether it has one that is
    served by another program; ``agent`` is the chardev of the guest agent's port.
    """

    vsock: Endpoint | None = None
    vhost_user: bool = False
    agent: str | None = None


def _devices(monitor: QmpClient, deadline: Deadline) -> _Devices:
    found = _Devices()
    for parent in ("/machine/peripheral", "/machine/peripheral-anon"):
        for entry in monitor.execute("qom-list", path=parent, timeout=deadline):
            kind, path = str(entry.get("type")), f"{parent}/{entry.get('name')}"

            def get(name: str, path: str = path) -> Any:
                return monitor.execute("qom-get", path=path, property=name, timeout=deadline)

            if re.fullmatch(r"child<vhost-vsock-.*>", kind):
                found.vsock = found.vsock or Vsock(int(get("guest-cid")), SSH_PORT)
            elif re.fullmatch(r"child<vhost-user-vsock-.*>", kind):
                found.vhost_user = True
            elif kind == "child<virtserialport>" and get("name") == _AGENT_PORT:
                found.agent = found.agent or str(get("chardev"))
    return found


def _channels(
    monitor: QmpClient, agent_device: str | None, deadline: Deadline
) -> tuple[Endpoint | None, Endpoint | Path | None, bool]:
    """Return the guest agent's channel and the first serial port, where they can be reached.

    And whether there is what shares the clipboard.
    """
    agent: Endpoint | None = None
    clipboard = False
    serial: Endpoint | Path | None = None
    for device in monitor.execute("query-chardev", timeout=deadline):
        label, filename = str(device.get("label")), str(device.get("filename"))
        if label == agent_device:
            found = _chardev(filename)
            agent = None if isinstance(found, Path) else found
        elif serial is None and re.fullmatch(r"(char)?serial\d*", label):
            serial = _chardev(filename)
        clipboard = clipboard or filename == _CLIPBOARD
    return agent, serial, clipboard


def _chardev(filename: str) -> Endpoint | Path | None:
    """Read what ``query-chardev`` says of a character device that others can connect to."""
    if match := re.fullmatch(r"(?:disconnected:)?unix:(/.*?)(?:,server=on)?(?: <->.*)?", filename):
        return Unix(match[1])
    if match := re.fullmatch(r"(?:disconnected:)?tcp:(.+):(\d+),server=on(?: <->.*)?", filename):
        return Tcp(_reachable(match[1].strip("[]")), int(match[2]))
    if match := re.fullmatch(r"pty:(/.*)", filename):
        return Path(match[1])
    return None
