"""What a machine's disks and drives can be asked by QMP: checkpoints and media.

A checkpoint is a snapshot of memory and disks inside the machine's qcow2 images
(``snapshot-save``, QEMU docs/interop/qemu-qmp-ref, since 6.0); it is whole only if every disk that
the guest can write to holds it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    DeadlineError,
    HypervisorError,
    QmpError,
    UnsupportedError,
)
from vmconnect.hypervisor.base import Checkpoint, Drive
from vmconnect.hypervisor.checkpoints import find_checkpoint
from vmconnect.hypervisor.drives import choose_drive
from vmconnect.hypervisor.qmp import QmpClient

__all__ = [
    "SAVED",
    "apply_checkpoint",
    "create_checkpoint",
    "delete_checkpoint",
    "drives",
    "eject",
    "insert",
    "list_checkpoints",
]

# The name under which a saved machine lies in its own disks; -loadvm takes it up again.
SAVED = "vmconnect-saved"

_jobs = itertools.count(1)


def list_checkpoints(monitor: QmpClient, deadline: Deadline) -> list[Checkpoint]:
    """Return the checkpoints that the disk with the memory holds, the oldest first."""
    from datetime import UTC, datetime

    nodes = _blocks(monitor, deadline)
    if not nodes:
        return []
    found = []
    for snapshot in nodes[0].get("image", {}).get("snapshots", ()):
        seconds = snapshot.get("date-sec")
        created = datetime.fromtimestamp(int(seconds), UTC) if seconds else None
        size = int(snapshot.get("vm-state-size", 0))
        if size:  # without memory it is a snapshot of the disk alone: qemu-img's
            found.append(Checkpoint(str(snapshot["name"]), created, size))
    return found


def create_checkpoint(monitor: QmpClient, name: str, deadline: Deadline) -> None:
    """Keep memory and disks under ``name``; the machine stands still meanwhile."""
    nodes = _whole(monitor, deadline)
    _run_job(monitor, "snapshot-save", name, nodes, deadline, vmstate=nodes[0])


def apply_checkpoint(monitor: QmpClient, name: str, deadline: Deadline) -> None:
    """Put memory and disks back; a machine that ran runs on from there."""
    nodes = _whole(monitor, deadline)
    find_checkpoint(list_checkpoints(monitor, deadline), name, monitor.machine)
    _run_job(monitor, "snapshot-load", name, nodes, deadline, vmstate=nodes[0])


def delete_checkpoint(monitor: QmpClient, name: str, deadline: Deadline) -> None:
    """Delete it from every disk."""
    nodes = _whole(monitor, deadline)
    find_checkpoint(list_checkpoints(monitor, deadline), name, monitor.machine)
    _run_job(monitor, "snapshot-delete", name, nodes, deadline)


def _blocks(monitor: QmpClient, deadline: Deadline) -> list[dict[str, Any]]:
    """Return the qcow2 images that the guest can write to."""
    return [
        inserted
        for block in monitor.execute("query-block", timeout=deadline)
        if (inserted := block.get("inserted")) and inserted["drv"] == "qcow2" and not inserted["ro"]
    ]


def _whole(monitor: QmpClient, deadline: Deadline) -> list[str]:
    """Return the nodes of all disks that the guest can write to, if all can hold a checkpoint."""
    nodes = []
    for block in monitor.execute("query-block", timeout=deadline):
        inserted = block.get("inserted")
        if not inserted or inserted["ro"]:
            continue
        if inserted["drv"] != "qcow2":
            raise UnsupportedError(
                f"its disk {inserted.get('file')} is {inserted['drv']}, and holds no checkpoint",
                machine=monitor.machine,
                hint="convert it: qemu-img convert -O qcow2",
            )
        nodes.append(str(inserted["node-name"]))
    if not nodes:
        raise UnsupportedError(
            "it has no qcow2 disk that a checkpoint could be kept in",
            machine=monitor.machine,
            hint="add one, however small: qemu-img create -f qcow2",
        )
    return nodes


def _run_job(
    monitor: QmpClient,
    command: str,
    tag: str,
    devices: list[str],
    deadline: Deadline,
    *,
    vmstate: str | None = None,
) -> None:
    """Run a job of QEMU's to its end; raises HypervisorError with QEMU's reason."""
    job = f"vmconnect-{next(_jobs)}"
    memory = {} if vmstate is None else {"vmstate": vmstate}
    arguments: dict[str, Any] = {"job_id": job, "tag": tag, "devices": devices, **memory}
    monitor.execute(command, timeout=deadline, **arguments)
    while True:
        for entry in monitor.execute("query-jobs", timeout=deadline):
            if entry.get("id") == job and entry.get("status") == "concluded":
                monitor.execute("job-dismiss", id=job, timeout=deadline)
                if "error" in entry:
                    raise HypervisorError(
                        f"QEMU failed at {command}: {entry['error']}", machine=monitor.machine
                    )
                return
        try:
            monitor.wait_event("JOB_STATUS_CHANGE", deadline)
        except DeadlineError as error:
            error.hint = f"QEMU goes on with {command}: give it more time"
            raise


def drives(monitor: QmpClient, deadline: Deadline) -> list[Drive]:
    """Return the drives with removable media."""
    return [
        Drive(identity, str(inserted["file"]) if inserted else None, bool(block.get("locked")))
        for identity, block in _removable(monitor, deadline)
        for inserted in [block.get("inserted")]
    ]


def _removable(monitor: QmpClient, deadline: Deadline) -> Iterator[tuple[str, dict[str, Any]]]:
    for block in monitor.execute("query-block", timeout=deadline):
        if block.get("removable"):
            identity = str(block.get("qdev") or block.get("device") or "")
            if not identity:
                raise QmpError("a drive without a name", machine=monitor.machine)
            yield identity, block


def insert(monitor: QmpClient, image: Path, drive: str | None, deadline: Deadline) -> None:
    """Put ``image`` into the drive; a medium in it leaves."""
    chosen = choose_drive(drives(monitor, deadline), drive, monitor.machine)
    # The format is never guessed: an image that pretends to be qcow2 could name any file.
    monitor.execute(
        "blockdev-change-medium",
        id=chosen.id,
        filename=str(image),
        format="raw",
        read_only_mode="read-only" if image.suffix.lower() == ".iso" else "retain",
        timeout=deadline,
    )


def eject(monitor: QmpClient, drive: str | None, deadline: Deadline, *, force: bool) -> None:
    """Take the medium out."""
    chosen = choose_drive(drives(monitor, deadline), drive, monitor.machine)
    try:
        # Opening the tray of a locked drive only asks the guest; removing then fails.
        monitor.execute("eject", id=chosen.id, force=force, timeout=deadline)
    except HypervisorError as error:
        if chosen.locked and not force:
            error.hint = "the guest has locked it, and was asked; again, or with force"
        raise
