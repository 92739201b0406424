"""Drives by name."""

from __future__ import annotations

from collections.abc import Sequence

from vmconnect.errors import TargetError, UnsupportedError
from vmconnect.hypervisor.base import Drive

__all__ = ["choose_drive"]


def choose_drive(known: Sequence[Drive], wanted: str | None, machine: str) -> Drive:
    """Return the drive that is wanted, or the only one; TargetError, UnsupportedError."""
    if not known:
        raise UnsupportedError(
            "it has no drive for removable media", machine=machine, hint="give it a CD-ROM drive"
        )
    found = [each for each in known if wanted in {None, each.id}]
    if len(found) == 1:
        return found[0]
    raise TargetError(
        f"there is no drive {wanted!r}" if wanted else f"it has {len(known)} drives",
        machine=machine,
        hint="say which: " + ", ".join(each.id for each in known),
    )
