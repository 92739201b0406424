"""Who we are in a guest."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Login", "Memory"]


def _nobody_to_ask(_prompt: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and the ways to prove it, tried in this order.

    ``identity_files`` are private keys; ``use_agent`` asks the ssh-agent of SSH_AUTH_SOCK;
    ``ask`` is given a prompt and returns a password or passphrase, or None to do without.
    """

    user: str = field(default_factory=getpass.getuser)
    identity_files: tuple[Path, ...] = ()
    use_agent: bool = True
    ask: Callable[[str], str | None] = field(default=_nobody_to_ask, repr=False)


class Memory:
    """What a person has answered, so that he is not asked again; never shown."""

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}

    def of(self, ask: Callable[[str], str | None]) -> Callable[[str], str | None]:
        """Return a way to ask that asks each question once."""

        def remember(prompt: str) -> str | None:
            answer = self._answers.get(prompt) or ask(prompt)
            if answer is not None:
                self._answers[prompt] = answer
            return answer

        return remember
