"""What an agent's error means."""

from __future__ import annotations

from typing import Any

from vmconnect.direct.agent.answer import shown
from vmconnect.direct.agent.versions import SINCE
from vmconnect.errors import AgentError, GuestError, UnsupportedError, VmconnectError

__all__ = ["refusal"]

_REASON_CHARACTERS = 300
# qemu-ga permits next to nothing while file systems are frozen: it would hang on its own log.
_FROZEN = "agent is in frozen state"
_DISABLED = "has been disabled"
_UNSUPPORTED = "command is not currently supported"


def refusal(command: str, error: Any, machine: str) -> VmconnectError:
    """Return what is to be raised for the ``error`` that answers ``command``."""
    if not isinstance(error, dict):
        return AgentError(f"an answer to {command} that is none", machine=machine)
    reason = shown(error.get("desc"), _REASON_CHARACTERS)
    if _FROZEN in reason:
        return GuestError(
            f"its guest agent does not do {command} while its file systems are frozen",
            machine=machine,
            hint=f"vmconnect agent thaw {machine}",
        )
    if _DISABLED in reason:
        return UnsupportedError(
            f"its guest agent does not permit {command}",
            machine=machine,
            hint="see --block-rpcs and --allow-rpcs in the guest's configuration of qemu-ga",
        )
    if error.get("class") == "CommandNotFound" or _UNSUPPORTED in reason:
        since = SINCE.get(command)
        return UnsupportedError(
            f"its guest agent has no {command}",
            machine=machine,
            hint=f"QEMU {since} brought it, not for every system" if since else None,
        )
    return GuestError(f"its guest agent refused {command}: {reason}", machine=machine)
