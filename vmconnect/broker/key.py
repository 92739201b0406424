"""Which commands may use the same session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vmconnect.hypervisor import GuestNote, Machine
from vmconnect.mark import Mark
from vmconnect.streams import Endpoint, HybridVsock

__all__ = ["SessionKey"]


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Who has logged in where: only a command with the same key may use a session.

    ``place`` is the mark of the socket to the guest, so that another device that has since bound
    the same path is another place. ``agent`` is the socket of the ssh-agent that was asked.
    """

    identity: str
    name: str
    target: str
    endpoint: Endpoint | None
    place: Mark | None
    note: GuestNote
    user: str | None
    identity_files: tuple[Path, ...]
    agent: str

    @classmethod
    def of(
        cls, machine: Machine, user: str | None, identity_files: tuple[Path, ...], agent: str
    ) -> Self:
        """Return the key of a machine as it was found just now, and of a way to log in there."""
        # Of a context id that goes the kernel itself ends the connections.
        return cls(
            machine.identity,
            machine.name,
            machine.target,
            machine.guest,
            Mark.of([machine.guest.path]) if isinstance(machine.guest, HybridVsock) else None,
            machine.note,
            user,
            identity_files,
            agent,
        )

    def is_called(self, name: str) -> bool:
        """Return whether ``name`` is the machine's name, UUID or target."""
        return name in {self.name, self.identity, self.target}
