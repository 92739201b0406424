"""What a guest tells of itself: its system, addresses and disks.

Over SSH one command asks for all of it, a POSIX shell's script whose lines `parse_facts` reads; a
guest agent is asked question by question. All of it is the guest's word: it is bounded, and has
nothing in it that could drive a terminal. What a guest does not tell is None, or empty.
"""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from vmconnect.deadline import Deadline
from vmconnect.errors import AgentError, GuestError, UnsupportedError

if TYPE_CHECKING:
    from vmconnect.direct.agent import GuestAgent

__all__ = [
    "FACTS_BYTES",
    "FACTS_SCRIPT",
    "Facts",
    "Filesystem",
    "Interface",
    "agent_facts",
    "parse_facts",
]

FACTS_BYTES = 1 << 20
"""No guest has so much to tell."""

FACTS_SCRIPT = r"""
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
echo "hostname $(uname -n)"
echo "kernel $(uname -sr)"
echo "architecture $(uname -m)"
for file in /etc/os-release /usr/lib/os-release; do
  [ -r $file ] && sed 's/^/os /' $file && break
done
read -r up rest 2>/dev/null </proc/uptime && echo "uptime $up"
echo "cpus $(getconf _NPROCESSORS_ONLN 2>/dev/null || grep -c ^processor /proc/cpuinfo 2>/dev/null)"
sed -n 's/^Mem\(Total\|Available\): */memory \1 /p' /proc/meminfo 2>/dev/null
for link in /sys/class/net/*; do
  [ -r "$link/address" ] && echo "link ${link##*/} $(cat "$link/address" 2>/dev/null)"
done
ip -o addr 2>/dev/null | sed 's/^/address /'
sed 's/^/mount /' /proc/mounts 2>/dev/null
df -Pk 2>/dev/null | sed 1d | sed 's/^/df /'
exit 0
"""

T = TypeVar("T")

# What an agent refuses, does not have, or answers senselessly, is done without.
_UNANSWERED = (UnsupportedError, GuestError, AgentError)
_TEXT_CHARACTERS = 256
_MOST_ITEMS = 256
_MOST_BYTES = 1 << 63
# Filesystems that are no disks, though they have a size.
_NO_DISKS = frozenset({"tmpfs", "devtmpfs", "ramfs", "squashfs", "efivarfs", "iso9660"})


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface; ``addresses`` are as ``192.0.2.7/24``."""

    name: str
    mac: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A filesystem on a disk, and where it is mounted."""

    mount: str
    device: str
    kind: str
    size_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a guest is, in its own words."""

    hostname: str = ""
    os_id: str = ""
    os_name: str = ""
    os_version: str = ""
    kernel: str = ""
    architecture: str = ""
    uptime_s: float | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    memory_available_bytes: int | None = None
    interfaces: tuple[Interface, ...] = ()
    filesystems: tuple[Filesystem, ...] = ()


def parse_facts(data: bytes) -> Facts:
    """Read what `FACTS_SCRIPT` has written; lines that make no sense are passed over."""
    lines: dict[str, list[str]] = {}
    for line in data[:FACTS_BYTES].decode("utf-8", "replace").splitlines():
        word, _, rest = line.partition(" ")
        lines.setdefault(word, []).append(rest)
    system = dict(_assignments(lines.get("os", [])))
    memory = dict(_memory(lines.get("memory", [])))

    def first(word: str) -> str:
        return lines.get(word, [""])[0]

    return Facts(
        hostname=_text(first("hostname")),
        os_id=_text(system.get("ID", "")),
        os_name=_text(system.get("PRETTY_NAME", "") or system.get("NAME", "")),
        os_version=_text(system.get("VERSION_ID", "")),
        kernel=_text(first("kernel")),
        architecture=_text(first("architecture")),
        uptime_s=_seconds(first("uptime")),
        cpus=_count(first("cpus")) or None,
        memory_bytes=memory.get("Total"),
        memory_available_bytes=memory.get("Available"),
        interfaces=_interfaces(lines.get("link", []), lines.get("address", [])),
        filesystems=_filesystems(lines.get("mount", []), lines.get("df", [])),
    )


def agent_facts(agent: GuestAgent, timeout: Deadline | float | None = 10.0) -> Facts:
    """Ask a guest agent; what it does not know or permit is left out.

    Raises DeadlineError, ConnectionLostError.
    """
    deadline = Deadline.of(timeout)

    def read(path: str) -> str:
        return agent.read_file(path, limit=1 << 14, timeout=deadline).decode("ascii", "replace")

    system = _told(lambda: agent.os_info(deadline))
    lines = [line.split() for line in (_told(lambda: read("/proc/meminfo")) or "").splitlines()]
    memory = dict(
        _memory(" ".join([words[0][3:-1], *words[1:]]) for words in lines if len(words) > 1)
    )
    return Facts(
        hostname=_text(_told(lambda: agent.host_name(deadline))),
        os_id=_text(system.id if system else ""),
        os_name=_text(system.name if system else ""),
        os_version=_text(system.version if system else ""),
        kernel=_text(system.kernel if system else ""),
        architecture=_text(system.machine if system else ""),
        uptime_s=_seconds((_told(lambda: read("/proc/uptime")) or "").partition(" ")[0]),
        cpus=len(_told(lambda: agent.processors(deadline)) or ()) or None,
        memory_bytes=memory.get("Total"),
        memory_available_bytes=memory.get("Available"),
        interfaces=tuple(
            Interface(_text(each.name), _text(each.mac), tuple(map(str, each.addresses)))
            for each in (_told(lambda: agent.interfaces(deadline)) or ())[:_MOST_ITEMS]
        ),
        filesystems=tuple(
            Filesystem(
                _text(each.mountpoint),
                _text(each.device),
                _text(each.kind),
                each.total_bytes,
                each.used_bytes,
            )
            for each in (_told(lambda: agent.file_systems(deadline)) or ())[:_MOST_ITEMS]
            if each.total_bytes is not None
            and each.used_bytes is not None
            and 0 <= each.used_bytes <= each.total_bytes < _MOST_BYTES
            and each.kind not in _NO_DISKS
        ),
    )


def _told(question: Callable[[], T]) -> T | None:
    """Return what an agent answers; None where it does not permit it, know it, or make sense."""
    with contextlib.suppress(*_UNANSWERED):
        return question()
    return None


def _assignments(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Read os-release(5)."""
    for line in lines[:_MOST_ITEMS]:
        name, equals, value = line.partition("=")
        if equals:
            with contextlib.suppress(ValueError):  # quotes that do not end
                yield name, "".join(shlex.split(value)[:1])


def _memory(lines: Iterator[str] | list[str]) -> Iterator[tuple[str, int]]:
    """Read lines of proc(5), meminfo: a name, a number, kB."""
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[2] == "kB" and (count := _count(words[1])) is not None:
            yield words[0], count << 10


def _interfaces(links: list[str], addresses: list[str]) -> tuple[Interface, ...]:
    found: dict[str, Interface] = {}
    for line in links[:_MOST_ITEMS]:
        name, _, mac = line.partition(" ")
        found[name] = Interface(_text(name), _text(mac))
    for line in addresses[: 8 * _MOST_ITEMS]:
        # ip-address(8), one line each: 2: eth0    inet 192.0.2.7/24 brd ...
        words = line.split()
        if len(words) < 4 or words[2] not in {"inet", "inet6"}:
            continue
        name = words[1].partition("@")[0]
        before = found.get(name) or Interface(_text(name))
        if len(found) < _MOST_ITEMS and len(before.addresses) < _MOST_ITEMS:
            address = (*before.addresses, _text(words[3]))
            found[name] = Interface(before.name, before.mac, address)
    return tuple(found.values())


def _filesystems(mounts: list[str], sizes: list[str]) -> tuple[Filesystem, ...]:
    kinds = {}
    for line in mounts[: 8 * _MOST_ITEMS]:
        words = line.split(" ")
        if len(words) > 2:
            kinds[words[1].replace(r"\040", " ")] = words[2]
    found: dict[str, Filesystem] = {}
    for line in sizes[: 8 * _MOST_ITEMS]:
        # df(1), -P: device, blocks, used, available, capacity, mount
        words = line.split(None, 5)
        if len(words) < 6:
            continue
        device, mount, kind = words[0], words[5], kinds.get(words[5], "")
        size, used = _count(words[1]), _count(words[2])
        if size and used is not None and kind not in _NO_DISKS and len(found) < _MOST_ITEMS:
            found[mount] = Filesystem(
                _text(mount), _text(device), _text(kind), size << 10, used << 10
            )
    return tuple(found.values())


def _text(value: Any) -> str:
    text = value[:_TEXT_CHARACTERS].strip() if isinstance(value, str) else ""
    return "".join(char if char.isprintable() else "?" for char in text)


def _count(word: str) -> int | None:
    """Return a number that is one, and a size that there can be."""
    if not (word.isascii() and word.isdigit() and len(word) < 19):
        return None
    return min(int(word), _MOST_BYTES >> 10)


def _seconds(word: str) -> float | None:
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(word[:32])) and number >= 0:
            return number
    return None
