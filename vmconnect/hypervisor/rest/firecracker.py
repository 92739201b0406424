"""Firecracker, by its API (src/firecracker/swagger/firecracker.yaml, version 1.17).

A machine becomes known by ``firecracker --api-sock DIRECTORY/NAME.fc``. Firecracker ends with its
machine: what is off is gone, and only a fresh process takes a checkpoint. It has no screen, and
tells nobody where its serial port leads.
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
from vmconnect.streams import SSH_PORT, HybridVsock

__all__ = ["Firecracker"]

_STATES = {
    "Not started": PowerState.OFF,
    "Running": PowerState.RUNNING,
    "Paused": PowerState.PAUSED,
}
# What a microVM is called when nobody gave it an id.
_ANONYMOUS = "anonymous-instance"
_STATE_FILE, _MEMORY_FILE = "state", "memory"


class Firecracker(RestHypervisor):
    """The machines whose API sockets lie in ``directory`` as ``NAME.fc``."""

    name = "firecracker"
    suffix = "fc"
    fields = frozenset({Capability.GUEST})

    def inspect(self, path: Path, deadline: Deadline) -> Machine:
        """Ask the server at ``path`` about its machine."""
        machine = self._machine(path, path.stem, PowerState.UNKNOWN)
        with self._client(machine) as client:
            response = client.get("/", deadline)
            if not response.ok:
                raise client.refused("/", response)
            info = response.json()
        name = info.get("id")
        vsock = self._config(machine, deadline).get("vsock")
        socket = vsock.get("uds_path") if isinstance(vsock, dict) else None
        absolute = isinstance(socket, str) and socket.startswith("/")
        machine = replace(
            machine,
            name=name if isinstance(name, str) and name not in {"", _ANONYMOUS} else machine.name,
            state=_STATES.get(str(info.get("state")), PowerState.UNKNOWN),
            guest=HybridVsock(str(socket), SSH_PORT) if absolute else None,
        )
        return self._place.reached(machine)

    def power_on(self, machine: Machine, deadline: Deadline) -> None:
        """Start a machine that is configured, and has not been started."""
        if self.refresh(machine, deadline).state is PowerState.OFF:
            self._send(machine, "PUT", "/actions", {"action_type": "InstanceStart"}, deadline)

    def shut_down(self, machine: Machine, deadline: Deadline, *, wait: bool = False) -> None:
        """Press Ctrl-Alt-Del (the power button on aarch64); Firecracker ends with its guest."""
        self._send(machine, "PUT", "/actions", {"action_type": "SendCtrlAltDel"}, deadline)
        if wait:
            self._wait_off(machine, deadline)

    def pause(self, machine: Machine, deadline: Deadline) -> None:
        """Stop the processors."""
        self._send(machine, "PATCH", "/vm", {"state": "Paused"}, deadline)

    def resume(self, machine: Machine, deadline: Deadline) -> None:
        """Let a paused machine go on."""
        self._send(machine, "PATCH", "/vm", {"state": "Resumed"}, deadline)

    def create_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Write memory and devices to files; disks are not in it (see `snapshots`)."""
        check_name(name)
        ran = self.refresh(machine, deadline).state is PowerState.RUNNING
        store = self._store(machine)
        directory = store.begin(name)
        body = {
            "snapshot_type": "Full",
            "snapshot_path": str(directory / _STATE_FILE),
            "mem_file_path": str(directory / _MEMORY_FILE),
        }
        try:
            if ran:
                self.pause(machine, deadline)
            try:
                self._send(machine, "PUT", "/snapshot/create", body, deadline)
                store.finish(name, self._disks(machine, deadline))
            finally:
                if ran:
                    with contextlib.suppress(VmconnectError):
                        self.resume(machine, deadline)
        except BaseException:
            store.abandon(name)
            raise

    def apply_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Load a checkpoint into a fresh Firecracker at the same socket, and let it run."""
        source = self._store(machine).open(name)
        if self.refresh(machine, deadline).state is not PowerState.OFF:
            raise StateError(
                "only a Firecracker that has not started takes a checkpoint",
                machine=machine.name,
                hint="start a new one at this socket, and apply it there",
            )
        body = {
            "snapshot_path": str(source / _STATE_FILE),
            "mem_backend": {"backend_type": "File", "backend_path": str(source / _MEMORY_FILE)},
            "resume_vm": True,
        }
        self._send(machine, "PUT", "/snapshot/load", body, deadline)

    def _disks(self, machine: Machine, deadline: Deadline) -> list[str]:
        drives = self._config(machine, deadline).get("drives") or []
        if not isinstance(drives, list):
            raise RestError("/vm/config has drives that are no list", machine=machine.name)
        return [
            str(drive["path_on_host"])
            for drive in drives
            if isinstance(drive, dict)
            and drive.get("path_on_host")
            and not drive.get("is_read_only")
        ]

    def _config(self, machine: Machine, deadline: Deadline) -> dict[str, Any]:
        """Return the machine's configuration, {} from a Firecracker that does not tell it."""
        with self._client(machine) as client:
            response = client.get("/vm/config", deadline)
            return response.json() if response.ok else {}

    def _send(
        self, machine: Machine, method: str, resource: str, body: dict[str, Any], deadline: Deadline
    ) -> None:
        with self._client(machine) as client:
            client.send(method, resource, body, deadline)
