"""What the hypervisors with one API socket a machine have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor.base import Capability, Checkpoint, Hypervisor
from vmconnect.hypervisor.machine import Machine, PowerState
from vmconnect.hypervisor.place import Place
from vmconnect.hypervisor.rest.http import RestClient
from vmconnect.hypervisor.rest.snapshots import SnapshotStore
from vmconnect.hypervisor.sockets import is_socket
from vmconnect.hypervisor.watch import PollingWatch, Watch
from vmconnect.streams import SshHost

__all__ = ["RestHypervisor"]

_QUERY_TIMEOUT = 2.0
_LOOK_SECONDS = 0.5
_SELDOM_SECONDS = 2.0
_WAIT_SECONDS = 0.2
_AT_ONCE = 64


class RestHypervisor(Hypervisor):
    """The machines whose API sockets ``NAME.SUFFIX`` lie in ``directory``, here or on ``host``."""

    suffix: ClassVar[str]  # also the scheme of the targets
    here_only = frozenset(
        {
            Capability.LIST,
            Capability.WATCH,
            Capability.SAVE,
            Capability.CHECKPOINTS,
            Capability.CREATE_CHECKPOINT,
            Capability.APPLY_CHECKPOINT,
            Capability.DELETE_CHECKPOINT,
        }
    )

    def __init__(self, directory: Path, host: SshHost | None = None):
        self._place = Place(self.suffix, directory, host)

    @property
    def far(self) -> bool:
        """Whether it is on another host."""
        return self._place.far

    def __str__(self) -> str:
        """Return what it is called in a message."""
        return f"{self.name} in {self._place}"

    def inspect(self, path: Path, deadline: Deadline) -> Machine:
        """Ask the server at ``path`` about its machine."""
        raise NotImplementedError

    def machines(self, deadline: Deadline) -> list[Machine]:
        """Return every machine, by name; one that does not answer has state UNKNOWN."""
        paths = self._place.sockets(f".{self.suffix}")
        if len(paths) <= 1:
            found = [self._inspect_or_none(path, deadline) for path in paths]
        else:
            from concurrent.futures import ThreadPoolExecutor

            # One that hangs takes no time from the others.
            with ThreadPoolExecutor(min(_AT_ONCE, len(paths))) as pool:
                found = list(pool.map(lambda path: self._inspect_or_none(path, deadline), paths))
        return [machine for machine in found if machine is not None]

    def refresh(self, machine: Machine, deadline: Deadline) -> Machine:
        """Return the machine as it is now."""
        return self.inspect(self._place.path(machine), deadline)

    def watch(self, deadline: Deadline) -> Watch:
        """Return a watch that asks twice a second: these APIs have no events."""
        return PollingWatch(self.machines, _LOOK_SECONDS, deadline)

    def expected(self, name: str) -> Machine | None:
        """Return the machine whose hypervisor has ended: its socket is there."""
        place, path = self._place, self._place.directory / f"{name}.{self.suffix}"
        if place.far or path.parent != place.directory or not is_socket(path):
            return None
        return self._machine(path, name, PowerState.OFF)

    def find_again(
        self, machine: Machine, deadline: Deadline, *, elsewhere: bool = True
    ) -> Machine | None:
        """Return the machine at the same socket: there it has its identity from."""
        try:
            return self.refresh(machine, deadline)
        except ConnectError as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            return None

    def follow(self, machine: Machine, deadline: Deadline) -> Watch:
        """Return a watch that asks the one machine, the less often the longer nothing happens."""

        def look(until: Deadline) -> list[Machine]:
            found = self._inspect_or_none(self._place.path(machine), until)
            return [] if found is None else [found]

        return PollingWatch(look, _LOOK_SECONDS, deadline, most=_SELDOM_SECONDS)

    def checkpoints(self, machine: Machine, deadline: Deadline) -> list[Checkpoint]:
        """Return the checkpoints that were made by vmconnect, the oldest first."""
        del deadline  # It is our own directory that is read.
        return self._store(machine).checkpoints()

    def delete_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Delete a checkpoint's files."""
        del deadline
        self._store(machine).delete(name)

    def _machine(self, path: Path, name: str, state: PowerState) -> Machine:
        """Return a machine about which no more is known."""
        target = self._place.target(path)
        return Machine(name, target, target, hypervisor=self.name, state=state)

    def _store(self, machine: Machine) -> SnapshotStore:
        """Return where its checkpoints are; raises UnsupportedError for one of another host."""
        if self._place.far:
            raise UnsupportedError(
                f"checkpoints of {self.name} are files of its own host",
                machine=machine.name,
                hint="make and apply them there",
            )
        return SnapshotStore(machine)

    @contextmanager
    def _client(self, machine: Machine) -> Iterator[RestClient]:
        """Give the machine's client, and name the machine in what goes wrong."""
        path = self._place.path(machine)
        try:
            yield RestClient(self._place.socket(path), machine.name)
        except VmconnectError as error:
            raise error.with_machine(machine.name) from error.__cause__

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
        return replace(self._machine(path, path.stem, PowerState.UNKNOWN), trouble=str(trouble))

    def _wait_off(self, machine: Machine, deadline: Deadline) -> None:
        """Return when the machine is off, or its hypervisor has ended."""
        while True:
            try:
                if self.refresh(machine, deadline).state in {PowerState.OFF, PowerState.SAVED}:
                    return
            except (ConnectError, ConnectionLostError):
                return
            deadline.check("waiting for the guest to shut down")
            time.sleep(deadline.remaining(at_most=_WAIT_SECONDS) or 0)
