"""Credentials: where the answers come from that a console or a guest asks us for.

One order for both. What the caller names (a file, a file descriptor, a key) wins, and nothing else
is tried. Then come the environment and the keyring, for a guest after the user's keys and
ssh-agent, and its guest agent after those. A person is asked only when nothing else gave an answer.
"""

from __future__ import annotations

import functools
import getpass
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.errors import ResourceError, VmconnectError
from vmconnect.hypervisor import Machine
from vmconnect.secret import Secret
from vmconnect.session.agent_access import has_agent, temporary_key
from vmconnect.session.keyring import Keyring
from vmconnect.session.purpose import Purpose
from vmconnect.session.secrets import secret_from_environment
from vmconnect.terminal import someone_to_ask

if TYPE_CHECKING:  # They bring paramiko and numpy.
    from vmconnect.direct import Login
    from vmconnect.vnc.credentials import Answer

__all__ = [
    "ask_on_terminal",
    "ask_secret",
    "console_password",
    "console_user",
    "login_for",
    "stored_password",
    "variables",
]

_TERMINAL = Path("/dev/tty")

# ssh's own order of preference (ssh_config(5), IdentityFile), without the retired DSA.
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")

# For every VNC server.
_VNC_PASSWORD, _VNC_USER = "VNC_PASSWORD", "VNC_USERNAME"


def ask_on_terminal(prompt: str) -> str | None:
    """Ask the person at the terminal.

    None where nobody is there to ask, or nothing is answered.
    """
    if not someone_to_ask():
        return None
    try:
        # Not as one file: what reads and writes at one place must be seekable.
        with _TERMINAL.open("w", encoding="utf-8") as terminal:
            terminal.write(_printable(prompt))
        with _TERMINAL.open(encoding="utf-8", errors="replace") as terminal:
            return terminal.readline().strip() or None
    except OSError:
        return None


def ask_secret(prompt: str) -> Secret | None:
    """Ask the person at the terminal, without echo; else as `ask_on_terminal`."""
    if not someone_to_ask():
        return None
    try:
        return Secret(getpass.getpass(_printable(prompt)))
    except (OSError, EOFError):
        return None
    except UnicodeDecodeError:
        pass  # It has the answer in it: none of it is passed on.
    raise ResourceError("the answer is not UTF-8")


def variables(machine: Machine, purpose: Purpose) -> list[str]:
    """Return the environment variables that may have a machine's password, the first wins.

    ``VMCONNECT_GUEST_PASSWORD_WEB01`` is that of the guest of web01: whatever is no letter or
    digit in the UUID or the name is an underscore. A machine that no hypervisor tells of goes by
    its address alone: what it is called is the word of whoever wrote the address.
    """
    names = [machine.identity] if machine.hypervisor is None else [machine.uuid, machine.name]
    return [
        f"VMCONNECT_{purpose.name}_PASSWORD_{word}"
        for name in names
        if (word := re.sub(r"[^A-Z0-9]+", "_", (name or "").upper()).strip("_"))
    ]


def stored_password(machine: Machine, purpose: Purpose, user: str | None = None) -> Secret | None:
    """Return a machine's password from the environment or the keyring; None if there is none.

    Raises ResourceError when it should be in the keyring, which refuses.
    """
    for variable in variables(machine, purpose):
        if (secret := secret_from_environment(variable)) is not None:
            return secret
    if purpose is Purpose.CONSOLE and (secret := secret_from_environment(_VNC_PASSWORD)):
        return secret
    keyring = Keyring()
    entry = keyring.find(purpose, machine.identity, user)
    return None if entry is None else keyring.password(entry)


def console_password(machine: Machine) -> Answer:
    """Return the password of a machine's VNC server, or the way to ask for it."""
    if machine.console_password is not None:
        return machine.console_password  # It came with the target, and is for this very server.
    ask = functools.partial(ask_secret, f"VNC password of {machine.name}: ")
    try:
        return stored_password(machine, Purpose.CONSOLE) or ask
    except VmconnectError as error:
        return functools.partial(_ask_or_raise, ask, error)


def console_user(machine: Machine) -> Answer:
    """Return who we are to a machine's VNC server, or the way to ask for it."""
    named = machine.console_user or secret_from_environment(_VNC_USER)
    if named is None and (entry := Keyring().find(Purpose.CONSOLE, machine.identity)):
        named = entry.user
    return named or (lambda: ask_on_terminal(f"VNC user of {machine.name}: "))


def login_for(
    machine: Machine,
    user: str | None = None,
    identity_files: Sequence[Path] = (),
    password: Secret | None = None,
    passphrase: Secret | None = None,
    *,
    agent_socket: str | None = None,
    ask: Callable[[str], Secret | None] = ask_secret,
) -> Login:
    """Return how to log in to the machine's guest.

    A password that the caller gives comes alone, as keys do; else there are the keys that the
    machine's note names or the user's own and ssh-agent's (at ``agent_socket``, or that of
    SSH_AUTH_SOCK), a stored password, and the guest agent.
    The user is the one named, the note's, the one that the keyring has a password for, or of our
    own name, as with ssh.
    """
    from vmconnect.direct.login import Login, nobody

    note = machine.note
    files: tuple[Path, ...]
    who = user or note.user or _stored_user(machine) or getpass.getuser()
    if password is not None:
        return Login(who, use_agent=False, password=password, ask=nobody)
    if identity_files:
        return Login(who, tuple(identity_files), False, passphrase=passphrase, ask=ask)
    if note.identity_file:
        files, use_agent = (Path(note.identity_file),), False
    else:
        home = Path.home() / ".ssh"
        files = tuple(path for name in _DEFAULT_KEYS if (path := home / name).is_file())
        use_agent = True
    login = Login(
        who,
        files,
        use_agent,
        password=functools.partial(stored_password, machine, Purpose.GUEST, who),
        ask=ask,
        agent_socket=agent_socket,
    )
    if not has_agent(machine):
        return login
    if who == "root" and "root" not in {user, note.user}:
        # To be root here is no wish to be root there.
        return replace(login, hint="name a user with -l, and its guest agent may let you in")
    return replace(login, temporary_key=functools.partial(temporary_key, machine, who))


def _stored_user(machine: Machine) -> str | None:
    entry = Keyring().find(Purpose.GUEST, machine.identity)
    return entry.user if entry else None


def _ask_or_raise(ask: functools.partial[Secret | None], error: VmconnectError) -> Secret | None:
    """Ask the person; where there is none, say what else went wrong."""
    answer = ask()
    if answer is None:
        raise error
    return answer


def _printable(prompt: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in prompt)
