"""QEMU machines, found by the QMP sockets that lie in a directory.

Anybody's QEMU becomes known by ``-qmp unix:DIRECTORY/NAME.qmp,server=on,wait=off``. Beside it
may lie

``NAME.events``
    a second monitor for those who watch, so that the first stays free for questions
``NAME.vsock``
    the hybrid vsock socket of a vhost-user vsock device, which QEMU itself does not know of
``NAME.json``
    a note on how to log in to the guest: ``{"guest": {"user": ..., "identity_file": ...,
    "host_key": ..., "endpoint": "vsock-mux/PATH"}}``
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    StateError,
    VmconnectError,
)
from vmconnect.hypervisor.base import Capability, Checkpoint, Drive, Hypervisor
from vmconnect.hypervisor.checkpoints import check_name
from vmconnect.hypervisor.lookup import is_pattern, matching
from vmconnect.hypervisor.machine import Machine, PowerState
from vmconnect.hypervisor.qemu import display, storage
from vmconnect.hypervisor.qemu.description import (
    answers_checked,
    describe,
    power_state,
    unknown,
)
from vmconnect.hypervisor.qmp import QmpClient
from vmconnect.hypervisor.sockets import is_socket, sockets_in, with_permission_hint
from vmconnect.streams import Stream, Unix

if TYPE_CHECKING:
    from vmconnect.hypervisor.watch import Watch

__all__ = ["Qemu"]

_QUERY_TIMEOUT = 2.0
_AT_ONCE = 16
_LOOK_SECONDS = 0.25
_SELDOM_SECONDS = 2.0


class Qemu(Hypervisor):
    """The machines whose monitors lie in ``directory``."""

    name = "qemu"
    fields = frozenset({Capability.CONSOLE, Capability.GUEST, Capability.AGENT, Capability.SERIAL})

    def __init__(self, directory: Path):
        self._directory = directory

    def __str__(self) -> str:
        """Return what it is called in a message."""
        return f"{self.name} in {self._directory}"

    def machines(self, deadline: Deadline) -> list[Machine]:
        """Return every machine, by name; one that does not answer has state UNKNOWN.

        Sockets that nobody serves any more are left out.
        """
        sockets = self._sockets()
        if len(sockets) <= 1:
            found = [self._inspect_or_none(path, deadline) for path in sockets]
        else:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(min(_AT_ONCE, len(sockets))) as pool:
                found = list(pool.map(lambda path: self._inspect_or_none(path, deadline), sockets))
        machines = [machine for machine in found if machine is not None]
        return sorted(machines, key=lambda machine: (machine.name, machine.identity))

    def look_up(self, name: str, deadline: Deadline) -> list[Machine]:
        """Return the machines of that name, UUID or shell pattern: none, one, or several."""
        # The socket is most often named as the machine is: one question instead of many.
        path = self._directory / f"{name}.qmp"
        if not is_pattern(name) and path.name == f"{name}.qmp" and is_socket(path):
            machine = self._inspect_or_none(path, deadline)
            if machine is not None and machine.name == name:
                return [machine]
        return matching(self.machines(deadline), name)

    def inspect(self, path: Path, deadline: Deadline) -> Machine:
        """Ask the monitor at ``path`` about its machine; raises as `QmpClient` does."""
        with self._connect(path, deadline) as monitor:
            return describe(monitor, path, deadline)

    def refresh(self, machine: Machine, deadline: Deadline) -> Machine:
        """Return the machine as it is now."""
        return self.inspect(_path(machine), deadline)

    def watch(self, deadline: Deadline) -> Watch:
        """Return a watch over all machines; see `vmconnect.hypervisor.qemu.watch`."""
        from vmconnect.hypervisor.qemu.watch import QemuWatch

        return QemuWatch(self._sockets, deadline)

    def expected(self, name: str) -> Machine | None:
        """Return the machine whose QEMU was killed, or is just starting: its socket is there."""
        path = self._directory / f"{name}.qmp"
        if path.parent != self._directory or not is_socket(path):
            return None
        return replace(unknown(path, ""), state=PowerState.OFF, trouble=None)

    def find_again(
        self, machine: Machine, deadline: Deadline, *, elsewhere: bool = True
    ) -> Machine | None:
        """Return the machine at the same monitor's path, or with the same UUID at another's."""
        path, found = _path(machine), None
        try:
            found = self.inspect(path, deadline)
        except ConnectError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
        uuid = machine.uuid
        if not elsewhere or uuid is None or (found is not None and found.uuid == uuid):
            return found
        moved = (each for each in self.machines(deadline) if each.uuid == uuid)
        return next(moved, found)

    def follow(self, machine: Machine, deadline: Deadline) -> Watch:
        """Return a watch by the machine's second monitor, if it has one that nobody holds.

        Else it asks the first one now and then: that one is everybody's.
        """
        from vmconnect.hypervisor.qemu.watch import QemuWatch
        from vmconnect.hypervisor.watch import PollingWatch

        path = _path(machine)
        if is_socket(path.with_suffix(".events")):
            watch = QemuWatch(lambda: [path], deadline, second_only=True)
            if all(each.trouble is None for each in watch.machines):
                return watch
            watch.close()

        def look(until: Deadline) -> list[Machine]:
            found = self._inspect_or_none(path, until)
            return [] if found is None else [found]

        return PollingWatch(look, _LOOK_SECONDS, deadline, most=_SELDOM_SECONDS)

    def power_on(self, machine: Machine, deadline: Deadline) -> None:
        """Start a machine that was started with ``-S``, or stands after its shutdown.

        A QEMU that has ended cannot be started by its monitor, and its machine is not listed.
        """
        with self._monitor(machine, deadline) as monitor:
            status = monitor.execute("query-status", timeout=deadline)["status"]
            if status in {"shutdown", "guest-panicked"}:
                monitor.execute("system_reset", timeout=deadline)
            if status in {"shutdown", "guest-panicked", "prelaunch"}:
                monitor.execute("cont", timeout=deadline)

    def power_off(self, machine: Machine, deadline: Deadline) -> None:
        """End QEMU, and return when it has ended."""
        with self._monitor(machine, deadline) as monitor:
            _quit(monitor, deadline)

    def shut_down(self, machine: Machine, deadline: Deadline, *, wait: bool = False) -> None:
        """Press the power button; ``wait`` returns only when the machine is off."""
        with self._monitor(machine, deadline) as monitor:
            if power_state(monitor, deadline) is PowerState.PAUSED:
                raise StateError(
                    "a paused machine cannot shut down", machine=machine.name, hint="resume it"
                )
            monitor.execute("system_powerdown", timeout=deadline)
            if wait:
                # With -no-shutdown QEMU stays after the event; without, it may just be gone.
                with contextlib.suppress(ConnectionLostError):
                    monitor.wait_event("SHUTDOWN", deadline)

    def reset(self, machine: Machine, deadline: Deadline) -> None:
        """Press the reset button."""
        with self._monitor(machine, deadline) as monitor:
            monitor.execute("system_reset", timeout=deadline)

    def pause(self, machine: Machine, deadline: Deadline) -> None:
        """Stop the processors."""
        with self._monitor(machine, deadline) as monitor:
            monitor.execute("stop", timeout=deadline)

    def resume(self, machine: Machine, deadline: Deadline) -> None:
        """Let a paused machine go on."""
        with self._monitor(machine, deadline) as monitor:
            monitor.execute("cont", timeout=deadline)

    def save(self, machine: Machine, deadline: Deadline) -> None:
        """Keep the state in the machine's qcow2 disks, and end QEMU.

        The same command line with ``-loadvm vmconnect-saved`` takes it up again.
        """
        with self._monitor(machine, deadline) as monitor:
            was = power_state(monitor, deadline)
            monitor.execute("stop", timeout=deadline)
            try:
                if any(
                    each.name == storage.SAVED
                    for each in storage.list_checkpoints(monitor, deadline)
                ):
                    storage.delete_checkpoint(monitor, storage.SAVED, deadline)
                storage.create_checkpoint(monitor, storage.SAVED, deadline)
            except BaseException:
                if was is PowerState.RUNNING:
                    with contextlib.suppress(VmconnectError):
                        monitor.execute("cont", timeout=deadline)
                raise
            _quit(monitor, deadline)

    def checkpoints(self, machine: Machine, deadline: Deadline) -> list[Checkpoint]:
        """Return the checkpoints in the machine's qcow2 disks, the oldest first."""
        with self._monitor(machine, deadline) as monitor:
            return storage.list_checkpoints(monitor, deadline)

    def create_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Keep memory and disks in the qcow2 disks; the machine stands still meanwhile."""
        check_name(name)
        with self._monitor(machine, deadline) as monitor:
            storage.create_checkpoint(monitor, name, deadline)

    def apply_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Put memory and disks back; a machine that ran runs on from there."""
        with self._monitor(machine, deadline) as monitor:
            storage.apply_checkpoint(monitor, name, deadline)

    def delete_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Delete a checkpoint from every disk."""
        with self._monitor(machine, deadline) as monitor:
            storage.delete_checkpoint(monitor, name, deadline)

    def drives(self, machine: Machine, deadline: Deadline) -> list[Drive]:
        """Return the drives whose media can be changed."""
        with self._monitor(machine, deadline) as monitor:
            return storage.drives(monitor, deadline)

    def insert_medium(
        self, machine: Machine, image: Path, deadline: Deadline, *, drive: str | None = None
    ) -> None:
        """Put a raw image into a drive in place of its medium; QEMU must be able to read it."""
        with self._monitor(machine, deadline) as monitor:
            storage.insert(monitor, image.absolute(), drive, deadline)

    def eject_medium(
        self,
        machine: Machine,
        deadline: Deadline,
        *,
        drive: str | None = None,
        force: bool = False,
    ) -> None:
        """Take the medium out of a drive."""
        with self._monitor(machine, deadline) as monitor:
            storage.eject(monitor, drive, deadline, force=force)

    def screenshot(self, machine: Machine, deadline: Deadline) -> bytes:
        """Return the first screen as PNG."""
        with self._monitor(machine, deadline) as monitor:
            return display.screenshot(monitor, deadline)

    def send_keys(self, machine: Machine, scancodes: Sequence[int], deadline: Deadline) -> None:
        """Press a chord and release it."""
        with self._monitor(machine, deadline) as monitor:
            display.send_keys(monitor, scancodes, deadline)

    def open_console(self, machine: Machine, deadline: Deadline) -> Stream:
        """Return an RFB connection by ``add_client``: QEMU needs no listening port for it."""
        with self._monitor(machine, deadline) as monitor:
            return display.open_console(monitor, deadline)

    def set_console_password(
        self, machine: Machine, password: str, deadline: Deadline, *, valid_s: float | None = None
    ) -> None:
        """Set the VNC password, for that many seconds, or for good."""
        with self._monitor(machine, deadline) as monitor:
            display.set_password(monitor, password, valid_s, deadline)

    @contextlib.contextmanager
    def _connect(self, path: Path, deadline: Deadline) -> Iterator[QmpClient]:
        with with_permission_hint(path), answers_checked(path):
            client = QmpClient.connect(Unix(str(path)), deadline)
        with client:
            yield client

    @contextlib.contextmanager
    def _monitor(self, machine: Machine, deadline: Deadline) -> Iterator[QmpClient]:
        """Hold the machine's monitor, and name the machine in what goes wrong."""
        path = _path(machine)
        try:
            with self._connect(path, deadline) as monitor, answers_checked(path):
                monitor.machine = machine.name
                yield monitor
        except VmconnectError as error:
            raise error.with_machine(machine.name) from error.__cause__

    def _sockets(self) -> list[Path]:
        return sockets_in(self._directory, ".qmp")

    def _inspect_or_none(self, path: Path, deadline: Deadline) -> Machine | None:
        trouble: VmconnectError
        try:
            return self.inspect(path, deadline.sooner(_QUERY_TIMEOUT))
        except ConnectError as error:
            if not isinstance(error.__cause__, PermissionError):
                return None  # A socket file that its machine left behind.
            trouble = error
        except VmconnectError as error:
            trouble = error
        return unknown(path, str(trouble))


def _path(machine: Machine) -> Path:
    return Path(machine.target.removeprefix("qemu:"))


def _quit(monitor: QmpClient, deadline: Deadline) -> None:
    """End QEMU; its monitor closes when it is gone."""
    with contextlib.suppress(ConnectionLostError):
        monitor.execute("quit", timeout=deadline)
        while True:
            monitor.receive(deadline)
