"""Checkpoints of hypervisors that only write snapshots to files, and keep no account of them.

They lie in ``$XDG_STATE_HOME/vmconnect/checkpoints/TARGET/NAME/``, written by the hypervisor.
Such a snapshot is of memory and devices, not of disks. A guest whose memory goes back while its
disks do not destroys its file systems; so what the disks were is noted, and a checkpoint is only
applied while they are still the same.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from vmconnect.errors import ResourceError, StateError, TargetError
from vmconnect.hypervisor.base import Checkpoint
from vmconnect.hypervisor.machine import Machine
from vmconnect.paths import private_directory, state_directory

__all__ = ["SnapshotStore"]

_NOTE = "vmconnect.json"
_NOTE_BYTES = 1 << 20
_PARTIAL = ".partial"


class SnapshotStore:
    """The checkpoints of one machine."""

    def __init__(self, machine: Machine):
        self._machine = machine
        home = state_directory() / "checkpoints"
        self._directory = home / quote(machine.target, safe="")

    def checkpoints(self) -> list[Checkpoint]:
        """Return them, the oldest first; names that begin with a dot are our own affair."""
        found = []
        for path in self._paths():
            name = unquote(path.name)
            note = self._note(path)
            if note is None or name.startswith("."):
                continue
            files = (each.stat().st_size for each in path.iterdir() if each.is_file())
            found.append(Checkpoint(name, datetime.fromtimestamp(note["created"], UTC), sum(files)))
        return sorted(found, key=lambda each: (each.created, each.name))

    def begin(self, name: str) -> Path:
        """Return an empty directory for the hypervisor to write a new checkpoint to.

        Raises StateError if there is one of that name, ResourceError.
        """
        if self._path(name).exists():
            raise StateError(
                f"there is a checkpoint {name!r} already",
                machine=self._machine.name,
                hint="delete it, or take another name",
            )
        partial = self._path(name + _PARTIAL)
        self._remove(partial)
        private_directory(self._directory)
        return private_directory(partial)

    def finish(self, name: str, disks: list[str]) -> None:
        """Take what the hypervisor wrote as the checkpoint ``name``."""
        partial = self._path(name + _PARTIAL)
        note = {"created": datetime.now(UTC).timestamp(), "disks": _marks(disks)}
        try:
            (partial / _NOTE).write_text(json.dumps(note), encoding="utf-8")
            partial.rename(self._path(name))
        except OSError as error:
            raise self._failed("keep", name, error) from error

    def abandon(self, name: str) -> None:
        """Remove what `begin` made."""
        self._remove(self._path(name + _PARTIAL))

    def open(self, name: str) -> Path:
        """Return the directory of a checkpoint that may be applied now.

        Raises TargetError if there is none, StateError if a disk has been written to since.
        """
        path = self._path(name)
        note = self._note(path)
        if note is None:
            names = ", ".join(each.name for each in self.checkpoints())
            raise TargetError(
                f"there is no checkpoint {name!r}",
                machine=self._machine.name,
                hint=f"there are: {names}" if names else "there is none yet",
            )
        now = _marks([str(disk) for disk, *_ in note["disks"]])
        for then, at_present in zip(note["disks"], now, strict=True):
            if list(then) != list(at_present):
                raise StateError(
                    f"its disk {then[0]} has changed since the checkpoint {name!r}",
                    machine=self._machine.name,
                    hint="it holds memory only: put the disk back as it was, times too",
                )
        return path

    def delete(self, name: str) -> None:
        """Delete a checkpoint; raises TargetError if there is none."""
        if self._note(self._path(name)) is None:
            self.open(name)  # raises
        self._remove(self._path(name))

    def has(self, name: str) -> bool:
        """Return whether there is a checkpoint of that name."""
        return self._note(self._path(name)) is not None

    def _path(self, name: str) -> Path:
        return self._directory / quote(name, safe="")

    def _paths(self) -> list[Path]:
        try:
            return [each for each in self._directory.iterdir() if each.is_dir()]
        except OSError:
            return []

    def _note(self, path: Path) -> dict[str, Any] | None:
        if path.name.endswith(_PARTIAL):
            return None
        try:
            with (path / _NOTE).open("rb") as file:
                note = json.loads(file.read(_NOTE_BYTES))
            disks = [(str(disk), *map(int, marks)) for disk, *marks in note["disks"]]
            return {"created": float(note["created"]), "disks": disks}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _remove(self, path: Path) -> None:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._failed("delete", path.name, error) from error

    def _failed(self, verb: str, name: str, error: OSError) -> ResourceError:
        return ResourceError(
            f"cannot {verb} the checkpoint {name!r}: {error.strerror}", machine=self._machine.name
        )


def _marks(disks: list[str]) -> list[tuple[str, int, int]]:
    """Return by what a disk is known to be unchanged: size in bytes and time in nanoseconds."""
    marks = []
    for disk in sorted(disks):
        try:
            info = os.stat(disk)  # noqa: PTH116 (a string of the hypervisor's)
        except OSError:
            marks.append((disk, -1, -1))
        else:
            marks.append((disk, info.st_size, info.st_mtime_ns))
    return marks
