"""Events of QEMU machines.

A monitor that is watched is held: QEMU serves one client a monitor. So a machine that is to be
watched, and asked by others meanwhile, should have a second one beside ``NAME.qmp``::

    -qmp unix:DIRECTORY/NAME.events,server=on,wait=off

Where there is none, the only one is held for as long as the watch lasts.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path

from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import ClosedError, DeadlineError, VmconnectError
from vmconnect.hypervisor.machine import Machine
from vmconnect.hypervisor.place import Place
from vmconnect.hypervisor.qemu.description import describe, unknown
from vmconnect.hypervisor.qmp import QmpClient, QmpEvent
from vmconnect.hypervisor.sockets import is_socket
from vmconnect.hypervisor.watch import EventKind, MachineEvent, Watch
from vmconnect.streams import SocketStream, Unix, dial_at_once

__all__ = ["QemuWatch"]

# How often the directory is looked at for machines that have come. Theirs are no events of QEMU's.
_DIRECTORY_SECONDS = 1.0
# The same, where it is one machine alone that is looked for.
_MACHINE_SECONDS = 0.2
_ATTACH_SECONDS = 2.0
# A monitor that nobody holds greets at once: QEMU's main loop has nothing else to do.
_GREETING_SECONDS = 0.3

_KINDS = {
    "RESET": EventKind.RESET,
    "SHUTDOWN": EventKind.STOPPED,
    "STOP": EventKind.PAUSED,
    "RESUME": EventKind.RESUMED,
    "POWERDOWN": EventKind.SHUTDOWN_ASKED,
    "GUEST_PANICKED": EventKind.CRASHED,
}


class QemuWatch(Watch):
    """Events of all machines whose monitors are in ``place``, also of those that come later.

    With ``only`` it is the one machine whose monitor is there, if it has a second one.
    """

    def __init__(self, place: Place, deadline: Deadline, *, only: Path | None = None):
        self._place = place
        self._only = only
        self._period = _MACHINE_SECONDS if only else _DIRECTORY_SECONDS
        self._scope = CancelScope()
        self._selector = selectors.DefaultSelector()
        self._attached: dict[Path, tuple[QmpClient, Machine]] = {}
        self._waiting: dict[Path, SocketStream] = {}
        self._busy: set[Path] = set()  # Those that took no call when they were last dialled.
        self._found: deque[MachineEvent] = deque()
        self._wake_read, self._wake_write = os.pipe()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        try:
            self._look()
            while self._waiting and (ready := self._selector.select(_GREETING_SECONDS)):
                for key, _ in ready:
                    deadline.check("attaching to QEMU's monitors")
                    self._read(key.data)
        except BaseException:
            self.close()
            raise
        self._found.clear()  # Those were there before.
        described = [_warned(path, machine) for path, (_, machine) in self._attached.items()]
        held = [
            unknown(path, place, "another program holds its monitor")
            for path in (*self._waiting, *self._busy)
        ]
        self.machines = sorted([*described, *held], key=lambda each: (each.name, each.identity))

    def next(self, timeout: Deadline | float | None = None) -> MachineEvent:
        """Return the next event; raises DeadlineError, and ClosedError once it is closed."""
        deadline = Deadline.of(timeout)
        with self._lock:
            while not self._found:
                if self._closing.is_set():
                    self._free()
                    raise ClosedError("the watch is closed")
                if deadline.passed:
                    raise DeadlineError("nothing happened in time")
                ready = self._selector.select(deadline.remaining(at_most=self._period))
                for key, _ in ready:
                    if key.data is not None:
                        self._read(key.data)
                if not ready:
                    self._look()
            return self._found.popleft()

    def close(self) -> None:
        """End the watch, let go of the monitors, and wake whoever waits."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._scope.cancel()
        os.write(self._wake_write, b"x")
        if self._lock.acquire(blocking=False):  # else whoever waits in `next` clears up
            try:
                self._free()
            finally:
                self._lock.release()

    def _free(self) -> None:
        for client, _ in self._attached.values():
            client.close()
        for stream in self._waiting.values():
            stream.close()
        self._waiting.clear()
        self._attached.clear()
        if self._wake_read >= 0:
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1

    def _look(self) -> None:
        """Attach to the machines that have come."""
        for path in [self._only] if self._only else self._place.sockets(".qmp"):
            if path not in self._attached and path not in self._waiting:
                self._attach(path)

    def _attach(self, path: Path) -> None:
        events = path.with_suffix(".events")
        if self._only and not is_socket(events):
            return
        self._busy.discard(path)
        try:
            stream = dial_at_once(Unix(str(events if is_socket(events) else path)))
        except VmconnectError:
            return  # A socket that its machine left behind; the next look tries again.
        if stream is None:
            self._busy.add(path)
            return
        # A monitor that somebody else holds greets when it is free: others' events go first.
        self._waiting[path] = stream
        self._selector.register(stream, selectors.EVENT_READ, path)

    def _greet(self, path: Path) -> None:
        stream = self._waiting.pop(path)
        self._selector.unregister(stream)
        deadline = self._scope.deadline(_ATTACH_SECONDS)
        try:
            client = QmpClient(stream, str(path), deadline)
        except VmconnectError:
            return  # It is closed; the next look tries again.
        try:
            machine = describe(client, path, self._place, deadline)
        except VmconnectError:
            client.close()
            return
        self._attached[path] = client, machine
        self._selector.register(client, selectors.EVENT_READ, path)
        self._tell(EventKind.APPEARED, machine)
        self._drain(client, machine)

    def _read(self, path: Path) -> None:
        if path in self._waiting:
            self._greet(path)
            return
        client, machine = self._attached[path]
        try:
            client.receive(self._scope.deadline(_ATTACH_SECONDS))
        except VmconnectError:
            self._drain(client, machine)
            self._selector.unregister(client)
            client.close()
            del self._attached[path]
            self._tell(EventKind.GONE, machine)
            return
        self._drain(client, machine)

    def _drain(self, client: QmpClient, machine: Machine) -> None:
        while client.events:
            event: QmpEvent = client.events.popleft()
            kind = _KINDS.get(event.name)
            if kind is not None:
                self._tell(kind, machine)

    def _tell(self, kind: EventKind, machine: Machine) -> None:
        self._found.append(MachineEvent(kind, machine.name, machine.identity))


def _warned(path: Path, machine: Machine) -> Machine:
    """Return the machine with word of it if its only monitor is the one that is held."""
    events = path.with_suffix(".events")
    if is_socket(events):
        return machine
    return replace(
        machine,
        trouble="whoever else asks its monitor has to wait while it is watched "
        f"(give QEMU a second one: -qmp unix:{events},server=on,wait=off)",
    )
