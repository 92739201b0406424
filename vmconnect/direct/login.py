"""Who we are in a guest."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.secret import Secret

if TYPE_CHECKING:
    from paramiko import PKey

    from vmconnect.deadline import Deadline

__all__ = ["Answer", "Login", "Memory", "TemporaryKey", "nobody"]

Answer = Secret | str | None
TemporaryKey = Callable[[str, "Deadline"], "AbstractContextManager[PKey]"]


def nobody(_prompt: str) -> Answer:
    """Answer nothing: there is nobody to ask."""
    return None


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and the ways to prove it, tried in this order; a person comes last.

    ``identity_files``: private keys; those with a passphrase now if ``passphrase`` opens them.
    ``use_agent``: the keys of the ssh-agent at ``agent_socket``, or of SSH_AUTH_SOCK where that
    is None.
    ``password``: a password at hand, or a way to look for one that asks nobody.
    ``temporary_key``: called with what the server greeted with and a deadline, it gives a key
    that the guest lets in for the time of a ``with`` block.
    ``ask``: given a prompt, it returns the passphrase of a key, then a password, or None to do
    without.
    ``hint``: what would help when all of this is refused.
    """

    user: str = field(default_factory=getpass.getuser)
    identity_files: tuple[Path, ...] = ()
    use_agent: bool = True
    password: Secret | Callable[[], Secret | None] | None = field(default=None, repr=False)
    passphrase: Secret | None = None
    temporary_key: TemporaryKey | None = field(default=None, repr=False)
    ask: Callable[[str], Answer] = field(default=nobody, repr=False)
    hint: str = "name another user with -l or a key with -i"
    agent_socket: str | None = None

    @property
    def has_more(self) -> bool:
        """Whether there is anything to try."""
        agent = self.use_agent and bool(
            os.environ.get("SSH_AUTH_SOCK") if self.agent_socket is None else self.agent_socket
        )
        ways = (self.identity_files, agent, self.password, self.temporary_key)
        return any(ways) or self.ask is not nobody


class Memory:
    """What a person has answered, so that he is not asked again; never shown."""

    def __init__(self) -> None:
        self._answers: dict[str, Secret] = {}

    def of(self, ask: Callable[[str], Answer]) -> Callable[[str], Answer]:
        """Return a way to ask that asks each question once."""
        if ask is nobody:
            return nobody

        def remember(prompt: str) -> Secret | None:
            answer = self._answers.get(prompt) or Secret.of(ask(prompt))
            if answer is not None:
                self._answers[prompt] = answer
            return answer

        return remember

    def forget(self) -> None:
        """Forget it all: some of it was wrong."""
        self._answers.clear()
