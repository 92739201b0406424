"""Another host, as ssh knows it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from vmconnect.errors import TargetError

__all__ = ["SshHost"]

# Neither part begins with a hyphen: for ssh that would be an option. Nor has one a character that
# a shell takes for more than itself: ssh_config's ProxyCommand may put them in a command line.
_FORM = (
    r"(?:(?P<user>[A-Za-z0-9_.][\w.-]*)@)?"
    r"(?P<name>[A-Za-z0-9_.][\w.-]*|\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\])"
    r"(?::(?P<port>[1-9]\d{0,4}))?"
)
_MOST_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class SshHost:
    """A host by its name, address or alias in ssh_config; what is None is up to ssh."""

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Read ``[USER@]HOST[:PORT]``, with IPv6 addresses in brackets; raises TargetError."""
        match = re.fullmatch(_FORM, text, re.ASCII)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or len(text) > _MOST_CHARACTERS or (port or 0) > 65535:
            raise TargetError(
                f"{text[:_MOST_CHARACTERS]!r} is no host for ssh", hint="[USER@]HOST[:PORT]"
            )
        return cls(match["name"].strip("[]"), match["user"], port)

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        user = f"{self.user}@" if self.user else ""
        return f"{user}{name}" + (f":{self.port}" if self.port else "")
