"""Checkpoints by name."""

from __future__ import annotations

from collections.abc import Sequence

from vmconnect.errors import TargetError
from vmconnect.hypervisor.base import Checkpoint

__all__ = ["check_name", "find_checkpoint"]

_NAME_CHARACTERS = 64


def check_name(name: str) -> None:
    """Raise TargetError unless ``name`` is one that every hypervisor can keep."""
    fits = 0 < len(name) <= _NAME_CHARACTERS and name.isprintable()
    if not fits or name[0] in ".-" or "/" in name:
        raise TargetError(
            f"{name[:_NAME_CHARACTERS]!r} is no name for a checkpoint",
            hint=f"1 to {_NAME_CHARACTERS} printable characters, no / and no . or - in front",
        )


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
