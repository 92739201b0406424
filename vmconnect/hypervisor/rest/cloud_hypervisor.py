"""Cloud Hypervisor, by its API (vmm/src/api/openapi/cloud-hypervisor.yaml, version 0.3.0).

A machine becomes known by ``cloud-hypervisor --api-socket DIRECTORY/NAME.ch``. There is no screen
to show: the console is a serial port or virtio-console.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.errors import RestError, StateError, VmconnectError
from vmconnect.hypervisor.base import Capability
from vmconnect.hypervisor.checkpoints import check_name
from vmconnect.hypervisor.machine import Machine, PowerState
from vmconnect.hypervisor.rest.base import RestHypervisor
from vmconnect.hypervisor.rest.snapshots import SnapshotStore
from vmconnect.streams import SSH_PORT, Endpoint, HybridVsock, Unix

__all__ = ["CloudHypervisor"]

_API = "/api/v1/"
_STATES = {
    "Created": PowerState.OFF,
    "Running": PowerState.RUNNING,
    "Shutdown": PowerState.OFF,
    "Paused": PowerState.PAUSED,
    "BreakPoint": PowerState.PAUSED,
}
# A checkpoint that is no checkpoint, but where a saved machine lies.
_SAVED = ".saved"


class CloudHypervisor(RestHypervisor):
    """The machines whose API sockets lie in ``directory`` as ``NAME.ch``."""

    name = "cloud-hypervisor"
    suffix = "ch"
    fields = frozenset({Capability.GUEST, Capability.SERIAL})

    def inspect(self, path: Path, deadline: Deadline) -> Machine:
        """Ask the server at ``path`` about its machine."""
        machine = self._machine(path, path.stem, PowerState.OFF)
        with self._client(machine) as client:
            response = client.get(f"{_API}vm.info", deadline)
            if response.ok:
                return self._place.reached(_described(machine, response.json()))
            if not _has_no_machine(response.status, response.reason()):
                raise client.refused("vm.info", response)
        saved = not self._place.far and self._store(machine).has(_SAVED)
        return replace(machine, state=PowerState.SAVED if saved else PowerState.OFF)

    def power_on(self, machine: Machine, deadline: Deadline) -> None:
        """Boot the machine, or take up the saved one."""
        state = self.refresh(machine, deadline).state
        if state is PowerState.SAVED:
            store = self._store(machine)
            self._restore(machine, store.open(_SAVED), deadline, resume=True)
            store.delete(_SAVED)
        elif state is PowerState.OFF:
            self._put(machine, "vm.boot", deadline)

    def power_off(self, machine: Machine, deadline: Deadline) -> None:
        """Turn the machine off; Cloud Hypervisor stays, and can boot it again."""
        self._put(machine, "vm.shutdown", deadline)

    def shut_down(self, machine: Machine, deadline: Deadline, *, wait: bool = False) -> None:
        """Press the power button."""
        self._put(machine, "vm.power-button", deadline)
        if wait:
            self._wait_off(machine, deadline)

    def reset(self, machine: Machine, deadline: Deadline) -> None:
        """Reboot the machine, without asking its guest."""
        self._put(machine, "vm.reboot", deadline)

    def pause(self, machine: Machine, deadline: Deadline) -> None:
        """Stop the processors."""
        self._put(machine, "vm.pause", deadline)

    def resume(self, machine: Machine, deadline: Deadline) -> None:
        """Let a paused machine go on."""
        self._put(machine, "vm.resume", deadline)

    def save(self, machine: Machine, deadline: Deadline) -> None:
        """Write memory and devices to files, and remove the machine from its process."""
        store = self._store(machine)
        if store.has(_SAVED):
            store.delete(_SAVED)  # It was taken up by other hands than ours.
        self._snapshot(machine, store, _SAVED, deadline, stay=False)
        self._delete(machine, deadline)

    def create_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Write memory and devices to files; disks are not in it (see `snapshots`)."""
        check_name(name)
        self._snapshot(machine, self._store(machine), name, deadline)

    def apply_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Replace the machine by the one in the checkpoint; one that ran runs on from there."""
        source = self._store(machine).open(name)
        state = self.refresh(machine, deadline).state
        if not _is_whole(source):
            raise StateError(f"the checkpoint {name!r} lacks files", machine=machine.name)
        self._delete(machine, deadline)
        self._restore(machine, source, deadline, resume=state is PowerState.RUNNING)

    def _snapshot(
        self,
        machine: Machine,
        store: SnapshotStore,
        name: str,
        deadline: Deadline,
        *,
        stay: bool = True,
    ) -> None:
        """Write a snapshot of a machine that stands still; if it ran, it goes on if it stays."""
        ran = self.refresh(machine, deadline).state is PowerState.RUNNING
        directory = store.begin(name)
        try:
            if ran:
                self.pause(machine, deadline)
            try:
                self._put(
                    machine, "vm.snapshot", deadline, {"destination_url": f"file://{directory}"}
                )
                store.finish(name, self._disks(machine, deadline))
            except BaseException:
                if ran:
                    with contextlib.suppress(VmconnectError):
                        self.resume(machine, deadline)
                raise
        except BaseException:
            store.abandon(name)
            raise
        if ran and stay:
            self.resume(machine, deadline)

    def _restore(self, machine: Machine, source: Path, deadline: Deadline, *, resume: bool) -> None:
        self._put(machine, "vm.restore", deadline, {"source_url": f"file://{source}"})
        if resume:
            self.resume(machine, deadline)

    def _delete(self, machine: Machine, deadline: Deadline) -> None:
        """Remove the machine from its process, if there is one in it."""
        with self._client(machine) as client:
            if client.get(f"{_API}vm.info", deadline).ok:
                client.send("PUT", f"{_API}vm.delete", None, deadline)

    def _disks(self, machine: Machine, deadline: Deadline) -> list[str]:
        with self._client(machine) as client:
            response = client.get(f"{_API}vm.info", deadline)
            if not response.ok:
                raise client.refused("vm.info", response)
            disks = _table(response.json(), "config").get("disks") or []
            if not isinstance(disks, list):
                raise RestError("vm.info has disks that are no list")
            return [
                str(disk["path"])
                for disk in disks
                if isinstance(disk, dict) and disk.get("path") and not disk.get("readonly")
            ]

    def _put(
        self,
        machine: Machine,
        resource: str,
        deadline: Deadline,
        body: dict[str, Any] | None = None,
    ) -> None:
        with self._client(machine) as client:
            client.send("PUT", f"{_API}{resource}", body, deadline)


def _described(machine: Machine, info: dict[str, Any]) -> Machine:
    config = _table(info, "config")
    platform = _table(config, "platform")
    uuid = platform.get("system_uuid") or platform.get("uuid")
    uuid = uuid if isinstance(uuid, str) and uuid else None
    vsock = _table(config, "vsock").get("socket")
    guest: Endpoint | None = None
    if isinstance(vsock, str) and vsock.startswith("/"):
        guest = HybridVsock(vsock, SSH_PORT)
    return replace(
        machine,
        identity=uuid or machine.identity,
        uuid=uuid,
        state=_STATES.get(str(info.get("state")), PowerState.UNKNOWN),
        guest=guest,
        serial=_terminal(config, "serial") or _terminal(config, "console"),
    )


def _terminal(config: dict[str, Any], kind: str) -> Endpoint | Path | None:
    """Return where a serial port or virtio-console leads."""
    terminal = _table(config, kind)
    socket, file = terminal.get("socket"), terminal.get("file")
    match terminal.get("mode"):
        case "Socket" if isinstance(socket, str) and socket.startswith("/"):
            return Unix(socket)
        case "Pty" | "File" if isinstance(file, str) and file.startswith("/"):
            return Path(file)
    return None


def _table(value: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a member that is an object, {} if there is none; RestError if it is another thing."""
    found = value.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RestError(f"vm.info has a {key} that is no object")
    return found


def _has_no_machine(status: int, reason: str) -> bool:
    # 404 by the document; releases before 38 answered 500 with these words.
    return status == 404 or (status == 500 and "not created" in reason.lower())


def _is_whole(source: Path) -> bool:
    return (source / "config.json").is_file() and (source / "state.json").is_file()
