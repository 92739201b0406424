"""What a guest agent tells of its guest (QEMU qga/qapi-schema.json).

All of it is the guest's word: texts are cut and have no control characters, lists are bounded.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from vmconnect.direct.agent.answer import Answer
from vmconnect.errors import AgentError

__all__ = [
    "AgentInfo",
    "Disk",
    "FileSystem",
    "Interface",
    "LoggedInUser",
    "OsInfo",
    "Processor",
    "TimeZone",
]

IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_DAY_SECONDS = 86400
_WINDOWS = "mswindows"


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Which agent answers: its version, and the commands that it has and permits."""

    version: str
    commands: frozenset[str]

    @classmethod
    def read(cls, content: Any, command: str) -> AgentInfo:
        """Return it out of an answer to ``command``; so do the others' ``read``."""
        answer = Answer(content, command)
        commands = answer.parts("supported_commands")
        return cls(
            answer.text("version"),
            frozenset(each.text("name") for each in commands if each.flag("enabled")),
        )


@dataclass(frozen=True, slots=True)
class OsInfo:
    """The guest's operating system, as its os-release(5) has it; empty where it does not tell."""

    id: str
    name: str
    version: str
    kernel: str
    machine: str

    @property
    def windows(self) -> bool:
        """Whether it is Windows."""
        return self.id == _WINDOWS

    @classmethod
    def read(cls, content: Any, command: str) -> OsInfo:  # noqa: D102
        answer = Answer(content, command)
        return cls(
            id=answer.text("id"),
            name=answer.text("pretty-name") or answer.text("name"),
            version=answer.text("version-id"),
            kernel=answer.text("kernel-release"),
            machine=answer.text("machine"),
        )


@dataclass(frozen=True, slots=True)
class TimeZone:
    """The guest's time zone: its name, empty where it tells none, and seconds before UTC now."""

    name: str
    offset_s: int

    @classmethod
    def read(cls, content: Any, command: str) -> TimeZone:  # noqa: D102
        answer = Answer(content, command)
        return cls(answer.text("zone"), answer.number("offset", _DAY_SECONDS))


@dataclass(frozen=True, slots=True)
class Interface:
    """One of the guest's network interfaces; ``mac`` is empty where it has none."""

    name: str
    mac: str
    addresses: tuple[IpInterface, ...]

    @classmethod
    def read_all(cls, content: Any, command: str) -> tuple[Interface, ...]:
        """Return them out of an answer to ``command``; so do the others' ``read_all``."""
        return tuple(
            cls(
                each.text("name"),
                each.text("hardware-address"),
                tuple(_address(one, command) for one in each.parts("ip-addresses")),
            )
            for each in Answer.each(content, command)
        )


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A mounted file system, in bytes where the guest tells; ``disks`` are the devices it is on."""

    device: str
    mountpoint: str
    kind: str
    used_bytes: int | None
    total_bytes: int | None
    disks: tuple[str, ...]

    @classmethod
    def read_all(cls, content: Any, command: str) -> tuple[FileSystem, ...]:  # noqa: D102
        return tuple(
            cls(
                device=each.text("name"),
                mountpoint=each.text("mountpoint", 4096),
                kind=each.text("type"),
                used_bytes=each.some_number("used-bytes"),
                total_bytes=each.some_number("total-bytes"),
                disks=tuple(disk.text("dev") for disk in each.parts("disk")),
            )
            for each in Answer.each(content, command)
        )


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk or partition; ``parents`` are the devices that it is on, ``alias`` another name."""

    device: str
    partition: bool
    alias: str
    bus: str
    serial: str
    parents: tuple[str, ...]

    @classmethod
    def read_all(cls, content: Any, command: str) -> tuple[Disk, ...]:  # noqa: D102
        nothing = Answer({}, command)
        return tuple(
            cls(
                device=each.text("name"),
                partition=each.flag("partition"),
                alias=each.text("alias"),
                bus=(each.part("address") or nothing).text("bus-type"),
                serial=(each.part("address") or nothing).text("serial"),
                parents=each.shown_texts("dependencies"),
            )
            for each in Answer.each(content, command)
        )


@dataclass(frozen=True, slots=True)
class Processor:
    """One virtual processor, and whether the guest uses it, and could do without."""

    number: int
    online: bool
    can_offline: bool

    @classmethod
    def read_all(cls, content: Any, command: str) -> tuple[Processor, ...]:  # noqa: D102
        return tuple(
            cls(each.number("logical-id"), each.flag("online"), each.flag("can-offline"))
            for each in Answer.each(content, command)
        )


@dataclass(frozen=True, slots=True)
class LoggedInUser:
    """Somebody who is logged in, since when in seconds since 1970; ``domain`` is Windows'."""

    name: str
    domain: str
    since: float

    @classmethod
    def read_all(cls, content: Any, command: str) -> tuple[LoggedInUser, ...]:  # noqa: D102
        return tuple(
            cls(each.text("user"), each.text("domain"), each.seconds("login-time"))
            for each in Answer.each(content, command)
        )


def _address(answer: Answer, command: str) -> IpInterface:
    text = f"{answer.text('ip-address')}/{answer.number('prefix', 129)}"
    try:
        return ipaddress.ip_interface(text)
    except ValueError as error:
        raise AgentError(f"an address that is none in an answer to {command}") from error
