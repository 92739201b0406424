"""The one interface of all hypervisors: what can be asked of a place where machines run.

A hypervisor does what its class overrides, and says so in `Hypervisor.capabilities`; everything
else raises CapabilityError, which says that it is lacking. So the table in docs/hypervisors.md is
read off the classes (`vmconnect.hypervisor.table`).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NoReturn

from vmconnect.closing import Closing
from vmconnect.deadline import Deadline
from vmconnect.errors import CapabilityError, UnsupportedError
from vmconnect.hypervisor.lookup import matching
from vmconnect.hypervisor.machine import Machine

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from vmconnect.hypervisor.vsock_state import VsockState
    from vmconnect.hypervisor.watch import Watch
    from vmconnect.mark import Mark
    from vmconnect.secret import Secret
    from vmconnect.streams import Stream

__all__ = ["Capability", "Checkpoint", "Drive", "Hypervisor"]


class Capability(enum.Enum):
    """Something that a hypervisor may be able to do; the value is the method's name.

    The last four are fields of `Machine`: what of a machine the hypervisor can tell.
    """

    LIST = "machines"
    LOOK_UP = "look_up"
    WATCH = "watch"
    POWER_ON = "power_on"
    POWER_OFF = "power_off"
    SHUT_DOWN = "shut_down"
    RESET = "reset"
    PAUSE = "pause"
    RESUME = "resume"
    SAVE = "save"
    CHECKPOINTS = "checkpoints"
    CREATE_CHECKPOINT = "create_checkpoint"
    APPLY_CHECKPOINT = "apply_checkpoint"
    DELETE_CHECKPOINT = "delete_checkpoint"
    DRIVES = "drives"
    INSERT_MEDIUM = "insert_medium"
    EJECT_MEDIUM = "eject_medium"
    SCREENSHOT = "screenshot"
    SEND_KEYS = "send_keys"
    OPEN_CONSOLE = "open_console"
    CONSOLE_PASSWORD = "set_console_password"  # noqa: S105 (a method's name)
    ASK_AGENT = "ask_agent"
    CONSOLE = "console"
    GUEST = "guest"
    AGENT = "agent"
    SERIAL = "serial"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of a machine that can be gone back to.

    ``size`` is that of the memory in bytes, where it is known; ``current`` whether the machine's
    present state came from it, where the hypervisor keeps account of that.
    """

    name: str
    created: datetime | None = None
    size: int | None = None
    current: bool = False


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive whose medium can be changed; ``medium`` is the inserted image's path.

    A ``locked`` drive is one whose guest has asked that its medium not be taken.
    """

    id: str
    medium: str | None = None
    locked: bool = False


class Hypervisor(Closing):
    """A place where machines run.

    Every method takes a `Deadline` and raises DeadlineError when the hypervisor does not answer
    within it, ConnectError when it cannot be reached, HypervisorError when it refuses,
    CapabilityError when it has no such thing at all, UnsupportedError when this machine has not,
    and a ProtocolError when what it says makes no sense.
    """

    name: ClassVar[str]
    #: The Capability members that are fields of `Machine`, and that it can fill.
    fields: ClassVar[frozenset[Capability]] = frozenset()
    #: What takes files or descriptors of its host, and raises UnsupportedError from another one.
    here_only: ClassVar[frozenset[Capability]] = frozenset()

    @property
    def far(self) -> bool:
        """Whether it is on another host."""
        return False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What can be asked of this hypervisor, from this host."""
        every = capabilities_of(type(self))
        return every - self.here_only if self.far else every

    def __str__(self) -> str:
        """Return what it is called in a message."""
        return self.name

    def close(self) -> None:
        """Let go of what is held between questions; the next question takes it anew."""

    def machines(self, deadline: Deadline) -> list[Machine]:
        """Return every machine, by name; one that does not answer has state UNKNOWN."""
        self._lacks(Capability.LIST)

    def look_up(self, name: str, deadline: Deadline) -> list[Machine]:
        """Return the machines of that name, UUID or shell pattern: none, one, or several."""
        return matching(self.machines(deadline), name)

    def inspect(self, path: Path, deadline: Deadline) -> Machine:
        """Return the machine behind the socket at ``path``, where each has a socket of its own."""
        raise UnsupportedError(f"{self.name} has one socket for all machines")

    def mark(self, machine: Machine, name: str | None = None) -> Mark | None:
        """Return what stays the same for as long as asking would tell the same of a machine.

        That is, of its identity and how its guest is reached, not of its state; with ``name``, of
        which machine `look_up` finds by it as well. None where only asking tells.
        """
        return None

    def refresh(self, machine: Machine, deadline: Deadline) -> Machine:
        """Return the machine as it is now."""
        for each in self.machines(deadline):
            if each.target == machine.target:
                return each
        return machine

    def expected(self, name: str) -> Machine | None:
        """Return the machine of that name that is off, where no more than its socket is left."""
        return None

    def find_again(
        self, machine: Machine, deadline: Deadline, *, elsewhere: bool = True
    ) -> Machine | None:
        """Return the machine as it is now, wherever it is now; None if there is none.

        Where each machine has a socket of its own it may be another machine's by now, which is
        then returned: the caller compares the identities. ``elsewhere`` looks for it at other
        sockets too.
        """
        for each in self.machines(deadline):
            if each.identity == machine.identity:
                return each
        return None

    def watch(self, deadline: Deadline) -> Watch:
        """Return a watch over all machines; it begins before this returns."""
        self._lacks(Capability.WATCH)

    def follow(self, machine: Machine, deadline: Deadline) -> Watch:
        """Return a watch over one machine, which keeps nobody from asking about it.

        It goes on when the machine ends, and tells when it is back.
        """
        from vmconnect.hypervisor.watch import MachineWatch

        return MachineWatch(self.watch(deadline), machine.identity)

    def power_on(self, machine: Machine, deadline: Deadline) -> None:
        """Start the machine, from its saved state if it has one; one that is on is left alone."""
        self._lacks(Capability.POWER_ON, machine)

    def power_off(self, machine: Machine, deadline: Deadline) -> None:
        """Pull the plug, and return when the machine is off; the guest is not asked."""
        self._lacks(Capability.POWER_OFF, machine)

    def shut_down(self, machine: Machine, deadline: Deadline, *, wait: bool = False) -> None:
        """Ask the guest to shut down; ``wait`` returns only when the machine is off."""
        self._lacks(Capability.SHUT_DOWN, machine)

    def reset(self, machine: Machine, deadline: Deadline) -> None:
        """Press the reset button."""
        self._lacks(Capability.RESET, machine)

    def pause(self, machine: Machine, deadline: Deadline) -> None:
        """Stop the processors; the machine stays in memory."""
        self._lacks(Capability.PAUSE, machine)

    def resume(self, machine: Machine, deadline: Deadline) -> None:
        """Let a paused machine go on."""
        self._lacks(Capability.RESUME, machine)

    def save(self, machine: Machine, deadline: Deadline) -> None:
        """Write the machine's state to disk and turn it off; its next start goes on there."""
        self._lacks(Capability.SAVE, machine)

    def checkpoints(self, machine: Machine, deadline: Deadline) -> list[Checkpoint]:
        """Return the machine's checkpoints, the oldest first."""
        self._lacks(Capability.CHECKPOINTS, machine)

    def create_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Keep the machine's present state under a name that no checkpoint of it has yet."""
        self._lacks(Capability.CREATE_CHECKPOINT, machine)

    def apply_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Put the machine back into a kept state; what it did since is lost."""
        self._lacks(Capability.APPLY_CHECKPOINT, machine)

    def delete_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Delete a checkpoint; the machine's present state does not change."""
        self._lacks(Capability.DELETE_CHECKPOINT, machine)

    def drives(self, machine: Machine, deadline: Deadline) -> list[Drive]:
        """Return the drives whose media can be changed."""
        self._lacks(Capability.DRIVES, machine)

    def insert_medium(
        self, machine: Machine, image: Path, deadline: Deadline, *, drive: str | None = None
    ) -> None:
        """Put a raw image (ISO, floppy), by absolute path, into a drive in place of its medium.

        ``drive`` may be left out where there is only one.
        """
        self._lacks(Capability.INSERT_MEDIUM, machine)

    def eject_medium(
        self,
        machine: Machine,
        deadline: Deadline,
        *,
        drive: str | None = None,
        force: bool = False,
    ) -> None:
        """Take the medium out of a drive; ``force`` also where the guest has locked it."""
        self._lacks(Capability.EJECT_MEDIUM, machine)

    def screenshot(self, machine: Machine, deadline: Deadline) -> bytes:
        """Return the screen as PNG, with no viewer attached."""
        self._lacks(Capability.SCREENSHOT, machine)

    def send_keys(self, machine: Machine, scancodes: Sequence[int], deadline: Deadline) -> None:
        """Press keys one after the other and release them, all together as one chord.

        ``scancodes`` are of XT set 1 (QEMU's qnum): 1 to 127, plus 128 for those with the prefix
        0xe0.
        """
        self._lacks(Capability.SEND_KEYS, machine)

    def open_console(self, machine: Machine, deadline: Deadline) -> Stream:
        """Return an RFB connection that the hypervisor hands over; no listening port is needed."""
        self._lacks(Capability.OPEN_CONSOLE, machine)

    def set_console_password(
        self,
        machine: Machine,
        password: Secret | str,
        deadline: Deadline,
        *,
        valid_s: float | None = None,
    ) -> None:
        """Set the console's password, for that many seconds, or for good."""
        self._lacks(Capability.CONSOLE_PASSWORD, machine)

    def ask_agent(self, machine: Machine, request: str, deadline: Deadline) -> str:
        """Pass a request, a JSON text, on to the guest's agent, and return its reply.

        For hypervisors that keep the agent's channel to themselves: `Machine.relayed_agent`.
        """
        self._lacks(Capability.ASK_AGENT, machine)

    def vsock_state(self, machine: Machine, deadline: Deadline) -> VsockState | None:
        """Return how far the machine's vsock has come; None where the hypervisor does not tell."""
        del machine, deadline
        return None

    def _lacks(self, capability: Capability, machine: Machine | None = None) -> NoReturn:
        from vmconnect.hypervisor import kinds

        words = capability.value.replace("_", " ")
        able = [each.name for each in kinds() if capability in capabilities_of(each)]
        raise CapabilityError(
            f"{self.name} has no way to {words}" if machine else f"{self.name} cannot {words}",
            machine=machine.name if machine else None,
            hint="these have: " + ", ".join(able) if able else None,
        )


def capabilities_of(kind: type[Hypervisor]) -> frozenset[Capability]:
    """Return what machines of that kind of hypervisor can be asked for."""
    # Looking up needs no override: whoever lists can look up.
    overridden = {
        each
        for each in Capability
        if getattr(kind, each.value, None) is not getattr(Hypervisor, each.value, None)
    }
    if Capability.LIST in overridden:
        overridden.add(Capability.LOOK_UP)
    return frozenset(overridden | kind.fields)
