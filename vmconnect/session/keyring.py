"""Passwords that the user's keyring keeps for machines: Secret Service, KWallet and their like.

The library ``keyring`` finds whichever there is. It cannot tell what it keeps, so the state
directory has a list: for which machine, which of its channels and which user there is a password,
and never the password. Without a line there the keyring is not asked: nobody is bothered by its
dialogue for nothing, and the library is not imported.
"""

from __future__ import annotations

import importlib
import threading
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmconnect.errors import MissingDependencyError, ResourceError
from vmconnect.paths import state_directory
from vmconnect.secret import Secret, forget_frames
from vmconnect.session.line_file import LineFile
from vmconnect.session.purpose import Purpose

__all__ = ["Keyring", "KeyringEntry"]

SERVICE = "vmconnect"
_NOTHING = "*"  # in names it is quoted
# The library's word for a backend that may be used without being asked for: it keeps passwords
# where others cannot read them.
_RECOMMENDED = 1
# Not every backend is safe to use from several threads, and none is to ask a person twice at once.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class KeyringEntry:
    """A password in the keyring; ``machine`` is what the machine was called when it was stored."""

    purpose: Purpose
    identity: str
    user: str | None
    machine: str

    @property
    def account(self) -> str:
        """The name of the entry in the keyring."""
        who = f"{self.user}@" if self.user else ""
        return f"{self.purpose.value} {who}{self.identity}"


class Keyring:
    """The user's keyring, and the list of what we have put there."""

    def __init__(self, path: Path | None = None):
        self._file = LineFile(path or state_directory() / "credentials")

    def entries(self) -> list[KeyringEntry]:
        """Return what there is; the keyring itself is not asked."""
        return [entry for line in self._file.read() if (entry := _entry(line)) is not None]

    def find(self, purpose: Purpose, identity: str, user: str | None = None) -> KeyringEntry | None:
        """Return the entry for a machine's channel; for any user, if none is named."""
        for entry in self.entries():
            if (entry.purpose, entry.identity) == (purpose, identity) and (
                user is None or entry.user in {None, user}
            ):
                return entry
        return None

    def password(self, entry: KeyringEntry) -> Secret | None:
        """Return the entry's password; None if the keyring has lost it.

        Raises ResourceError when the keyring refuses, MissingDependencyError without the library.
        """
        text = _call("get_password", SERVICE, entry.account)
        return Secret(text) if isinstance(text, str) else None

    def store(self, entry: KeyringEntry, password: Secret) -> None:
        """Put a password in, in place of the one before.

        Raises as `password`, and ResourceError where there is only a keyring that others can read.
        """
        backend = _call("get_keyring")
        priority = getattr(backend, "priority", 0)
        if priority < _RECOMMENDED:
            raise ResourceError(
                f"there is no keyring here that keeps a password safe ({_named(backend)})",
                hint="unlock or install one (Secret Service, KWallet), or use --password-file",
            )
        _call("set_password", SERVICE, entry.account, password.reveal())
        with self._file.changing() as lines:
            lines[:] = [line for line in lines if not _same(line, entry)] + [_line(entry)]

    def forget(self, entry: KeyringEntry) -> None:
        """Take a password out; one that is not there any more does no harm."""
        try:
            _call("delete_password", SERVICE, entry.account)
        except ResourceError as error:
            if type(error.__cause__).__name__ != "PasswordDeleteError":
                raise
        with self._file.changing() as lines:
            lines[:] = [line for line in lines if not _same(line, entry)]


def _call(function: str, *arguments: str) -> Any:
    """Call a function of the library, and translate what it raises."""
    try:
        library = importlib.import_module("keyring")
        errors = importlib.import_module("keyring.errors")
    except ImportError as error:
        raise MissingDependencyError(
            "the Python package keyring is not installed",
            hint="pip install 'vmconnect[keyring]'",
        ) from error
    try:
        with _one_at_a_time:
            return getattr(library, function)(*arguments)
    except errors.KeyringError as error:
        forget_frames(error)
        raise ResourceError(
            f"the keyring refuses: {error or type(error).__name__}",
            hint="is there one in this session, and is it unlocked?",
        ) from error
    except Exception as error:
        forget_frames(error)
        raise ResourceError(f"the keyring fails: {type(error).__name__}") from error


def _named(backend: Any) -> str:
    return str(getattr(backend, "name", type(backend).__name__))


def _line(entry: KeyringEntry) -> str:
    words = entry.purpose.value, entry.identity, entry.user or "", entry.machine
    return " ".join(
        urllib.parse.quote(word, safe="/:@.", errors="surrogateescape") or _NOTHING
        for word in words
    )


def _entry(line: str) -> KeyringEntry | None:
    words = [
        "" if word == _NOTHING else urllib.parse.unquote(word, errors="surrogateescape")
        for word in line.split()
    ]
    if len(words) != 4:
        return None
    try:
        purpose = Purpose(words[0])
    except ValueError:
        return None
    return KeyringEntry(purpose, words[1], words[2] or None, words[3])


def _same(line: str, entry: KeyringEntry) -> bool:
    known = _entry(line)
    return known is not None and known.account == entry.account
