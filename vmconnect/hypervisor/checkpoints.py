"""Checkpoints by name."""

from __future__ import annotations

from collections.abc import Sequence

from vmconnect.errors import TargetError
from vmconnect.hypervisor.base import Checkpoint

__all__ = ["find_checkpoint"]


def find_checkpoint(checkpoints: Sequence[Checkpoint], name: str, machine: str) -> Checkpoint:
    """Return the one of that name, or raise TargetError with those there are."""
    for checkpoint in checkpoints:
        if checkpoint.name == name:
            return checkpoint
    names = ", ".join(each.name for each in checkpoints[-10:])
    raise TargetError(
        f"there is no checkpoint {name!r}",
        machine=machine,
        hint=f"there are: {names}" if names else "there is none yet",
    )
