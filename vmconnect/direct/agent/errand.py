"""Errands: small programs that are run in a guest on the way to something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.answer import shown
from vmconnect.direct.agent.program import Program
from vmconnect.errors import GuestError

if TYPE_CHECKING:
    from vmconnect.direct.agent.guest_agent import GuestAgent

__all__ = ["checked"]

_REASON_CHARACTERS = 300


def checked(agent: GuestAgent, argv: Sequence[str], deadline: Deadline) -> bytes:
    """Run a program that is to succeed, and return its output.

    Raises GuestError with what it says if it does not.
    """
    program = Program.start(agent, argv, deadline, grouped=False)
    status = program.wait(deadline) if isinstance(program, Program) else program
    if status.exit_code != 0:
        said = status.stderr.decode("utf-8", "replace").strip()
        reason = shown(said.rpartition("\n")[2], _REASON_CHARACTERS) or f"{argv[0]} failed"
        raise GuestError(reason, machine=agent.machine)
    return status.stdout
