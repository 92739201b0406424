"""Which hypervisor can do what, as the table in docs/hypervisors.md."""

from __future__ import annotations

from vmconnect.hypervisor import kinds
from vmconnect.hypervisor.base import Capability, Hypervisor, capabilities_of

__all__ = ["capability_table"]

_WORDS = {
    Capability.LIST: "list machines",
    Capability.LOOK_UP: "find one by name, UUID or pattern",
    Capability.WATCH: "watch them",
    Capability.POWER_ON: "power on",
    Capability.POWER_OFF: "power off",
    Capability.SHUT_DOWN: "shut down",
    Capability.RESET: "reset",
    Capability.PAUSE: "pause",
    Capability.RESUME: "resume",
    Capability.SAVE: "save: state to disk, and off",
    Capability.CHECKPOINTS: "list checkpoints",
    Capability.CREATE_CHECKPOINT: "create a checkpoint",
    Capability.APPLY_CHECKPOINT: "apply a checkpoint",
    Capability.DELETE_CHECKPOINT: "delete a checkpoint",
    Capability.DRIVES: "list drives and their media",
    Capability.INSERT_MEDIUM: "insert a medium",
    Capability.EJECT_MEDIUM: "eject a medium",
    Capability.SCREENSHOT: "screenshot without a console",
    Capability.SEND_KEYS: "press keys without a console",
    Capability.OPEN_CONSOLE: "hand over a console that listens nowhere",
    Capability.CONSOLE_PASSWORD: "set the console's password",
    Capability.ASK_AGENT: "pass requests on to the guest agent",
    Capability.CONSOLE: "tell where the console (VNC) is",
    Capability.GUEST: "tell where the guest's vsock is",
    Capability.AGENT: "tell where the guest agent's channel is",
    Capability.SERIAL: "tell where the serial port is",
}


def capability_table() -> str:
    """Return the table of all capabilities and hypervisors, in Markdown, without a last newline."""
    heads = ["", *(kind.name for kind in kinds())]
    rows = [[_WORDS[each], *(_cell(kind, each) for kind in kinds())] for each in Capability]
    rule = ["---", *(":-:" for _ in kinds())]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, rule, *rows))


def _cell(kind: type[Hypervisor], capability: Capability) -> str:
    if capability not in capabilities_of(kind):
        return "-"
    return "here" if capability in kind.here_only else "yes"
