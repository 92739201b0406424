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
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor.base import Capability, Checkpoint, Drive, Hypervisor
from vmconnect.hypervisor.checkpoints import check_name
from vmconnect.hypervisor.lookup import is_pattern, matching
from vmconnect.hypervisor.machine import Machine, PowerState
from vmconnect.hypervisor.place import Place
from vmconnect.hypervisor.qemu import display, storage, virtio
from vmconnect.hypervisor.qemu.description import (
    answers_checked,
    describe,
    power_state,
    unknown,
)
from vmconnect.hypervisor.qemu.survey import survey
from vmconnect.hypervisor.qmp import QmpClient
from vmconnect.hypervisor.sockets import is_socket
from vmconnect.hypervisor.vsock_state import VsockState
from vmconnect.mark import Mark
from vmconnect.secret import Secret
from vmconnect.streams import Stream

if TYPE_CHECKING:
    from vmconnect.hypervisor.watch import Watch
    from vmconnect.streams import SshHost

__all__ = ["Qemu"]

_QUERY_TIMEOUT = 2.0
_LOOK_SECONDS = 0.25
_SELDOM_SECONDS = 2.0


class Qemu(Hypervisor):
    """The machines whose monitors lie in ``directory``, of this host or of another."""

    name = "qemu"
    fields = frozenset({Capability.CONSOLE, Capability.GUEST, Capability.AGENT, Capability.SERIAL})
    here_only = frozenset(
        {Capability.LIST, Capability.WATCH, Capability.SCREENSHOT, Capability.OPEN_CONSOLE}
    )

    def __init__(self, directory: Path, host: SshHost | None = None):
        self._place = Place("qemu", directory, host)

    @property
    def far(self) -> bool:
        """Whether it is on another host."""
        return self._place.far

    def __str__(self) -> str:
        """Return what it is called in a message."""
        return f"{self.name} in {self._place}"

    def machines(self, deadline: Deadline) -> list[Machine]:
        """Return every machine, by name; one that does not answer has state UNKNOWN.

        Sockets that nobody serves any more are left out.
        """
        return sorted(
            self._survey(self._sockets(), deadline),
            key=lambda machine: (machine.name, machine.identity),
        )

    def look_up(self, name: str, deadline: Deadline) -> list[Machine]:
        """Return the machines of that name, UUID or shell pattern: none, one, or several."""
        # The socket is most often named as the machine is: one question instead of many.
        path = self._place.directory / f"{name}.qmp"
        single = not is_pattern(name) and path.name == f"{name}.qmp"
        if single and (self._place.far or is_socket(path)):
            found = self._survey([path], deadline)
            if found and found[0].name == name:
                return found
        return matching(self.machines(deadline), name)

    def inspect(self, path: Path, deadline: Deadline) -> Machine:
        """Ask the monitor at ``path`` about its machine; raises as `QmpClient` does."""
        with self._connect(path, deadline) as monitor:
            return describe(monitor, path, self._place, deadline)

    def mark(self, machine: Machine, name: str | None = None) -> Mark | None:
        """Return the mark of the monitor's socket, and of what may lie beside it.

        A socket is one QEMU's for as long as it is the same, and a QEMU keeps its name and UUID.
        """
        if self._place.far:
            return None
        path = self._place.path(machine)
        if path.parent != self._place.directory or name not in {None, path.stem}:
            return None
        return Mark.of(path.with_suffix(suffix) for suffix in (".qmp", ".json", ".vsock"))

    def refresh(self, machine: Machine, deadline: Deadline) -> Machine:
        """Return the machine as it is now."""
        return self.inspect(self._place.path(machine), deadline)

    def watch(self, deadline: Deadline) -> Watch:
        """Return a watch over all machines; see `vmconnect.hypervisor.qemu.watch`."""
        from vmconnect.hypervisor.qemu.watch import QemuWatch

        return QemuWatch(self._place, deadline)

    def expected(self, name: str) -> Machine | None:
        """Return the machine whose QEMU was killed, or is just starting: its socket is there."""
        place, path = self._place, self._place.directory / f"{name}.qmp"
        if place.far or path.parent != place.directory or not is_socket(path):
            return None
        return replace(unknown(path, place, ""), state=PowerState.OFF, trouble=None)

    def find_again(
        self, machine: Machine, deadline: Deadline, *, elsewhere: bool = True
    ) -> Machine | None:
        """Return the machine at the same monitor's path, or with the same UUID at another's."""
        path, found = self._place.path(machine), None
        try:
            found = self.inspect(path, deadline)
        except ConnectError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
        uuid = machine.uuid
        here = found is not None and found.uuid == uuid
        if not elsewhere or uuid is None or here or self._place.far:
            return found
        moved = (each for each in self.machines(deadline) if each.uuid == uuid)
        return next(moved, found)

    def follow(self, machine: Machine, deadline: Deadline) -> Watch:
        """Return a watch by the machine's second monitor, if it has one that nobody holds.

        Else it asks the first one now and then: that one is everybody's.
        """
        from vmconnect.hypervisor.qemu.watch import QemuWatch
        from vmconnect.hypervisor.watch import PollingWatch

        path = self._place.path(machine)
        if not self._place.far and is_socket(path.with_suffix(".events")):
            watch = QemuWatch(self._place, deadline, only=path)
            if all(each.trouble is None for each in watch.machines):
                return watch
            watch.close()

        def look(until: Deadline) -> list[Machine]:
            found = self._served(path, self._inspected(path, until.sooner(_QUERY_TIMEOUT)))
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
        self,
        machine: Machine,
        password: Secret | str,
        deadline: Deadline,
        *,
        valid_s: float | None = None,
    ) -> None:
        """Set the VNC password, for that many seconds, or for good."""
        password = Secret.of(password)
        with self._monitor(machine, deadline) as monitor:
            display.set_password(monitor, password, valid_s, deadline)

    def vsock_state(self, machine: Machine, deadline: Deadline) -> VsockState | None:
        """Return how far the machine's vsock has come; None from a QEMU before 7.2."""
        try:
            with self._monitor(machine, deadline) as monitor:
                return virtio.vsock_state(monitor, deadline)
        except UnsupportedError:
            return None

    @contextlib.contextmanager
    def _connect(self, path: Path, deadline: Deadline) -> Iterator[QmpClient]:
        with answers_checked(path):
            client = QmpClient.connect(self._place.socket(path), deadline)
        with client:
            yield client

    @contextlib.contextmanager
    def _monitor(self, machine: Machine, deadline: Deadline) -> Iterator[QmpClient]:
        """Hold the machine's monitor, and name the machine in what goes wrong."""
        path = self._place.path(machine)
        try:
            with self._connect(path, deadline) as monitor, answers_checked(path):
                monitor.machine = machine.name
                yield monitor
        except VmconnectError as error:
            raise error.with_machine(machine.name) from error.__cause__

    def _sockets(self) -> list[Path]:
        return self._place.sockets(".qmp")

    def _survey(self, paths: Sequence[Path], deadline: Deadline) -> list[Machine]:
        """Return the machines of the monitors that somebody serves."""
        answers: Sequence[Machine | VmconnectError]
        if self._place.far:
            answers = [self._inspected(path, deadline) for path in paths]
        else:
            answers = survey(paths, self._place, deadline, _QUERY_TIMEOUT)
        found = (self._served(path, answer) for path, answer in zip(paths, answers, strict=True))
        return [machine for machine in found if machine is not None]

    def _served(self, path: Path, answer: Machine | VmconnectError) -> Machine | None:
        """Return the machine of a monitor by what it answered; None if nobody serves it."""
        if isinstance(answer, Machine):
            return answer
        if isinstance(answer, ConnectError) and not isinstance(answer.__cause__, PermissionError):
            return None  # A socket file that its machine left behind.
        return unknown(path, self._place, str(answer))

    def _inspected(self, path: Path, deadline: Deadline) -> Machine | VmconnectError:
        """Return what a monitor on another host says, or what went wrong."""
        try:
            return self.inspect(path, deadline)
        except VmconnectError as error:
            return error


def _quit(monitor: QmpClient, deadline: Deadline) -> None:
    """End QEMU; its monitor closes when it is gone."""
    with contextlib.suppress(ConnectionLostError):
        monitor.execute("quit", timeout=deadline)
        while True:
            monitor.receive(deadline)
