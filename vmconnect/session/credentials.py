"""Credentials: which keys and answers we may offer a machine."""

from __future__ import annotations

import contextlib
import contextvars
import getpass
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.hypervisor import Machine

if TYPE_CHECKING:  # It brings paramiko, which a console does without.
    from vmconnect.direct import Login

__all__ = ["ask_on_terminal", "asking_nobody", "login_for"]

_TERMINAL = Path("/dev/tty")

# ssh's own order of preference (ssh_config(5), IdentityFile), without the retired DSA.
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


_nobody_is_asked = contextvars.ContextVar("_nobody_is_asked", default=False)


@contextlib.contextmanager
def asking_nobody() -> Iterator[None]:
    """Let there be nobody at the terminal, within a ``with`` block of this thread."""
    token = _nobody_is_asked.set(True)
    try:
        yield
    finally:
        _nobody_is_asked.reset(token)


def ask_on_terminal(prompt: str, *, hidden: bool = True) -> str | None:
    """Ask the person at the terminal, without echo if ``hidden``.

    None where nobody is there to ask, or nothing is answered.
    """
    if _nobody_is_asked.get() or not sys.stderr.isatty():
        return None
    shown = "".join(char if char.isprintable() or char == "\n" else "?" for char in prompt)
    try:
        if hidden:
            return getpass.getpass(shown)
        # Not as one file: what reads and writes at one place must be seekable.
        with _TERMINAL.open("w", encoding="utf-8") as terminal:
            terminal.write(shown)
        with _TERMINAL.open(encoding="utf-8", errors="replace") as terminal:
            return terminal.readline().strip() or None
    except (OSError, EOFError):
        return None


def login_for(
    machine: Machine, user: str | None = None, identity_files: Sequence[Path] = ()
) -> Login:
    """Return how to log in to the machine's guest.

    What the caller names comes first and alone; else what the machine's note says; else the
    user's own name, agent and keys, as ssh does.
    """
    from vmconnect.direct import Login

    note = machine.note
    if identity_files:
        files, use_agent = tuple(identity_files), False
    elif note.identity_file:
        files, use_agent = (Path(note.identity_file),), False
    else:
        home = Path.home() / ".ssh"
        files = tuple(path for name in _DEFAULT_KEYS if (path := home / name).is_file())
        use_agent = True
    return Login(
        user=user or note.user or getpass.getuser(),
        identity_files=files,
        use_agent=use_agent,
        ask=ask_on_terminal,
    )
