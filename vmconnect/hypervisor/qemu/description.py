"""What a QEMU monitor tells of its machine."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.errors import QmpError, VmconnectError
from vmconnect.hypervisor.machine import GuestNote, Machine, PowerState
from vmconnect.hypervisor.place import Place
from vmconnect.hypervisor.qemu.note import read_note
from vmconnect.hypervisor.qmp import QmpClient, Question
from vmconnect.hypervisor.sockets import is_socket
from vmconnect.streams import SSH_PORT, Endpoint, HybridVsock, Tcp, Unix, Vsock

__all__ = [
    "QUESTIONS",
    "Description",
    "answers_checked",
    "describe",
    "description",
    "power_state",
    "unknown",
]

_AGENT_PORT = "org.qemu.guest_agent.0"
# QEMU's own peer of the guest's spice-vdagent, which shares the clipboard with VNC.
_CLIPBOARD = "qemu-vdagent"
_NAMED, _ANONYMOUS = "/machine/peripheral", "/machine/peripheral-anon"

QUESTIONS: Sequence[Question] = (
    ("query-uuid", {}),
    ("query-name", {}),
    ("query-status", {}),
    ("query-vnc-servers", {}),
    ("qom-list", {"path": _NAMED}),
    ("qom-list", {"path": _ANONYMOUS}),
    ("query-chardev", {}),
)
"""What `description` asks of every monitor first."""

Description = Generator[Sequence[Question], Sequence[Any], Machine]
"""Yields questions, takes their answers (`QmpClient.execute_all`), returns the machine."""

# What query-chardev says of character devices.
_SERIAL = re.compile(r"(char)?serial\d*")
_UNIX = re.compile(r"(?:disconnected:)?unix:(/.*?)(?:,server=on)?(?: <->.*)?")
_TCP = re.compile(r"(?:disconnected:)?tcp:(.+):(\d+),server=on(?: <->.*)?")
_PTY = re.compile(r"pty:(/.*)")

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


def description(path: Path, place: Place) -> Description:
    """Say what has to be asked of the monitor at ``path``, take the answers, return the machine.

    It does no I/O but on the files beside the monitor: whoever drives it sends what it yields,
    one monitor's questions all at once (`describe`), or many monitors' (`survey`).
    """
    with answers_checked(path):
        (uuid, name, status, displays, named, anonymous, chardevs) = yield QUESTIONS
        devices = _Devices()
        for parent, listing in ((_NAMED, named), (_ANONYMOUS, anonymous)):
            devices.look_at(parent, _good(listing))
        if devices.questions:
            devices.learn((yield devices.questions))
        identity = str(_good(uuid).get("UUID", ""))
        if not identity.strip("0-"):
            identity = ""  # QEMU's answer where none was given.
        console, handed = _console(displays)
        agent, serial, clipboard = _channels(_good(chardevs), devices.agent_chardev)
        called = str(_good(name).get("name") or path.stem)
        state = _STATES.get(str(_good(status).get("status")), PowerState.UNKNOWN)
    note, beside = _beside(path, place, devices)
    target = place.target(path)
    machine = Machine(
        name=called,
        identity=identity or target,
        target=target,
        hypervisor="qemu",
        uuid=identity or None,
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


def describe(monitor: QmpClient, path: Path, place: Place, deadline: Deadline) -> Machine:
    """Return what the monitor at ``path`` says, and what lies beside it; raises as `QmpClient`."""
    asking = description(path, place)
    questions = next(asking)
    while True:
        try:
            questions = asking.send(monitor.execute_all(questions, deadline))
        except StopIteration as end:
            machine: Machine = end.value
            return machine


def unknown(path: Path, place: Place, trouble: str) -> Machine:
    """Return what is known of the machine whose monitor at ``path`` does not answer."""
    note, endpoint = (GuestNote(), None) if place.far else read_note(path.with_suffix(".json"))
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
    stem, _ = os.path.splitext(path)  # noqa: PTH122 (asked of every machine)
    hybrid = f"{stem}.vsock"
    if place.far:
        # Whoever gives QEMU such a device lays the socket there; who has not will be told.
        return GuestNote(), HybridVsock(hybrid, SSH_PORT) if devices.vhost_user else None
    note, noted = read_note(f"{stem}.json")
    return note, noted or (HybridVsock(hybrid, SSH_PORT) if is_socket(hybrid) else None)


def _good(given: Any) -> Any:
    """Return an answer; raises it if it is the error of a refusal."""
    if isinstance(given, VmconnectError):
        raise given
    return given


def _console(servers: Any) -> tuple[Endpoint | None, bool]:
    """Return where the first VNC display listens, and whether there is a display at all.

    Plain RFB comes before WebSocket. A display that listens nowhere (``-vnc none``) still takes
    connections by ``add_client``.
    """
    if isinstance(servers, VmconnectError):
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


class _Devices:
    """The vsock device and the agent's port, among the devices of a machine."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        """What is to be asked of the devices found."""
        self.vsock: Endpoint | None = None
        """The guest, by the CID of the kernel's vsock device."""
        self.vhost_user = False
        """Whether it has a vsock device that is served by another program."""
        self.agent_chardev: str | None = None
        """What the agent's port is connected to."""

    def look_at(self, parent: str, listing: Any) -> None:
        """Take note of the devices that ``qom-list`` gives."""
        for entry in listing:
            kind, path = str(entry.get("type")), f"{parent}/{entry.get('name')}"
            if kind.startswith("child<vhost-vsock-"):
                self.questions.append(("qom-get", {"path": path, "property": "guest-cid"}))
            elif kind.startswith("child<vhost-user-vsock-"):
                self.vhost_user = True
            elif kind == "child<virtserialport>":
                self.questions += (
                    ("qom-get", {"path": path, "property": name}) for name in ("name", "chardev")
                )

    def learn(self, answers: Sequence[Any]) -> None:
        """Take the answers to the questions."""
        port_name = None
        for (_, asked), given in zip(self.questions, answers, strict=True):
            match asked["property"]:
                case "guest-cid":
                    self.vsock = self.vsock or Vsock(int(_good(given)), SSH_PORT)
                case "name":
                    port_name = _good(given)
                case _ if port_name == _AGENT_PORT:
                    self.agent_chardev = self.agent_chardev or str(_good(given))


def _channels(
    devices: Any, agent_device: str | None
) -> tuple[Endpoint | None, Endpoint | Path | None, bool]:
    """Return the guest agent's channel and the first serial port, where they can be reached.

    And whether there is what shares the clipboard.
    """
    agent: Endpoint | None = None
    clipboard = False
    serial: Endpoint | Path | None = None
    for device in devices:
        label, filename = str(device.get("label")), str(device.get("filename"))
        if label == agent_device:
            found = _chardev(filename)
            agent = None if isinstance(found, Path) else found
        elif serial is None and _SERIAL.fullmatch(label):
            serial = _chardev(filename)
        clipboard = clipboard or filename == _CLIPBOARD
    return agent, serial, clipboard


def _chardev(filename: str) -> Endpoint | Path | None:
    """Read what ``query-chardev`` says of a character device that others can connect to."""
    if match := _UNIX.fullmatch(filename):
        return Unix(match[1])
    if match := _TCP.fullmatch(filename):
        return Tcp(_reachable(match[1].strip("[]")), int(match[2]))
    if match := _PTY.fullmatch(filename):
        return Path(match[1])
    return None
