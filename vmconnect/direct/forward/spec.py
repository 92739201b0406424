r"""What is forwarded where to, as ssh(1) writes it (-L, -R, -D).

::

    [BIND:]PORT:HOST:HOSTPORT     /PATH:HOST:HOSTPORT
    [BIND:]PORT:/PATH             /PATH:/PATH
    [BIND:]PORT                   with -D: whatever the client asks for by SOCKS

IPv6 addresses stand in brackets; ``\:`` is a colon in a path. Without BIND it listens on loopback
alone, and so it does with ``localhost``; ``*``, or an empty BIND, is every address.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from vmconnect.errors import TargetError
from vmconnect.streams import Tcp, Unix

__all__ = ["ANYWHERE", "LOOPBACK", "ForwardKind", "ForwardSpec"]

LOOPBACK = "localhost"
ANYWHERE = "*"

_MOST_CHARACTERS = 1024
_HOST_CHARACTERS = 255
_SHOWN = 80
_FORMS = "[BIND:]PORT:HOST:HOSTPORT, [BIND:]PORT:/PATH, /PATH:HOST:HOSTPORT or /PATH:/PATH"
_DYNAMIC_FORMS = "[BIND:]PORT"
_FIELD = re.compile(r"\[([^\[\]]+)\]|((?:\\[\\:]|[^:])*)", re.DOTALL)
_ESCAPED = re.compile(r"\\([\\:])")


class ForwardKind(enum.Enum):
    """Who listens; the values are ssh's options."""

    LOCAL = "L"
    """This side listens, and the guest connects."""
    REMOTE = "R"
    """The guest listens, and this side connects."""
    DYNAMIC = "D"
    """This side listens, and the guest connects to what each client asks for by SOCKS."""


@dataclass(frozen=True, slots=True)
class ForwardSpec:
    """Where it listens, and where what connects there is taken; ``target`` is None for SOCKS."""

    kind: ForwardKind
    listen: Tcp | Unix
    target: Tcp | Unix | None

    @classmethod
    def read(cls, text: str, kind: ForwardKind = ForwardKind.LOCAL) -> ForwardSpec:
        """Read a specification; raises TargetError that says which forms there are."""
        return _Reader(text, kind).read()

    def __str__(self) -> str:
        target = f":{_written(self.target)}" if self.target else ""
        return f"{_written(self.listen)}{target}"


def _written(end: Tcp | Unix) -> str:
    if isinstance(end, Unix):
        return end.path.replace("\\", "\\\\").replace(":", "\\:")
    return str(end)


class _Reader:
    def __init__(self, text: str, kind: ForwardKind):
        self._text, self._kind = text, kind

    def read(self) -> ForwardSpec:
        if len(self._text) > _MOST_CHARACTERS or "\0" in self._text:
            raise self._error("is too long" if "\0" not in self._text else "has a zero byte")
        fields = self._fields()
        listen, rest = self._listening(fields)
        if self._kind is ForwardKind.DYNAMIC:
            if rest or isinstance(listen, Unix):
                raise self._error("is more than a port to listen on")
            return ForwardSpec(self._kind, listen, None)
        return ForwardSpec(self._kind, listen, self._end(rest))

    def _listening(self, fields: list[str]) -> tuple[Tcp | Unix, list[str]]:
        if _is_path(fields[0]):
            return Unix(fields[0]), fields[1:]
        # What follows is a path or a host and a port: what is left before it is BIND and PORT.
        after = 0 if self._kind is ForwardKind.DYNAMIC else 1 if _is_path(fields[-1]) else 2
        before = fields[: len(fields) - after]
        match before:
            case [port]:
                return Tcp(LOOPBACK, self._port(port, least=0)), fields[1:]
            case [bind, port]:
                return Tcp(self._host(bind or ANYWHERE), self._port(port, least=0)), fields[2:]
            case _:
                raise self._error("is no forward")

    def _end(self, fields: list[str]) -> Tcp | Unix:
        match fields:
            case [path] if _is_path(path):
                return Unix(path)
            case [host, port] if host and not _is_path(host):
                return Tcp(self._host(host), self._port(port, least=1))
            case _:
                raise self._error("is no forward")

    def _fields(self) -> list[str]:
        """Split at colons, but not at those in brackets or after a backslash."""
        fields, place = [], 0
        while True:
            found = _FIELD.match(self._text, place)
            bracketed, plain = found.groups() if found else (None, "")
            fields.append(bracketed or _ESCAPED.sub(r"\1", plain or ""))
            place = found.end() if found else place
            if place == len(self._text):
                return fields
            if self._text[place] != ":":
                raise self._error("has more after its brackets")
            place += 1

    def _host(self, host: str) -> str:
        if len(host) > _HOST_CHARACTERS or not host.isprintable() or set(host) & set(" /\\[]"):
            raise self._error("has no valid host")
        return host

    def _port(self, text: str, *, least: int) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 5 and least <= int(text) <= 65535:
            return int(text)
        raise self._error(f"has no valid port: {text[:_SHOWN]!r}")

    def _error(self, what: str) -> TargetError:
        forms = _DYNAMIC_FORMS if self._kind is ForwardKind.DYNAMIC else _FORMS
        return TargetError(f"-{self._kind.value} {self._text[:_SHOWN]!r} {what}", hint=forms)


def _is_path(field: str) -> bool:
    return "/" in field
