"""Who we are in a guest."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Login"]


def _nobody_to_ask(_prompt: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and the ways to prove it, tried in this order.

    ``identity_files`` are private keys; ``use_agent`` asks the ssh-agent at ``agent_socket``, or
    of SSH_AUTH_SOCK where that is None;
    ``ask`` is given a prompt and returns a password or passphrase, or None to do without.
    """

    user: str = field(default_factory=getpass.getuser)
    identity_files: tuple[Path, ...] = ()
    use_agent: bool = True
    agent_socket: str | None = field(default=None, kw_only=True)
    ask: Callable[[str], str | None] = field(default=_nobody_to_ask, repr=False)
