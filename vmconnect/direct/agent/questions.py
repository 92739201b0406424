"""What a guest's agent is asked, and how (QEMU qga/qapi-schema.json)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from vmconnect.closing import Closing
from vmconnect.deadline import Deadline
from vmconnect.direct.agent.answer import Answer, number_in
from vmconnect.direct.agent.channel import AgentChannel
from vmconnect.direct.agent.facts import (
    AgentInfo,
    Disk,
    FileSystem,
    Interface,
    LoggedInUser,
    OsInfo,
    Processor,
    TimeZone,
)
from vmconnect.direct.agent.refusal import refusal
from vmconnect.errors import ConnectionLostError, DeadlineError, GuestError, UnsupportedError
from vmconnect.operation import Operations

__all__ = ["AgentQuestions", "Timeout"]

T = TypeVar("T")

Timeout = Deadline | float | None

_TIMEOUT = 10.0
# How long an order may take to be refused.
_REFUSING_SECONDS = 5.0


class AgentQuestions(Closing):
    """The questions of a `GuestAgent`: none of them changes anything in the guest."""

    def __init__(self, channel: AgentChannel, machine: str):
        """Take over ``channel``; ``machine`` is for errors."""
        self.machine = machine
        self.operations = Operations()
        """What changes something in the guest, or takes something out of it; others may listen."""
        self.has_groups = True
        """Whether programs can be given process groups of their own, as far as is known."""
        self._channel = channel
        self._windows: bool | None = None

    def execute(self, command: str, *, timeout: Timeout = _TIMEOUT, **arguments: Any) -> Any:
        """Run any command and return its answer; underscores in arguments become hyphens."""
        reply = self._channel.exchange(command, _named(arguments), Deadline.of(timeout))
        if "return" in reply:
            return reply["return"]
        raise refusal(command, reply.get("error"), self.machine)

    def order(
        self, command: str, *, timeout: Timeout = _REFUSING_SECONDS, **arguments: Any
    ) -> None:
        """Run a command that has no answer unless it fails: shutdown, suspend."""
        try:
            reply = self._channel.order(command, _named(arguments), Deadline.of(timeout))
        except (DeadlineError, ConnectionLostError):
            return  # The guest has gone.
        if reply is not None and "return" not in reply:
            raise refusal(command, reply.get("error"), self.machine)

    # Who answers, and for what.

    def ping(self, timeout: Timeout = _TIMEOUT) -> None:
        """Return if the agent answers."""
        self.execute("guest-ping", timeout=timeout)

    def info(self, timeout: Timeout = _TIMEOUT) -> AgentInfo:
        """Return which agent it is, and what it can."""
        return self._read(AgentInfo.read, "guest-info", timeout)

    def os_info(self, timeout: Timeout = _TIMEOUT) -> OsInfo:
        """Return what the guest runs."""
        return self._read(OsInfo.read, "guest-get-osinfo", timeout)

    def is_windows(self, timeout: Timeout = _TIMEOUT) -> bool:
        """Return whether the guest runs Windows; it is asked once."""
        if self._windows is None:
            try:
                self._windows = self.os_info(timeout).windows
            except (UnsupportedError, GuestError):
                self._windows = False  # One that does not tell is older than any that is known.
        return self._windows

    def host_name(self, timeout: Timeout = _TIMEOUT) -> str:
        """Return the guest's name for itself."""
        command = "guest-get-host-name"
        return Answer(self.execute(command, timeout=timeout), command).text("host-name")

    def users(self, timeout: Timeout = _TIMEOUT) -> tuple[LoggedInUser, ...]:
        """Return who is logged in."""
        return self._read(LoggedInUser.read_all, "guest-get-users", timeout)

    def interfaces(self, timeout: Timeout = _TIMEOUT) -> tuple[Interface, ...]:
        """Return the network interfaces, with their addresses."""
        return self._read(Interface.read_all, "guest-network-get-interfaces", timeout)

    def file_systems(self, timeout: Timeout = _TIMEOUT) -> tuple[FileSystem, ...]:
        """Return the file systems that are mounted from disks."""
        return self._read(FileSystem.read_all, "guest-get-fsinfo", timeout)

    def disks(self, timeout: Timeout = _TIMEOUT) -> tuple[Disk, ...]:
        """Return the disks and their partitions."""
        return self._read(Disk.read_all, "guest-get-disks", timeout)

    def processors(self, timeout: Timeout = _TIMEOUT) -> tuple[Processor, ...]:
        """Return the virtual processors."""
        return self._read(Processor.read_all, "guest-get-vcpus", timeout)

    def time(self, timeout: Timeout = _TIMEOUT) -> float:
        """Return the guest's clock, in seconds since 1970, UTC."""
        command = "guest-get-time"
        return number_in(self.execute(command, timeout=timeout), 1 << 63, command) / 1e9

    def time_zone(self, timeout: Timeout = _TIMEOUT) -> TimeZone:
        """Return the guest's time zone, as it is now."""
        return self._read(TimeZone.read, "guest-get-timezone", timeout)

    def close(self) -> None:
        """Leave the agent to the next."""
        self._channel.close()

    def _read(self, read: Callable[[Any, str], T], command: str, timeout: Timeout) -> T:
        return read(self.execute(command, timeout=timeout), command)


def _named(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in arguments.items()}
