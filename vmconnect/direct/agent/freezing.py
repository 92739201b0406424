"""File systems of a guest that are held still, and let go again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.answer import number_in
from vmconnect.errors import AgentError, DeadlineError, VmconnectError

if TYPE_CHECKING:
    from vmconnect.direct.agent.guest_agent import GuestAgent

__all__ = ["freeze", "freeze_status", "thaw"]

_MOST = 1 << 31
_TRY_SECONDS = 15.0
_MOST_SENSELESS = 3


def freeze(agent: GuestAgent, mountpoints: Sequence[str] | None, deadline: Deadline) -> int:
    """Freeze the file systems that are mounted there, or all, and return how many are."""
    if mountpoints is None:
        command = "guest-fsfreeze-freeze"
        return number_in(agent.execute(command, timeout=deadline), _MOST, command)
    command = "guest-fsfreeze-freeze-list"
    answer = agent.execute(command, mountpoints=[*mountpoints], timeout=deadline)
    return number_in(answer, _MOST, command)


def thaw(agent: GuestAgent, deadline: Deadline) -> int:
    """Thaw what is frozen, and return how many were; an agent that is late is told again.

    The error, if there must be one, tells that the guest stands still.
    """
    command = "guest-fsfreeze-thaw"
    senseless = 0
    try:
        while True:
            try:
                answer = agent.execute(command, timeout=deadline.sooner(_TRY_SECONDS))
                return number_in(answer, _MOST, command)
            except (DeadlineError, AgentError) as error:
                senseless += isinstance(error, AgentError)
                if deadline.passed or senseless >= _MOST_SENSELESS:
                    raise
    except VmconnectError as error:
        error.message = f"its file systems may still be frozen: {error.message}"
        error.hint = f"vmconnect agent thaw {agent.machine}"
        raise


def freeze_status(agent: GuestAgent, deadline: Deadline) -> Literal["frozen", "thawed"]:
    """Return whether any file system is frozen by the agent."""
    command = "guest-fsfreeze-status"
    status = agent.execute(command, timeout=deadline)
    if status == "frozen":
        return "frozen"
    if status == "thawed":
        return "thawed"
    raise AgentError(f"a senseless answer to {command}", machine=agent.machine)
